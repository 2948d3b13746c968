"""Observations as the agent sees them, and what is no observation at all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from o3f.data.observations import observation_layout
from o3f.envs.wrappers import Env, Reset, Step, Wrapper

SPACE_TOLERANCE = 1e-3
"""How far an observation may lie outside the bounds that its space states, without a word."""

SPACE_EXCESS = 1e3
"""How far it may lie outside at all: stated bounds are often guesses, but a thousand times as much is another thing."""

_TOLD: set[str] = set()
"""Environments of which this process has said that they leave their space."""


class FlatObservation(Wrapper):
    """Observations as one float32 vector, laid out as :func:`o3f.data.observation_layout` does.

    An observation more than :data:`SPACE_TOLERANCE` outside its space is a warning, once for each environment.

    Raises:
        RuntimeError: in ``step`` and ``reset``, if an observation or a reward is not finite, or an observation lies
            more than :data:`SPACE_EXCESS` (both relative to bounds greater than 1) outside its space.
    """

    def __init__(self, env: Env, keys: Sequence[str] | None = None) -> None:
        super().__init__(env)
        self.layout = observation_layout(env.observation_space, keys)
        space = self.layout.space
        self.observation_space = space
        self._low, self._high = widened(space, SPACE_TOLERANCE)
        self._bounded = bool(np.isfinite(self._low).any() or np.isfinite(self._high).any())

    def step(self, action: Any) -> Step:
        """Step and flatten."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._flat(observation, float(reward), action), reward, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Reset and flatten."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._flat(observation, 0.0, None), info

    def _flat(self, observation: Any, reward: float, action: Any) -> npt.NDArray[np.float32]:
        flat = self.layout.flatten(observation)
        if not (math.isfinite(reward) and np.isfinite(flat).all()):
            raise RuntimeError(
                f"{self.env} gave a value that is not finite after action {action}: observation"
                f" {np.flatnonzero(~np.isfinite(flat)).tolist()} (flat indices), reward {reward}. The physics"
                " diverged or the environment has a bug; the transition was not passed on."
            )
        if self._bounded and not ((self._low <= flat) & (flat <= self._high)).all():
            self._outside(flat, action)
        return flat

    def _outside(self, flat: npt.NDArray[np.float32], action: Any) -> None:
        """Stop at a gross excess, and say once that the bounds are not those that hold."""
        low, high = widened(self.layout.space, SPACE_EXCESS)
        gross = (flat < low) | (flat > high)
        where = np.flatnonzero(gross if gross.any() else (flat < self._low) | (flat > self._high))
        space = self.layout.space
        what = (
            f"{self.env} gave an observation outside its space after action {action}: {flat[where].tolist()} at"
            f" {where.tolist()} (flat indices), stated are {space.low[where].tolist()} to {space.high[where].tolist()}."
        )
        if gross.any():
            raise RuntimeError(f"{what} That is no matter of bounds. Correct the environment, or the bounds it states.")
        name = str(self.env)
        if name not in _TOLD:
            _TOLD.add(name)
            warnings.warn(
                f"{what} Observations are taken as they are; nothing here relies on their bounds. This is said once.",
                RuntimeWarning,
                stacklevel=4,
            )


def widened(space: gymnasium.spaces.Box, share: float) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Return the bounds of a space moved outwards by ``share`` of themselves, or of 1 where they are less.

    Examples:
        >>> low, high = widened(gymnasium.spaces.Box(-0.5, 4.0, (1,)), 0.5)
        >>> low.tolist(), high.tolist()
        ([-1.0], [6.0])
    """
    with np.errstate(over="ignore"):  # of bounds such as numpy.finfo(numpy.float32).max
        reach = share * np.maximum(1.0, np.abs(np.stack([space.low, space.high])))
        return space.low - reach[0], space.high + reach[1]
