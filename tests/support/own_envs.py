"""Environments that are sound in a way of their own, registered under own/*; hand-computable numbers."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import FrameStackObservation


class Kept(gymnasium.Env[Any, Any]):
    """Observation (steps taken, a number of the episode's seed), one array that it keeps and changes in place.

    It changes the array of an action, too, after noting it in ``received``.
    """

    def __init__(self, low: float = -0.7, high: float = 0.1, dtype: str = "float32", reach: float = np.inf) -> None:
        self.observation_space = Box(-reach, reach, (2,), np.float64)
        self.action_space = Box(low, high, (1,), np.dtype(dtype).type)
        self.observation = np.zeros(2)
        self.received: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.observation[:] = 0.0, self.np_random.random()
        return self.observation, {}

    def step(self, action: Any) -> Any:
        self.received.append(np.copy(action))
        action *= 0
        self.observation[0] += 1.0
        return self.observation, 1.0, False, False, {}


class Whole(Kept):
    """Actions of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(0, 10, (2,), np.int64)


class Sized(Kept):
    """As many observations and actions as are asked for."""

    def __init__(self, observations: int = 2, actions: int = 1) -> None:
        super().__init__()
        self.observation_space = Box(-1.0, 1.0, (observations,), np.float64)
        self.action_space = Box(-1.0, 1.0, (actions,), np.float32)
        self.observation = np.zeros(observations)


class Once(Kept):
    """One at a time in a process."""

    there: ClassVar[int] = 0

    def __init__(self) -> None:
        if Once.there:
            raise ConnectionError("port 5005 is in use")
        super().__init__(-1.0, 1.0)
        Once.there += 1

    def close(self) -> None:
        Once.there = 0


class Refusing(Kept):
    """Cannot be made: ``how`` says in which way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        if how == "exit":
            raise SystemExit(2)
        assert how != "assert"
        if how == "value":
            raise ValueError("the robot needs an address")
        if how == "spaceless":
            self.action_space = None  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        raise SystemExit(4)


class Moving(Kept):
    """Goes into another folder whenever it can, as modules with a simulator's files do."""

    def __init__(self) -> None:
        super().__init__()
        os.chdir("/")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        os.chdir("/")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        os.chdir("/")
        return super().step(action)


def stacked(**arguments: Any) -> gymnasium.Env[Any, Any]:
    """Three frames at a time, copied because Gymnasium's wrapper keeps the arrays that it is given."""
    copied = gymnasium.wrappers.TransformObservation(Kept(**arguments), np.copy, None)
    return FrameStackObservation(copied, 3)


def flattened() -> gymnasium.Env[Any, Any]:
    """The same as one vector."""
    return gymnasium.wrappers.FlattenObservation(stacked())


def bounded(low: float = -2.0, high: float = 2.0) -> gymnasium.Env[Any, Any]:
    """An environment of unbounded actions with bounds stated, as the message about them says."""
    env = Kept(low=-np.inf, high=np.inf)
    return gymnasium.wrappers.TransformAction(env, lambda action: action, Box(low, high, env.action_space.shape))


for name, make in [
    ("Kept", "Kept"),
    ("Once", "Once"),
    ("Sized", "Sized"),
    ("Whole", "Whole"),
    ("Refusing", "Refusing"),
    ("Moving", "Moving"),
    ("Bounded", "bounded"),
]:
    gymnasium.register(f"own/{name}-v0", f"tests.support.own_envs:{make}", max_episode_steps=5)
for name in ("stacked", "flattened"):
    gymnasium.register(f"own/{name.title()}-v0", f"tests.support.own_envs:{name}", max_episode_steps=5)
gymnasium.register("own/Limitless-v0", "tests.support.own_envs:Kept")
