"""Episodes of a behaviour, one after the other, in spite of an environment that fails now and then."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator

from o3f.collection.behaviours.rollout import Behaviour, Trajectory, rollout
from o3f.envs.wrappers import Env
from o3f.errors import ActionError, EnvironmentFailure

MAX_FAILURES = 3
"""So many episodes in a row that fail end a recording, as ``online.max_env_failures`` does while fine-tuning."""

Make = Callable[[], tuple[Env, Behaviour]]


def record(make: Make, *, seed: int, steps: int) -> Iterator[Trajectory]:
    """Record episodes until there are ``steps`` steps; the last one is cut there.

    An episode in which the environment raises, or gives a value that is not finite, is left out with a warning, and
    the next one is played in an environment made anew. Episode ``k`` depends on ``(seed, k)`` alone.

    Args:
        make: makes the environment, from :func:`o3f.envs.make_raw_env`, and what acts in it.
        seed: of the whole collection.
        steps: how many in all.

    Raises:
        EnvironmentFailure: at the :data:`MAX_FAILURES`-th failure in a row.
        ActionError: if the behaviour gives an action that is not finite.
    """
    episode, failures, left = 0, 0, steps
    with contextlib.ExitStack() as opened:
        env, behaviour = make()
        opened.callback(env.close)
        while left > 0:
            try:
                if failures:
                    env, behaviour = make()
                    opened.callback(env.close)
                trajectory = rollout(env, behaviour, seed=seed, episode=episode, max_steps=left)
            except ActionError:
                raise
            except Exception as error:
                failures += 1
                _tell(error, episode, failures)
                with contextlib.suppress(Exception):
                    opened.close()
            else:
                failures = 0
                left -= len(trajectory)
                yield trajectory
            episode += 1


def _tell(error: Exception, episode: int, failures: int) -> None:
    origin = traceback.extract_tb(error.__traceback__)[-1]
    what = (
        f"Episode {episode} is left out: {error} ({type(error).__name__} in {origin.name}, {origin.filename}:"
        f"{origin.lineno})."
    )
    if failures >= MAX_FAILURES:
        raise EnvironmentFailure(
            f"{what} That was failure {failures} in a row. Repair the environment, and collect again."
        ) from error
    warnings.warn(
        f"{what} The next one is played in an environment made anew. Failure {failures} in a row;"
        f" {MAX_FAILURES} end the recording.",
        RuntimeWarning,
        stacklevel=3,
    )
