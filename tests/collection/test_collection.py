"""Collection with workers: the learner is unaffected, nothing is mixed up, the newest weights act."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tensordict.nn import TensorDictModule

from o3f.collection import Step
from o3f.collection.local_workers import LocalWorkers
from o3f.collection.watchdog import Watchdog
from o3f.collection.worker_env import worker_seed
from o3f.collection.workers import Workers
from o3f.data import end_episode, make_buffer
from o3f.data.rows import allocate_rows
from o3f.envs import episode_seed
from o3f.errors import ActionError, ConfigError
from o3f.runs.counters import Counters
from o3f.training import build
from o3f.training.checks import check_online
from tests.faults.test_config import assert_refused
from tests.support.recipe_runs import TINY, part, rows, run, run_stopped, settings
from tests.support.workers import TWO, forked, seen

__all__ = ["forked", "seen"]

pytestmark = pytest.mark.usefixtures("forked")


def test_a_run_counts_steps_and_updates_as_with_one_environment(place: Path, seen: list[Step]) -> None:
    first = run("finetune", *TWO, "name=first")
    # Rows are those of the steps, in their order, each with its own next observation.
    stored = part(first, "buffer")["rows"]
    assert len(seen) == 120
    for key in ("observation", "action"):
        assert torch.equal(stored[key], torch.cat([step.transition[key] for step in seen])), key
    for worker in (0, 1):
        mine = seen[worker::2]
        for before, after in itertools.pairwise(mine):
            if not before.transition["next", "done"]:
                assert torch.equal(before.transition["next", "observation"], after.transition["observation"])
    assert [step.may_save for step in seen] == [False, True] * 60
    assert part(first, "learner")["updates"] == 120  # one a step, from the first one on
    # Reacher's episodes have 50 steps: two of each worker's ended, at their own steps, with their own returns.
    returns = rows(first, "rollout/return")
    assert [step for step, *_ in returns] == [99, 100]
    for worker, (_, _, value) in enumerate(returns):
        rewards = [float(step.transition["next", "reward"]) for step in seen[worker::2][:50]]
        assert value == pytest.approx(sum(rewards))
    assert part(first, "state") == asdict(Counters(step=120, episode=2, saved=120, starts=1))
    starts = {tuple(seen[index].transition["observation"][0].tolist()) for index in (0, 1, 100, 101)}
    assert len(starts) == 4  # episodes all differ


def test_a_stopped_run_goes_on_from_a_checkpoint_with_other_episodes(place: Path, seen: list[Step]) -> None:
    """Kept: weights, rows, counters. Lost: the episodes under way."""
    run_stopped(Workers, "_next", 26, *TWO, "online.checkpoint_every=20")
    folder = Path("runs/default/Reacher-v5-sac-noise/seed0")
    saved = part(folder, "state")
    assert saved == asdict(Counters(step=40, saved=40, starts=1))
    kept, first = part(folder, "buffer")["rows"], seen[0]
    seen.clear()
    run("finetune", *TWO, "online.checkpoint_every=20")
    state, stored = part(folder, "state"), part(folder, "buffer")["rows"]
    assert (state["step"], state["starts"]) == (120, 2)
    for key in ("observation", "action"):
        assert torch.equal(stored[key][:40], kept[key]), key
    assert len(stored["action"]) == 120
    assert part(folder, "learner")["updates"] == 120
    assert not torch.equal(seen[0].transition["observation"], first.transition["observation"])
    assert [step for step, *_ in rows(folder, "eval/return")] == [0, 30, 60, 90, 120]


def test_a_run_resumed_at_its_last_step_takes_no_other(place: Path, seen: list[Step]) -> None:
    folder = run("finetune", *TWO)
    (folder / "done.json").unlink()  # as a kill right after the last save leaves it
    seen.clear()
    run("finetune", *TWO)
    assert not seen
    assert part(folder, "learner")["updates"] == part(folder, "state")["step"] == 120
    assert (folder / "done.json").exists()


class Constant(torch.nn.Module):
    """Acts with a parameter, plus a buffer as schedules change them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.0))
        self.register_buffer("sigma", torch.tensor(0.25))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return (self.weight + self.sigma).expand(*observation.shape[:-1], 2)


