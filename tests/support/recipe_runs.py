"""Small real runs of the recipes: Reacher-v5 (episodes of 50 steps), random data, networks of width 16."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from o3f.runs.checkpoint import load_component
from o3f.runs.identity import plain, run_path
from o3f.runs.logger import read_csv
from recipes import collect, finetune, pretrain

ROOT = Path(__file__).parents[2]
RECIPES = {"collect": collect.main, "pretrain": pretrain.main, "finetune": finetune.main}
REACHER = ["task=custom", "task.env.id=Reacher-v5", "task.dataset.id=me/reacher-v0"]
TINY = [*REACHER, "debug=toy", "task.reward={scale: 0.5, shift: -1.0}"]
SHORT = [*TINY, "online.steps=120"]  # checkpoints at 50, 100 and 120
SCRATCH = ["dataset=none", "algorithm=sac", "exploration=policy"]
PARTS = ("learner", "buffer", "state", "rng", "best")


@functools.cache
def composed(recipe: str, overrides: tuple[str, ...]) -> DictConfig:
    """The configuration of a recipe, made once: that takes a tenth of a second."""
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose(recipe, overrides=list(overrides))


def settings(recipe: str, *overrides: str) -> DictConfig:
    """The configuration of a recipe, a new one at each call."""
    return copy.deepcopy(composed(recipe, overrides))


def run(recipe: str, *overrides: str) -> Path:
    """Run a recipe in this process; returns the run folder."""
    config = settings(recipe, *overrides)
    RECIPES[recipe](config)
    return run_path(plain(config)) if recipe != "collect" else Path()


def start(recipe: str, *overrides: str, driver: str | None = None) -> subprocess.Popen[str]:
    """Start a recipe as a user does; with ``driver``, python code that runs before it in its process."""
    script = str(ROOT / "recipes" / f"{recipe}.py")
    program = [script] if driver is None else ["-c", driver, script]
    return subprocess.Popen(
        [sys.executable, *program, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def command(recipe: str, *overrides: str) -> int:
    """Run a recipe's command line in this process; returns the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{recipe}.py", *overrides])
        patch.setenv("HYDRA_FULL_ERROR", "0")  # which the command sets: restored after the test
        with pytest.raises(SystemExit) as stop:
            RECIPES[recipe]()
    assert isinstance(stop.value.code, int)
    return stop.value.code


class Ended(Exception):
    """The end of a run in this process."""


def stop_at(patch: pytest.MonkeyPatch, owner: Any, name: str, count: int) -> None:
    """Make the ``count``-th call of a function the end of the run."""
    original, calls = getattr(owner, name), iter(range(1, count))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) is None:
            raise Ended
        return original(*args, **kwargs)

    patch.setattr(owner, name, counted)


def run_stopped(owner: Any, name: str, count: int, *overrides: str, recipe: str = "finetune") -> None:
    """Run until the ``count``-th call of a function."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, owner, name, count)
        with pytest.raises(Ended):
            run(recipe, *overrides)


def make_dataset() -> None:
    """Collect six episodes into $MINARI_DATASETS_PATH."""
    run("collect", *REACHER, "steps=300")


def rows(folder: Path, tag: str | None = None) -> list[tuple[int, str, float]]:
    """The rows of ``metrics.csv``, all or of one tag."""
    return [row for row in read_csv(folder / "metrics.csv") if tag in (None, row[1])]


def tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values that TensorBoard shows, by tag."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def part(folder: Path, name: str) -> dict[str, Any]:
    """A part of the newest checkpoint."""
    return load_component(folder / "checkpoints", name)


def same(left: Any, right: Any) -> bool:
    """Whether two nested structures are equal, tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def assert_same_run(left: Path, right: Path) -> None:
    """Both runs ended with the same parameters, optimisers, rows, random state, counters and figures."""
    names = [name for name in PARTS if name == "learner" or "offline" not in left.parent.name]
    for name in names:
        assert same(part(left, name), part(right, name)), f"{name} differs"
    for name in ("metrics.csv", "done.json"):
        assert (left / name).read_bytes() == (right / name).read_bytes(), f"{name} differs"


def assert_each_step_once(folder: Path) -> None:
    """TensorBoard shows exactly the rows of ``metrics.csv``, and of the wall-clock figures each step once."""
    prefix = "offline/" if folder.parent.name.endswith("-offline") else ""
    shown = tensorboard(folder)
    assert all(tag.startswith("offline/") == bool(prefix) for tag in shown)
    shown = {tag.removeprefix(prefix): values for tag, values in shown.items()}
    for tag in {tag for _, tag, _ in rows(folder)}:
        expected = [(step, torch.tensor(value).item()) for step, _, value in rows(folder, tag)]
        steps = [step for step, _ in expected]
        assert steps == sorted(set(steps)), tag
        assert shown.pop(tag) == expected, tag
    assert shown
    assert all(tag.startswith("time/") for tag in shown)
    for tag, values in shown.items():
        steps = [step for step, _ in values]
        assert steps == sorted(set(steps)), tag
