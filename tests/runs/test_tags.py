"""Every metric a run can write is documented (those of each learner: test_learner_contract.py)."""

from __future__ import annotations

from pathlib import Path

from o3f.runs.logger import read_csv
from o3f.runs.tags import TAGS, table
from tests.support.recipe_runs import SHORT, run


def test_the_figures_of_a_run_are_documented(place: Path) -> None:
    folder = run(
        "finetune", *SHORT, "evaluation.q_bias_episodes=1", "algorithm.discount=0.9", "task.score={min: -50, max: 0}"
    )
    written = {tag for name in ("metrics", "timing") for _, tag, _ in read_csv(folder / f"{name}.csv")}
    assert written - TAGS.keys() == set()
    assert {"eval/score", "rollout/length", "bias/ratio", "train/critic/largest", "time/steps_per_second"} <= written
    pretrained = {tag for file in place.glob("runs/pretrained-*/*/*/*.csv") for _, tag, _ in read_csv(file)}
    assert "time/updates_per_second" in pretrained
    assert pretrained - TAGS.keys() == set()


def test_the_list_as_a_table() -> None:
    lines = table().splitlines()
    assert len(lines) == len(TAGS) + 2
    assert "| `rollout/length` | its length | agent steps | finetune |" in lines
    assert {line.count("|") for line in lines} == {5}
