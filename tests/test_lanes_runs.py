"""Runs in lanes (``num_lanes``) are the runs of their seeds, in the folders of their seeds."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from o3f.algorithms import IQLLearner
from o3f.algorithms.lanes import Lanes
from o3f.cli.signals import StopSignals
from o3f.errors import ConfigError
from o3f.training.lanes import Run, Update, complete
from tests import recipe_runs as runs
from tests.recipe_runs import TINY, part, rows, run, same
from tests.test_lanes import batches, make, tensors

LONG = [*TINY, "online.steps=120", "online.log_every=10"]  # checkpoints at 50, 100 and 120


pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture(scope="module")
def alone(shared_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The runs of seeds 0 and 1, one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
        root = tmp_path_factory.mktemp("alone")
        return [run("finetune", *LONG, f"runs={root}", f"seed={seed}") for seed in (0, 1)]


def run_lanes(*overrides: str) -> list[Path]:
    first = run("finetune", *LONG, "num_lanes=2", *overrides)
    return [first.with_name(f"seed{seed}") for seed in (0, 1)]


def assert_like(found: Path, expected: Path, tolerance: float = 1e-4) -> None:
    """Equal figures, rows and parameters but for rounding; exactly equal draws and counters."""
    assert [row[:2] for row in rows(found)] == [row[:2] for row in rows(expected)]
    torch.testing.assert_close(
        torch.tensor([row[2] for row in rows(found)]),
        torch.tensor([row[2] for row in rows(expected)]),
        rtol=tolerance,
        atol=tolerance,
    )
    pretraining = "offline" in found.parent.name
    for name in ("learner",) if pretraining else ("learner", "buffer"):
        left, right = (dict(tensors(part(folder, name))) for folder in (found, expected))
        assert left.keys() == right.keys()
        for key, value in right.items():
            torch.testing.assert_close(left[key], value, rtol=tolerance, atol=tolerance)
    assert same(part(found, "rng"), part(expected, "rng"))
    assert pretraining or same(part(found, "state"), part(expected, "state"))
    runs.assert_each_step_once(found)


def test_lanes_are_the_runs_of_their_seeds(alone: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    folders = run_lanes()
    told = capsys.readouterr().out
    assert told.count("Fine-tuned: ") == 2
    assert all(f"seed {seed}, step 120: return" in told for seed in (0, 1))
    for found, expected in zip(folders, alone, strict=True):
        assert_like(found, expected)
        ours, theirs = (part(folder, "buffer")["rows"] for folder in (found, expected))
        assert torch.equal(ours["observation"][0], theirs["observation"][0])  # nothing but the seed decides it
        assert found.parts[-3:] == expected.parts[-3:]
        (ours_before,), (theirs_before,) = (
            folder.parents[2].glob(f"pretrained-*/*/{folder.name}") for folder in (found, expected)
        )
        assert_like(ours_before, theirs_before)
    first, second = (part(folder, "buffer")["rows"]["observation"] for folder in folders)
    assert not torch.allclose(first, second)


def run_stopped(owner: Any, name: str, count: int, *overrides: str) -> None:
    """Run until the ``count``-th call of a function."""
    original, calls = getattr(owner, name), iter(range(1, count))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) is None:
            raise MemoryError("stopped")
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        with pytest.raises(MemoryError, match="stopped"):
            run("finetune", *LONG, *overrides)


@pytest.mark.parametrize("count", [13, 20 + 35, 20 + 85])  # while pre-training, and on both sides of a checkpoint
def test_lanes_that_were_stopped_go_on(count: int, alone: list[Path]) -> None:
    run_stopped(Lanes, "update", count, "num_lanes=2")
    for found, expected in zip(run_lanes(), alone, strict=True):
        assert_like(found, expected)


def test_one_run_alone_goes_on_in_lanes_and_is_waited_for(alone: list[Path]) -> None:
    run_stopped(IQLLearner, "update", 20 + 75, "seed=1")
    for found, expected in zip(run_lanes(), alone, strict=True):
        assert_like(found, expected)


def test_a_finished_lane_is_left_as_it_is(alone: list[Path]) -> None:
    finished = run("finetune", *LONG, "seed=1")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*.c*")}
    folders = run_lanes()
    assert folders[1] == finished
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*.c*")} == before
    assert_like(folders[0], alone[0])


def test_a_lane_that_fails_does_not_take_the_others_along(alone: list[Path]) -> None:
    run("finetune", *LONG, "seed=0", "algorithm.expectile=0.9")
    with (
        pytest.warns(UserWarning, match="lane 0 has failed, the others go on: .*seed0"),
        pytest.raises(ConfigError, match=r"expectile: 0\.9 -> 0\.7"),
    ):
        run_lanes()
    assert_like(Path("runs", *alone[1].parts[-3:]), alone[1])


def test_a_signal_ends_all_lanes_after_their_step_and_they_go_on() -> None:
    command = [*TINY, "num_lanes=2", "offline={steps: 600, checkpoint_every: 600, evaluate_every: 600}"]
    process = runs.start("pretrain", *command)
    while not list(Path("runs").rglob("seed1/metrics.csv")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "stopped by SIGTERM" in output
    folders = [path.parent for path in sorted(Path("runs").rglob("metrics.csv"))]
    assert [folder.name for folder in folders] == ["seed0", "seed1"]
    assert all(0 < part(folder, "learner")["updates"] < 600 for folder in folders)
    run("pretrain", *command)
    assert [part(folder, "learner")["updates"] for folder in folders] == [600, 600]


def test_a_signal_reaches_blocks_that_open_later_and_leaves_nothing_behind() -> None:
    before = signal.getsignal(signal.SIGTERM)
    first, second = StopSignals(), StopSignals()
    first.__enter__()
    signal.raise_signal(signal.SIGTERM)
    second.__enter__()
    assert first.received == second.received == signal.SIGTERM
    first.__exit__(None, None, None)
    assert signal.getsignal(signal.SIGTERM) != before
    second.__exit__(None, None, None)
    assert signal.getsignal(signal.SIGTERM) == before
    with StopSignals() as third:
        assert third.received is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["num_lanes=0"], "num_lanes must be a whole number"),
        (["num_lanes=2", "seed=-1"], "seed must be a whole number"),
        (["num_lanes=2", "online.distil_weight=0.1"], "need num_lanes=1"),
        (["num_lanes=2", "online.target_candidates=3"], "need num_lanes=1"),
        (["num_lanes=2", "algorithm=sac", "exploration=policy"], "algorithm=iql or bc, found SACLearner"),
    ],
)
def test_what_lanes_cannot_do_ends_the_command(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run("finetune", *LONG, *overrides)


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002


def scripted(lane: int, learner: IQLLearner, sizes: list[int], seen: list[Any]) -> Run[int]:
    """A run that asks for updates of given sizes, and notes what it draws and is told."""
    torch.manual_seed(lane)
    np.random.seed(lane)  # noqa: NPY002
    random.seed(lane)
    for step, size in enumerate(sizes):
        metrics = yield Update(learner, batches(lane, step, size), report=step % 2 == 0)
        seen.append([draws(), {name: round(float(value), 4) for name, value in metrics.items()}])
    return lane


def test_runs_of_different_steps_and_lengths_get_what_they_get_alone() -> None:
    sizes = [[1] * 6, [2, 2, 1], [2] * 3]
    alone: list[list[Any]] = [[], [], []]
    joint: list[list[Any]] = [[], [], []]
    singles, learners = ([make(seed) for seed in range(3)] for _ in range(2))
    for lane in range(3):
        assert complete([scripted(lane, singles[lane], sizes[lane], alone[lane])]) == [lane]
    assert complete([scripted(lane, learners[lane], sizes[lane], joint[lane]) for lane in range(3)]) == [0, 1, 2]
    assert joint == alone
    assert [learner.updates for learner in learners] == [6, 5, 6]
    assert [bool(metrics) for _, metrics in joint[0]] == [True, False] * 3


def test_a_run_that_is_behind_comes_first_and_then_both_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    learners = [make(0), make(1)]
    for step in range(3):
        learners[0].update(batches(0, step))
    groups: list[int] = []
    update = Lanes.update

    def noted(lanes: Lanes, *args: Any, **kwargs: Any) -> Any:
        groups.append(len(lanes.learners))
        return update(lanes, *args, **kwargs)

    monkeypatch.setattr(Lanes, "update", noted)
    complete([scripted(0, learners[0], [2, 2], []), scripted(1, learners[1], [1] * 6 + [2, 2], [])])
    assert groups == [1] * 6 + [2, 2]


def test_when_updating_fails_all_runs_are_closed() -> None:
    closed: list[int] = []

    def closing(lane: int, learner: IQLLearner) -> Run[int]:
        try:
            return (yield from scripted(lane, learner, [1], []))
        finally:
            closed.append(lane)

    with pytest.raises(ConfigError, match="one configuration") as held:
        complete([closing(0, make(0)), closing(1, make(1, expectile=0.9))])
    assert held.traceback
    assert closed == [1, 0]
