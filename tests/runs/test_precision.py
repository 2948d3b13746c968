"""``precision`` is torch's, it is part of what a run is, and runs from before the key had ``highest``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from o3f.algorithms import IQLLearner
from o3f.runs.identity import LATER_KEYS, SETTLED_KEYS, leaves, plain, run_path
from recipes import finetune
from tests.support.recipe_runs import TINY, command, run, run_stopped, settings

pytestmark = pytest.mark.usefixtures("place")

SCRATCH = [*TINY, "dataset=none", "pretrained=none"]
SHORT = [*TINY, "offline.steps=1", "offline.batch_size=4", "online.steps=1", "exploration=policy"]


@pytest.mark.parametrize("recipe", ["pretrain", "finetune"])
def test_a_run_multiplies_with_it_and_records_it(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, seen = IQLLearner.update, set()

    def update(self: IQLLearner, *args: Any, **kwargs: Any) -> Any:
        seen.add(torch.get_float32_matmul_precision())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(IQLLearner, "update", update)
    arguments = TINY if recipe == "pretrain" else SCRATCH
    for precision in ("medium", "high", "highest"):  # the one before leaves nothing behind
        folder = run(recipe, *arguments, f"precision={precision}", f"name={precision}")
        assert seen == {precision}
        assert json.loads((folder / "env.json").read_text())["precision"] == precision
        seen.clear()


def test_another_precision_is_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    run("pretrain", *TINY)
    assert command("pretrain", *TINY, "precision=medium") == 2
    assert "precision: highest -> medium" in capsys.readouterr().err
    run("pretrain", *TINY, "precision=medium", "name=medium")
    assert command("pretrain", *TINY, "name=medium") == 2
    assert "precision: medium -> highest" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["fast", "null", "1"])
def test_an_unknown_one_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("pretrain", *TINY, f"precision={value}") == 2
    told = capsys.readouterr().err
    assert "precision: " in told
    assert "is not known. There are: high, highest, medium." in told
    assert not Path("runs").exists()


def forget(folder: Path) -> None:
    """Make a run one from before the key, in both of its files."""
    old = OmegaConf.load(folder / "config.yaml")
    del old["precision"]
    OmegaConf.save(old, folder / "config.yaml")
    facts = json.loads((folder / "env.json").read_text())
    del facts["precision"]
    (folder / "env.json").write_text(json.dumps(facts))


def test_a_run_from_before_the_key_goes_on_with_highest_alone(capsys: pytest.CaptureFixture[str]) -> None:
    run_stopped(IQLLearner, "update", 55, *SCRATCH)
    folder = run_path(plain(settings("finetune", *SCRATCH)))
    forget(folder)
    assert command("finetune", *SCRATCH, "precision=medium") == 2
    assert "precision: highest -> medium" in capsys.readouterr().err
    assert run("finetune", *SCRATCH) == folder  # and no warning, which would be an error
    assert (folder / "done.json").exists()


def test_a_pretraining_from_before_the_key_serves_highest_alone() -> None:
    def pretrainings() -> list[Path]:
        return sorted(Path("runs").glob("pretrained-*/*/*"))

    old = settings("finetune", *SHORT)
    finetune.main(OmegaConf.masked_copy(old, [str(key) for key in old if key != "precision"]))
    before = pretrainings()
    assert len(before) == 1
    run("finetune", *SHORT, "name=newer")
    assert pretrainings() == before
    run("finetune", *SHORT, "name=medium", "precision=medium")
    assert len(pretrainings()) == 2


def test_a_pretrain_recipe_s_run_from_before_the_key_serves_highest_alone() -> None:
    forget(run("pretrain", *SHORT[:-2]))
    run("finetune", *SHORT)
    assert not list(Path("runs").glob("pretrained-*"))
    run("finetune", *SHORT[:-1], "exploration=noise", "precision=medium")
    assert len(list(Path("runs").glob("pretrained-*"))) == 1


def test_later_keys_are_keys_of_a_run_with_these_defaults() -> None:
    known = leaves(plain(settings("finetune")))
    there = {key: known[key] for key in LATER_KEYS if key in known}  # the others are gone, or of another algorithm
    assert there.keys() >= {"precision", "task.centre", "algorithm.normalise"}
    settled = {key: known[key] for key in SETTLED_KEYS & there.keys()}
    assert set(settled.values()) == {"auto"}  # which is no other value than the default
    assert there == {key: LATER_KEYS[key] for key in there} | settled