def test_the_newest_weights_and_buffers_act_after_the_random_steps() -> None:
    config = settings("finetune", *TINY, "collector=multi_sync", "online.random_steps=6", "seed=3")
    OmegaConf.resolve(config)
    constant = Constant()
    threads = torch.get_num_threads()
    actor = TensorDictModule(constant, ["observation"], ["action"])
    with contextlib.closing(LocalWorkers(build.collection(config), actor, 1, 2)) as two:
        first = [two.next()["action"].clone() for _ in range(2)]  # four of the six steps are left
        assert len(torch.cat(first).flatten().unique()) == 8
        for step in range(1, 5):
            with torch.no_grad():
                constant.weight.add_(0.125)
            constant.sigma.mul_(0.5)
            assert (two.next()["action"] == 0.125 * step + 0.25 * 0.5**step).all()
        constant.weight.data.fill_(torch.nan)
        with pytest.raises(ActionError, match=r"^Action \[nan nan\] is not in \[-1, 1\]: it was not sent"):
            two.next()
    assert torch.get_num_threads() == threads


class Telling(torch.nn.Module):
    """Acts with 1 where its process multiplies matrices as the run was told to."""

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        told = float(torch.get_float32_matmul_precision() == "medium")
        return torch.full((*observation.shape[:-1], 2), told)


def test_workers_multiply_with_the_precision_of_the_run(place: Path) -> None:
    config = settings("finetune", *TINY, "collector=multi_sync")
    OmegaConf.resolve(config)
    multiprocessing.set_start_method("spawn", force=True)  # as in runs: a forked process has the setting anyway
    torch.set_float32_matmul_precision("medium")
    telling = TensorDictModule(Telling(), ["observation"], ["action"])
    with contextlib.closing(LocalWorkers(build.collection(config), telling, 1, 0)) as workers:
        assert (workers.next()["action"] == 1.0).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["num_workers=2"], "num_workers=2 needs collector=multi_sync or ray"),
        (["+collector.timeout=5"], "collector.timeout does nothing with collector=single"),
        (
            ["collector=multi_sync", "+collector.num_cpus=2"],
            "collector.num_cpus does nothing with collector=multi_sync",
        ),
        (["collector.kind=both"], "collector.kind: 'both' is not known"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides: list[str], message: str) -> None:
    config = settings("finetune", *TINY, *overrides)
    OmegaConf.resolve(config)
    with pytest.raises(ConfigError, match=message):
        check_online(config)


def test_f45_the_numbers_of_the_collectors_have_ranges() -> None:
    for kind, keys in {"multi_sync": ["num_workers", "collector.timeout"], "ray": ["collector.num_cpus"]}.items():
        config = settings("finetune", *TINY, f"collector={kind}")
        OmegaConf.resolve(config)
        for key in keys:
            assert_refused(config, key)


def test_no_two_episodes_have_the_same_seed() -> None:
    several = [worker_seed(0, worker, start) for worker in range(4) for start in range(1, 4)]
    assert len({episode_seed(seed, episode) for seed in [0, *several] for episode in range(100)}) == 1300


def test_a_row_is_marked_by_its_age() -> None:
    buffer = make_buffer(allocate_rows(5, 2, 1), online_capacity=4)
    for row in range(6):
        one = allocate_rows(1, 2, 1)
        one["observation"].fill_(row)
        buffer.extend(one)
    end_episode(buffer, 2)
    end_episode(buffer, 4)  # replaced already
    marked = buffer[5:]["observation"][buffer[5:]["next", "truncated"].flatten()]
    assert marked[:, 0].tolist() == [3.0]


def test_a_watchdog_bites_once_and_only_in_time() -> None:
    bites: list[float] = []
    dog = Watchdog(lambda: bites.append(time.monotonic()))
    with dog.within(0.2):
        pass
    time.sleep(0.5)
    assert bites == []
    with dog.within(0.2):
        time.sleep(0.6)
    dog.close()
    assert len(bites) == 1
