"""Several environments, each in a process of its own, started anew where processes die or hang."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.data import ReplayBuffer

from o3f.cli.signals import StopSignals
from o3f.collection.local_workers import LocalWorkers
from o3f.collection.ray_workers import RayWorkers
from o3f.collection.steps import Collection, Episode, Settings, Step, has_failed
from o3f.collection.worker_env import WorkersLost
from o3f.envs import check_interface, episode_seed, make_raw_env
from o3f.errors import EnvironmentFailure
from o3f.runs.counters import Counters


class Workers(Collection):
    """Several environments, each in a process of its own; arguments as :func:`make_collection`.

    Every start of the processes plays other episodes: those of ``(seed, worker, number of the start)``. Episodes that
    were under way when they end are lost but for the steps that were stored.

    Raises:
        EnvironmentFailure: while iterating, where processes died or hung ``online.max_env_failures`` times without
            each worker having ended an episode by itself in between, or an environment failed as often in a row.
        ActionError: while iterating, as the environment raises it.
    """

    def __init__(
        self, settings: Settings, actor: TensorDictModuleBase, counters: Counters, buffer: ReplayBuffer
    ) -> None:
        with contextlib.closing(make_raw_env(settings.env)) as probe:
            check_interface(probe, episode_seed(settings.seed, 0))
        self._settings, self._actor, self._counters, self._buffer = settings, actor, counters, buffer
        self._workers: LocalWorkers | RayWorkers | None = None
        self._losses = 0  # in a row
        self._begin()

    def _begin(self) -> None:
        self._counters.starts += 1
        self._episodes = [Episode() for _ in range(self._settings.num_workers)]
        self._sound: set[int] = set()

    def __iter__(self) -> Iterator[Step]:
        total, workers = self._settings.steps, self._settings.num_workers
        while self._counters.step < total:
            for worker, transition in enumerate(self._next().unbind(0)):
                self._count(worker, transition)
                last, failed = worker == workers - 1, has_failed(transition)
                yield Step(self._episodes[worker], transition, may_save=last, failed=failed)
                if bool(transition["next", "done"]):
                    self._episodes[worker] = Episode()
                if self._counters.step >= total:
                    return

    def _next(self) -> TensorDictBase:
        while True:
            try:
                if self._workers is None:
                    start = LocalWorkers if self._settings.kind == "multi_sync" else RayWorkers
                    self._workers = start(self._settings, self._actor, self._counters.starts, self._counters.step)
                return self._workers.next()
            except WorkersLost as error:
                self.close()
                StopSignals.check_all(self._counters.step, self._counters.saved)  # the signal was for all processes
                self._begin_anew(error)

    def _count(self, worker: int, transition: TensorDictBase) -> None:
        if has_failed(transition):
            self._counters.failures += 1
        elif bool(transition["next", "done"]):
            self._sound.add(worker)
            if len(self._sound) == self._settings.num_workers:
                self._losses = 0

    def _begin_anew(self, error: WorkersLost) -> None:
        self._losses += 1
        limit = self._settings.max_failures
        what = f"The processes of the environments are lost after step {self._counters.step}: {error}"
        if self._losses >= limit:
            raise EnvironmentFailure(
                f"{what}\nThat was time {self._losses} in a row. Repair what ends them (memory, the environment; what"
                " they printed is above) and start the same command again, or allow more with online.max_env_failures."
            ) from error
        warnings.warn(
            f"{what}\nThey are started anew, with other episodes. Time {self._losses} in a row; {limit} end the run.",
            RuntimeWarning,
            stacklevel=2,
        )
        for episode in self._episodes:
            episode.cut(self._buffer)
        self._begin()

    def close(self) -> None:
        """End the processes."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None
