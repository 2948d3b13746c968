"""Collection with workers: the learner is unaffected, nothing is mixed up, what dies or hangs is started anew.

Worker processes are spawned, as TorchRL does: each run takes seconds to start.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from o3f import collection, workers
from o3f.data import end_episode, make_buffer
from o3f.data.rows import allocate_rows
from o3f.envs import episode_seed
from o3f.errors import ConfigError
from o3f.run_checks import check_online
from o3f.workers import Watchdog, worker_seed
from tests.faults.test_config import assert_refused
from tests.recipe_runs import SCRATCH, TINY, part, rows, run, run_stopped, settings

TWO = [*TINY, *SCRATCH, "exploration=noise", "collector=multi_sync", "num_workers=2", "online.steps=120"]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[collection.Step]:
    """The steps of the runs, as they come."""
    steps: list[collection.Step] = []
    original = collection.Workers.__iter__

    def noted(self: collection.Workers) -> Iterator[collection.Step]:
        for step in original(self):
            steps.append(collection.Step(step.episode, step.transition.clone(), step.may_save))
            yield step

    monkeypatch.setattr(collection.Workers, "__iter__", noted)
    return steps


def at_step(count: int, act: Callable[[workers.WorkerSet], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something before the ``count``-th step of a worker set."""
    original, calls = workers.WorkerSet.next, iter(range(1, 10**6))

    def noted(self: workers.WorkerSet) -> Any:
        if next(calls) == count:
            act(self)
        return original(self)

    monkeypatch.setattr(workers.WorkerSet, "next", noted)


def test_a_run_counts_steps_and_updates_as_with_one_environment(place: Path, seen: list[collection.Step]) -> None:
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
    assert part(first, "state") == {"step": 120, "episode": 2, "saved": 120, "starts": 1}
    starts = {tuple(seen[index].transition["observation"][0].tolist()) for index in (0, 1, 100, 101)}
    assert len(starts) == 4  # episodes all differ


def test_a_stopped_run_goes_on_from_a_checkpoint_with_other_episodes(place: Path, seen: list[collection.Step]) -> None:
    """Kept: weights, rows, counters. Lost: the episodes under way."""
    run_stopped(collection.Workers, "_next", 26, *TWO, "online.checkpoint_every=20")
    folder = Path("runs/default/Reacher-v5-sac-noise/seed0")
    saved = part(folder, "state")
    assert saved == {"step": 40, "episode": 0, "saved": 40, "starts": 1}
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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["num_workers=2"], "num_workers=2 needs collector=multi_sync or ray"),
        (["collector=multi_sync", "num_lanes=2"], "collector=multi_sync needs num_lanes=1"),
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
    dog = Watchdog(0.2, lambda: bites.append(time.monotonic()))
    with dog:
        pass
    time.sleep(0.4)
    assert bites == []
    with dog:
        time.sleep(0.6)
    dog.close()
    assert len(bites) == 1
