"""Runs of an earlier version are the same runs now: their configurations, as that version wrote them, fit today's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from o3f.figures.plan import pretraining_key
from o3f.runs.identity import config_difference, plain, read_settings
from tests.faults.kills import COVERING
from tests.support.recipe_runs import SHORT, settings

GOLDEN = Path(__file__).parents[1] / "golden/runs"


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


def before_rules(*overrides: str) -> dict[str, Any]:
    """The configuration as it was when all algorithms had one reward, IQL's, and a million offline updates."""
    old = plain(settings("finetune", *overrides))
    old["task"]["reward"] = {"scale": 4.2496, "shift": 0.0}
    old["offline"]["steps"] = 1_000_000
    del old["algorithm"]["offline_steps"]
    return old


def test_runs_of_iql_have_the_rewards_they_had_and_others_are_told() -> None:
    hopper = ["task=hopper/random", "algorithm=iql"]
    old, now = before_rules(*hopper), plain(settings("finetune", *hopper))
    assert config_difference(old, now) == []
    assert pretraining_key(old) == pretraining_key(now)  # and start from the agents there are
    hopper[1] = "algorithm=awac"
    old, now = before_rules(*hopper), plain(settings("finetune", *hopper))
    assert sorted(config_difference(old, now)) == [
        "offline.steps: 1000000 -> 500000",
        "task.reward.scale: 4.2496 -> 1.0",
    ]
    now = plain(settings("finetune", *hopper, "task.reward.rule=iql", "offline.steps=1_000_000"))
    assert config_difference(old, now) == []  # goes on
