"""Runs with environments in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from o3f.collection import Step
from o3f.collection.local_workers import LocalWorkers
from o3f.collection.workers import Workers
from tests.support.recipe_runs import SCRATCH, TINY

TWO = [*TINY, *SCRATCH, "exploration=noise", "collector=multi_sync", "num_workers=2", "online.steps=120"]


@pytest.fixture
def forked() -> Iterator[None]:
    """Fork the workers, which spares their imports; afterwards none may be left."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)
    assert not multiprocessing.active_children()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """The steps of the runs, as they come."""
    steps: list[Step] = []
    original = Workers.__iter__

    def noted(self: Workers) -> Iterator[Step]:
        for step in original(self):
            steps.append(Step(step.episode, step.transition.clone(), step.may_save))
            yield step

    monkeypatch.setattr(Workers, "__iter__", noted)
    return steps


def at_step(monkeypatch: pytest.MonkeyPatch, acts: dict[int, Callable[[Any], None]]) -> None:
    """Do something with the workers before they are asked for the n-th time."""
    original, calls = LocalWorkers.next, iter(range(1, 10**6))

    def noted(self: LocalWorkers) -> Any:
        acts.get(next(calls), lambda _: None)(self)
        return original(self)

    monkeypatch.setattr(LocalWorkers, "next", noted)
