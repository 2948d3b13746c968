"""A first look at what an environment returns, before a run relies on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from o3f.data.actions import as_made, check_action_space, to_env_actions
from o3f.envs.wrappers import Env, staying


def check_interface(env: Env, seed: int) -> None:
    """Reset, take one step in the middle of the action bounds, and compare with Gymnasium's interface.

    What an environment raises is no matter of this check: it would do so in the run, too.

    Args:
        env: as ``make_raw_env`` gives it; what ``gymnasium.make`` gave is looked at, with the wrappers that its user
            registered and without those of this package. It is left in the middle of an episode.
        seed: of the reset.

    Raises:
        ValueError: listing what is not as it must be, or if the actions are discrete or unbounded.
    """
    made = as_made(env)
    space = check_action_space(made.action_space)
    try:
        start: Any = env.reset(seed=seed)
        with staying():  # below the wrapper that does so
            step: Any = _step(made, to_env_actions(np.zeros(space.shape), space), seed)
    except (Exception, SystemExit):
        return
    faults = _faults_of_reset(start, made) + _faults_of_step(step, made)
    if faults:
        name = made.spec.id if made.spec is not None else str(made)
        raise ValueError(f"{name} does not keep to Gymnasium's interface:\n- " + "\n- ".join(faults))


def _step(env: Env, action: Any, seed: int) -> Any:
    """Step; where a wrapper stumbles over what lies below it, as Gymnasium's own do, return what that gives."""
    try:
        return env.step(action)
    except (TypeError, ValueError):
        raw = env.unwrapped
        raw.reset(seed=seed)
        result: Any = raw.step(raw.action_space.sample())
        if isinstance(result, tuple) and len(result) == 5:
            raise
        return result


def _faults_of_reset(result: Any, env: Env) -> list[str]:
    if not isinstance(result, tuple) or len(result) != 2:
        return [f"reset returned {_what(result)}, expected an observation and an info (Gymnasium since 0.26)"]
    return _faults_of_observation(result[0], env, "reset")


def _faults_of_step(result: Any, env: Env) -> list[str]:
    if not isinstance(result, tuple) or len(result) != 5:
        return [
            f"step returned {_what(result)}, expected observation, reward, terminated, truncated and info"
            " (Gymnasium since 0.26)"
        ]
    observation, reward, *flags, info = result
    faults = _faults_of_observation(observation, env, "step")
    if np.shape(reward) != () or isinstance(reward, str | None):
        faults.append(f"the reward is {reward!r}, expected one number")
    for name, flag in zip(("terminated", "truncated"), flags, strict=True):
        if not isinstance(flag, bool | np.bool_):
            faults.append(f"{name} is {flag!r} ({type(flag).__name__}), expected True or False")
    if not isinstance(info, dict):
        faults.append(f"info is {info!r} ({type(info).__name__}), expected a dict")
    return faults


def _faults_of_observation(observation: Any, env: Env, method: str) -> list[str]:
    expected = env.observation_space.shape
    if expected is None or np.shape(observation) == expected:
        return []
    return [f"{method} returned an observation of shape {np.shape(observation)}, its space has {expected}"]


def _what(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
