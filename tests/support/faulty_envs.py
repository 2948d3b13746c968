"""An environment that fails as real ones do, registered as faulty/Env-v0; which episodes fail depends on their seed."""

from __future__ import annotations

import multiprocessing
import sys
import time
from typing import Any

import gymnasium
import numpy as np


class Faulty(gymnasium.Env[Any, Any]):
    """Observation (steps taken, number of the episode's seed), reward = steps taken, ends after ``end`` steps.

    In a share of the episodes the ``at``-th step fails, in the way that ``how`` says. ``made`` counts instances.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    made = 0
    received: list[Any]

    def __init__(
        self, how: str = "raise", at: int = 3, share: float = 1.0, end: int = 6, render_mode: str | None = None
    ) -> None:
        type(self).made += 1
        if how == "second" and "NoWarn" in multiprocessing.current_process().name:  # a worker of TorchRL
            raise OSError("port 5005 is taken")
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(np.array([0.0, 0.0]), np.array([50.0, np.inf]), dtype=np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)
        self.how, self.at, self.share, self.end = how, at, share, end
        self.count, self.resets = 0, 0
        self.received = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count, self.draw = 0, self.np_random.random()
        self.resets += 1
        if self.how == "reset" and self.resets > self.at:
            raise ConnectionError("the simulator is gone")
        return np.array([0.0, self.draw]), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.received.append(action)
        observation, reward = np.array([self.count, self.draw]), float(self.count)
        terminated: Any = self.count >= self.end
        if self.count == self.at and self.draw < self.share:
            if self.how == "raise":
                raise ConnectionError("motor 3 does not answer")
            if self.how == "nonfinite":
                observation[1] = np.nan
            elif self.how == "outside":
                observation[0] = 1e6
            elif self.how == "reward":
                reward = np.inf
            elif self.how == "hang" and "NoWarn" in multiprocessing.current_process().name:  # a worker of TorchRL
                time.sleep(1000)
            elif self.how == "old":
                return observation, reward, terminated, {}
            elif self.how == "flag":
                terminated = 1.0
            elif self.how == "rewards":
                reward = np.array([reward, reward])  # type: ignore[assignment]
            elif self.how == "shape":
                observation = observation[:1]
            else:
                return self._fail_late(observation, reward, terminated)
        return observation, reward, terminated, False, {}

    def _fail_late(self, observation: Any, reward: float, terminated: Any) -> Any:
        """Fail in ways that the first look at an environment cannot see, and that are no plain exceptions."""
        if self.how == "exit":
            sys.exit(3)
        assert self.how != "assert"
        flag = {"noflag": None, "array": np.array([True, False])}.get(self.how, terminated)
        info: Any = {
            "noinfo": None,
            "successes": {"success": np.array([True, False])},
            "successtext": {"success": "no"},
            "successnan": {"success": np.nan},
        }.get(self.how, {})
        given: Any = "3" if self.how == "textreward" else reward
        return observation, given, flag, False, info


gymnasium.register("faulty/Env-v0", Faulty, max_episode_steps=100)
