"""Environments that fail: the episode ends there, the environment is made anew, and several failures end the run."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from o3f.envs.wrappers import Env, Reset, Step, Wrapper
from o3f.errors import ActionError, EnvironmentFailure
from o3f.runs.counters import Counters


class Restarting(Wrapper):
    """Outlives failures of an environment: an exception, or a value that is not finite or outside its space.

    A step that fails returns the last observation, the reward NaN and ``truncated``; NaN is the mark by which the
    one who collects knows that there is no transition to store. Before the next reset the environment is made
    anew. A reset that fails is tried again with the same seed, ``limit`` times in all. Actions that the environment
    must not receive are the policy's failure and not caught.

    Args:
        make: makes the environment.
        limit: failures in a row, without an episode that ended by itself between them, that end the run.
        counters: counts episodes cut, ``failures`` and ``failures_in_a_row``; a run that is resumed gives the saved
            ones.

    Raises:
        EnvironmentFailure: in ``step`` and ``reset``, at the ``limit``-th failure in a row.
    """

    def __init__(self, make: Callable[[], Env], limit: int, counters: Counters | None = None) -> None:
        super().__init__(make())
        self.make = make
        self.limit = limit
        self.counters = counters or Counters()
        self._observation: Any = None
        self._steps = 0
        self._broken = False

    def step(self, action: Any) -> Step:
        """Step, or end the episode where the environment fails."""
        try:
            result = self.env.step(action)
        except ActionError:
            raise
        except Exception as error:
            self._broken = True
            self.counters.failures += 1
            self.counters.failures_in_a_row += 1
            where = f"in step {self._steps + 1} of its episode, after action {np.array2string(np.asarray(action))}"
            what_now = "This step is not stored and its episode counts as truncated; the next one is played"
            self._tell(error, where, self.counters.failures_in_a_row, what_now)
            return self._observation, float("nan"), False, True, {}
        self._observation = result[0]
        self._steps += 1
        if result[2] or result[3]:
            self.counters.failures_in_a_row = 0
        return result

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Begin an episode, in a new environment after a failure."""
        attempts = 0  # Not counted with the episodes: a run that resumes here resets again.
        while True:
            try:
                if self._broken:
                    self._make_anew()
                result = self.env.reset(seed=seed, options=options)
            except Exception as error:
                self._broken, attempts = True, attempts + 1
                self._tell(error, f"in reset(seed={seed})", attempts, "It is tried again")
            else:
                self._observation, self._steps = result[0], 0
                return result

    def _make_anew(self) -> None:
        with contextlib.suppress(Exception):
            self.env.close()
        self.env = self.make()
        self._broken = False

    def _tell(self, error: Exception, where: str, in_a_row: int, what_now: str) -> None:
        origin = traceback.extract_tb(error.__traceback__)[-1]
        what = (
            f"The environment failed {where} ({type(error).__name__} in {origin.name}, {origin.filename}:"
            f"{origin.lineno}): {error}"
        )
        if in_a_row >= self.limit:
            raise EnvironmentFailure(
                f"{what}\nThat was failure {in_a_row} in a row. Repair the environment and start the same command"
                " again, or allow more with online.max_env_failures."
            ) from error
        warnings.warn(
            f"{what}\n{what_now}, in an environment made anew. Failure {in_a_row} in a row; {self.limit} end the run.",
            RuntimeWarning,
            stacklevel=3,
        )
