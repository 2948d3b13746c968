"""What a collection yields: a step of an environment, and the episode that it belongs to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf, isnan
from types import TracebackType
from typing import NamedTuple

from tensordict import TensorDictBase
from torchrl.data import ReplayBuffer

from o3f.data import end_episode, store_returns
from o3f.envs import EnvConfig


@dataclass(frozen=True)
class Settings:
    """What a collection needs to know of a run.

    Attributes:
        env: the environment.
        seed: of the run; episodes are seeded with it and their number.
        steps: agent steps of the whole run.
        random_steps: the first of them have uniform actions.
        max_failures: of the environment, in a row, that end the run.
        device: the learner's.
        kind: ``"single"``, ``"multi_sync"`` or ``"ray"``.
        num_workers: environments.
        timeout: seconds to wait for their answers.
        num_cpus: of each Ray actor.
        address: of the Ray cluster; None is ``$RAY_ADDRESS``, or one started here.
    """

    env: EnvConfig
    seed: int
    steps: int
    random_steps: int
    max_failures: int
    device: str
    kind: str = "single"
    num_workers: int = 1
    timeout: float = inf
    num_cpus: float = 1.0
    address: str | None = None


@dataclass
class Episode:
    """The episode that a worker is playing.

    Attributes:
        total: the raw rewards so far.
        rows: of each of its steps, the buffer's count of rows written when that one was.
    """

    total: float = 0.0
    rows: list[int] = field(default_factory=list)

    def add(self, reward: float, row: int) -> None:
        """Count a step that was stored."""
        self.total += reward
        self.rows.append(row)

    def metrics(self) -> dict[str, float]:
        """What is logged of it at its end."""
        return {"rollout/return": self.total, "rollout/length": len(self.rows)}

    def cut(self, buffer: ReplayBuffer) -> None:
        """Mark its newest row as the end of a truncated episode."""
        if self.rows:
            end_episode(buffer, buffer.write_count - self.rows[-1])
            self.close(buffer)

    def close(self, buffer: ReplayBuffer) -> None:
        """Store its rows' returns, where they carry them: they are known now that it has ended."""
        store_returns(buffer, [buffer.write_count - row for row in self.rows])


class Step(NamedTuple):
    """One step of one environment.

    Attributes:
        episode: that it belongs to, without it.
        transition: ``[1]``.
        may_save: whether a run can be resumed from here.
        failed: whether the environment did, so that there is nothing to store.
    """

    episode: Episode
    transition: TensorDictBase
    may_save: bool
    failed: bool = False


def has_failed(transition: TensorDictBase) -> bool:
    """Whether the environment failed in a step ``[1]``: its mark is the reward NaN (:class:`~o3f.envs.Restarting`)."""
    return isnan(float(transition["next", "reward"]))


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
