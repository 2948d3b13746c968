"""Online transitions, one after the other, from one environment or from several in processes of their own.

The learner does not see the difference: it is given one environment step at a time. With several workers they have
taken these steps at the same time, with the weights before the first one's updates.
"""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan
from types import TracebackType
from typing import NamedTuple

from omegaconf import DictConfig
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.checkpoint import GlobalRNGState
from torchrl.collectors import Collector
from torchrl.data import ReplayBuffer
from torchrl.envs import InitTracker, TransformedEnv

from o3f import build
from o3f.data import end_episode
from o3f.envs import check_interface, episode_seed, make_env, make_raw_env
from o3f.errors import EnvironmentFailure
from o3f.ray_workers import RayWorkers
from o3f.signals import StopSignals
from o3f.workers import LocalWorkers, WorkersLost

State = dict[str, int]


@dataclass
class Episode:
    """The episode that a worker is playing.

    Attributes:
        total: the raw rewards so far.
        length: steps so far.
        row: the buffer's count of rows written when its newest one was.
    """

    total: float = 0.0
    length: int = 0
    row: int = 0

    def add(self, reward: float, row: int) -> None:
        """Count a step that was stored."""
        self.total, self.length, self.row = self.total + reward, self.length + 1, row

    def cut(self, buffer: ReplayBuffer) -> None:
        """Mark its newest row as the end of a truncated episode."""
        if self.length:
            end_episode(buffer, buffer.write_count - self.row)


class Step(NamedTuple):
    """One step of one environment.

    Attributes:
        episode: that it belongs to, without it.
        transition: ``[1]``; its reward is NaN where the environment failed, and there is nothing to store.
        may_save: whether a run can be resumed from here.
    """

    episode: Episode
    transition: TensorDictBase
    may_save: bool


class Collection(ABC):
    """Steps of environments, for use in a ``with`` block that ends what was started."""

    @abstractmethod
    def __iter__(self) -> Iterator[Step]:
        """Yield a step after the other, as many as ``online.steps`` asks for."""

    @abstractmethod
    def close(self) -> None:
        """End processes and close environments."""

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_collection(config: DictConfig, actor: TensorDictModuleBase, state: State, buffer: ReplayBuffer) -> Collection:
    """Start what ``collector`` asks for, acting with the newest policy and critics, from the next episode on.

    Args:
        config: a fine-tuning configuration.
        actor: that collects.
        state: counters of the run: ``step``, ``episode`` and ``saved`` are read, failures are counted.
        buffer: where the steps are stored; rows before a failure are marked there as ends of episodes.
    """
    streams = GlobalRNGState().state_dict()
    kind = Single if config.collector.kind == "single" else Workers
    collection = kind(config, actor, state, buffer)
    GlobalRNGState().load_state_dict(streams)  # building draws numbers, and must not in a run that goes on
    return collection


class Single(Collection):
    """One environment in this process; arguments as :func:`make_collection`."""

    def __init__(self, config: DictConfig, actor: TensorDictModuleBase, state: State, buffer: ReplayBuffer) -> None:
        env = make_env(
            build.env_config(config),
            seed=config.seed,
            first_episode=state["episode"],
            max_failures=config.online.max_env_failures,
            counters=state,
        )
        if "is_init" in actor.in_keys:
            env = TransformedEnv(env, InitTracker())
        self._collector = Collector(
            env,
            actor,
            frames_per_batch=1,
            total_frames=config.online.steps - state["step"],
            init_random_frames=max(0, config.online.random_steps - state["step"]),
            policy_device=config.device,
            env_device="cpu",
            storing_device="cpu",
            track_traj_ids=False,
            auto_register_policy_transforms=False,
        )

    def __iter__(self) -> Iterator[Step]:
        episode = Episode()
        for transition in self._collector:
            ended = bool(transition["next", "done"])
            yield Step(episode, transition, may_save=ended)  # the environment's state is in no checkpoint
            episode = Episode() if ended else episode

    def close(self) -> None:
        """Close the environment."""
        self._collector.shutdown()


class Workers(Collection):
    """Several environments, each in a process of its own; arguments as :func:`make_collection`.

    Every start of the processes plays other episodes: those of ``(seed, worker, number of the start)``. Episodes that
    were under way when they end are lost but for the steps that were stored.

    Raises:
        EnvironmentFailure: while iterating, where processes died or hung ``online.max_env_failures`` times without
            each worker having ended an episode by itself in between, or an environment failed as often in a row.
        ActionError: while iterating, as the environment raises it.
    """

    def __init__(self, config: DictConfig, actor: TensorDictModuleBase, state: State, buffer: ReplayBuffer) -> None:
        with contextlib.closing(make_raw_env(build.env_config(config))) as probe:
            check_interface(probe, episode_seed(config.seed, 0))
        self._config, self._actor, self._state, self._buffer = config, actor, state, buffer
        self._workers: LocalWorkers | RayWorkers | None = None
        self._losses = 0  # in a row
        self._begin()

    def _begin(self) -> None:
        self._state["starts"] = self._state.get("starts", 0) + 1
        self._episodes = [Episode() for _ in range(self._config.num_workers)]
        self._sound: set[int] = set()

    def __iter__(self) -> Iterator[Step]:
        total, workers = self._config.online.steps, self._config.num_workers
        while True:
            for worker, transition in enumerate(self._next().unbind(0)):
                self._count(worker, transition)
                yield Step(self._episodes[worker], transition, may_save=worker == workers - 1)
                if bool(transition["next", "done"]):
                    self._episodes[worker] = Episode()
                if self._state["step"] >= total:
                    return

    def _next(self) -> TensorDictBase:
        while True:
            try:
                if self._workers is None:
                    start = LocalWorkers if self._config.collector.kind == "multi_sync" else RayWorkers
                    self._workers = start(self._config, self._actor, self._state["starts"], self._state["step"])
                return self._workers.next()
            except WorkersLost as error:
                self.close()
                StopSignals.check_all(self._state["step"], self._state["saved"])  # the signal was for all processes
                self._begin_anew(error)

    def _count(self, worker: int, transition: TensorDictBase) -> None:
        if isnan(float(transition["next", "reward"])):
            self._state["failures"] = self._state.get("failures", 0) + 1
        elif bool(transition["next", "done"]):
            self._sound.add(worker)
            if len(self._sound) == self._config.num_workers:
                self._losses = 0

    def _begin_anew(self, error: WorkersLost) -> None:
        self._losses += 1
        limit = self._config.online.max_env_failures
        what = f"The processes of the environments are lost after step {self._state['step']}: {error}"
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
