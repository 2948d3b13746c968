"""Runs of an earlier version are the same runs now: their configurations, as that version wrote them, fit today's."""

from __future__ import annotations

from pathlib import Path

import pytest

from o3f.runs.identity import config_difference, plain, read_settings
from tests.faults.kills import COVERING
from tests.support.recipe_runs import SHORT, settings

GOLDEN = Path(__file__).parent / "golden/runs"


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.yaml")))
def test_an_old_configuration_is_that_of_the_same_command_today(name: str) -> None:
    old = read_settings(GOLDEN / f"{name}.yaml")
    assert "num_lanes" in old  # it is from before
    assert "precision" not in old
    now = plain(settings("finetune", *SHORT, *COVERING[name]))
    assert config_difference(old, now) == []
    assert config_difference(now, old) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("precision=medium", "precision: highest -> medium"),
        ("algorithm.normalise=true", "algorithm.normalise: False -> True"),
        ("exploration.centre=mean", "exploration.centre: sample -> mean"),
    ],
)
def test_what_is_new_and_not_as_it_was_is_told(change: str, told: str) -> None:
    old = read_settings(GOLDEN / "iql.yaml")
    assert config_difference(old, plain(settings("finetune", *SHORT, *COVERING["iql"], change))) == [told]


def test_what_is_gone_must_have_had_its_default() -> None:
    old = read_settings(GOLDEN / "iql.yaml") | {"num_lanes": 2}
    now = plain(settings("finetune", *SHORT, *COVERING["iql"]))
    assert config_difference(old, now) == ["num_lanes: 2 -> 1"]
