"""A first look at what an environment returns, before a run relies on it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from o3f.envs.wrappers import Env


def check_interface(env: Env, seed: int) -> None:
    """Reset, take one step in the middle of the action bounds, and compare with Gymnasium's interface.

    What an environment raises is no matter of this check: it would do so in the run, too.

    Args:
        env: as ``make_raw_env`` gives it; what lies below its wrappers is looked at, which hide some faults. It is
            left in the middle of an episode.
        seed: of the reset.

    Raises:
        ValueError: listing what is not as it must be.
    """
    raw, space = env.unwrapped, env.unwrapped.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    try:
        start: Any = env.reset(seed=seed)
        step: Any = raw.step(((space.low + space.high) / 2).astype(space.dtype))
    except Exception:
        return
    faults = _faults_of_reset(start, raw) + _faults_of_step(step, raw)
    if faults:
        name = raw.spec.id if raw.spec is not None else str(raw)
        raise ValueError(f"{name} does not keep to Gymnasium's interface:\n- " + "\n- ".join(faults))


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
    observation, reward, *flags, _ = result
    faults = _faults_of_observation(observation, env, "step")
    if np.shape(reward) != () or isinstance(reward, str | None):
        faults.append(f"the reward is {reward!r}, expected one number")
    for name, flag in zip(("terminated", "truncated"), flags, strict=True):
        if not isinstance(flag, bool | np.bool_):
            faults.append(f"{name} is {flag!r} ({type(flag).__name__}), expected True or False")
    return faults


def _faults_of_observation(observation: Any, env: Env, method: str) -> list[str]:
    expected = env.observation_space.shape
    if expected is None or np.shape(observation) == expected:
        return []
    return [f"{method} returned an observation of shape {np.shape(observation)}, its space has {expected}"]


def _what(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else type(result).__name__
