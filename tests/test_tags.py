"""Every figure a run can write is documented, and no other one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from o3f.algorithms import make_learner
from o3f.runs.logger import read_csv
from o3f.runs.tags import TAGS, table
from tests.support.recipe_runs import SHORT, run

LAGRANGE = {"lagrange": "weighted_gap"}
LEARNERS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("awac", "bc", "cql", "iql", "lapo", "sac")),
    ("cql", LAGRANGE),
    ("awac", {"weighting": "exp"}),
]
#: Written by a recipe or the guard, and not by the learners.
ELSEWHERE = {"train/critic/largest", "train/left_out"}


def train_tags(name: str, options: dict[str, Any]) -> set[str]:
    """The tags of an algorithm's update."""
    learner = make_learner(name, 3, 2, {"hidden_sizes": [8, 8], **options})
    rows: Any = {
        "observation": torch.randn(16, 3),
        "action": torch.rand(16, 2),
        "next": {
            "observation": torch.randn(16, 3),
            "reward": torch.randn(16, 1),
            "terminated": torch.zeros(16, 1, dtype=torch.bool),
            "done": torch.zeros(16, 1, dtype=torch.bool),
        },
    }
    batch = TensorDict(rows, [16])
    learner.prepare(batch)
    return {f"train/{tag}" for tag in learner.update([batch])}


@pytest.mark.parametrize(("name", "options"), LEARNERS)
def test_the_figures_of_each_algorithm_are_documented_as_its_own(name: str, options: dict[str, Any]) -> None:
    found = train_tags(name, options)
    assert found - TAGS.keys() == set()
    said = {tag for tag in TAGS if tag.startswith("train/") and _has(TAGS[tag].runs, name, options)} - ELSEWHERE
    assert found == said


def _has(runs: str, name: str, options: dict[str, Any]) -> bool:
    named = runs.split(", ")
    return runs == "all" or name in named or (bool(options) and any(each.startswith(f"{name} with ") for each in named))


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
