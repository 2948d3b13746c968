"""A pre-training is done once, whatever the runs that start from it are called, and what is trained is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from o3f.algorithms import IQLLearner
from o3f.training import offline
from tests.support.recipe_runs import TINY, part, run, run_stopped, same

SHORT = [*TINY, "online.steps=1", "exploration=policy"]


def test_f86_the_same_pretraining_of_another_name_serves(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("pretrain", *TINY, "name=first")
    monkeypatch.setattr(offline, "pretrain", None)
    capsys.readouterr()
    run("finetune", *SHORT, "name=second", "evaluation.episodes=2", "task.sigma=0.3")
    assert f"starts from {first}, pre-trained before\n" in capsys.readouterr().out
    assert sorted(path.name for path in Path("runs").iterdir()) == ["first", "second"]


def test_f86_one_that_has_begun_is_gone_on_with(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run("pretrain", *TINY, "runs=whole")
    watched = ["name=first", "evaluation.seed=7", "offline.log_every=10"]
    run_stopped(IQLLearner, "update", 15, *TINY, *watched, recipe="pretrain")
    capsys.readouterr()
    run("finetune", *SHORT, "name=second")
    (first,) = Path("runs/first").glob("*/seed0")
    assert f"starts from {first}, which has begun with the same settings" in capsys.readouterr().out
    assert sorted(path.name for path in Path("runs").iterdir()) == ["first", "second"]
    assert same(part(first, "learner"), part(whole, "learner"))


def test_f86_what_is_trained_and_why_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = [*SHORT, "offline.steps=1"]
    run("finetune", *short, "name=first")
    (folder,) = Path("runs").glob("pretrained-*/*/seed0")
    told = "pre-trains first: 1 updates of iql on me/reacher-v0, into"
    assert f"{told} {folder}, for there is none like it in runs\n" in capsys.readouterr().out
    run("finetune", *short, "name=second", "algorithm.expectile=0.8")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(told))
    assert line.endswith(f", for {folder} differs in algorithm.expectile: 0.7 -> 0.8")
