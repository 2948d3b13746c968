"""Small environments with hand-computable numbers, registered under toy/*."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Counter(gymnasium.Env[Any, Any]):
    """Observation (steps taken, action received), reward = steps taken; terminates after ``end`` steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        low: float = -1.0,
        high: float = 1.0,
        end: int = 1000,
        nan_at: int = -1,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(low, high, (1,), np.float64)
        self.end, self.nan_at, self.render_mode = end, nan_at, render_mode
        self.count = 0
        self.start = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        self.options = options
        return np.array([0.0, self.np_random.random()]), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        value = np.nan if self.count == self.nan_at else float(action[0])
        return np.array([self.count, value]), float(self.count), self.count >= self.end, False, {}

    def render(self) -> Any:
        return np.full((16, 16, 3), 10 * self.count, dtype=np.uint8)


class Walk(gymnasium.Env[Any, Any]):
    """A point on a line; the action moves it. Goal-conditioned Dict observations, no end of its own."""

    def __init__(self, goal: float = 1.0) -> None:
        box = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = gymnasium.spaces.Dict(observation=box, achieved_goal=box, desired_goal=box)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.goal = goal
        self.position = 0.0

    def _observe(self) -> dict[str, Any]:
        return {
            "observation": np.array([7.0, 8.0]),
            "achieved_goal": np.array([self.position, 0.0]),
            "desired_goal": np.array([self.goal, 0.0]),
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.position = 0.0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.position += float(action[0])
        return self._observe(), -5.0, False, False, {}


class Pixels(Counter):
    """Image observations, which are not supported."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)


for name, toy, steps in [
    ("Counter", Counter, 1000),
    ("Walk", Walk, 20),
    ("Pixels", Pixels, 10),
    ("Endless", Counter, None),
]:
    gymnasium.register(f"toy/{name}-v0", toy, max_episode_steps=steps)
