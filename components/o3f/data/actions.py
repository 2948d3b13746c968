"""Actions of an environment and of the agent: the agent's are in [-1, 1]."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from o3f.errors import number


def as_made(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Return the environment as ``gymnasium.make`` gave it, in its own units: without the wrappers of this package.

    What its user wrapped it in is part of it: a stack of frames, other bounds of its actions.
    """
    while isinstance(env, gymnasium.Wrapper) and type(env).__module__.startswith("o3f."):
        env = env.env
    return env


def check_action_space(space: gymnasium.Space[Any]) -> gymnasium.spaces.Box:
    """Return the action space as the bounded vector it must be.

    Raises:
        ValueError: if actions are discrete, whole numbers, unbounded, or not a vector.
    """
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1 or not space.shape[0]:
        raise ValueError(
            f"The action space is {space}. Supported: a Box of shape [A], A > 0; discrete actions are not."
        )
    if not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"The action space is {space}, of whole numbers. Supported: a Box of shape [A] of floats; discrete actions"
            " are not, since what is executed could not be what is learned from. If the environment takes fractions,"
            " let it state a Box of np.float32."
        )
    if not (space.is_bounded() and (space.high > space.low).all()):
        raise ValueError(
            f"The action space {space} is not bounded. Every dimension needs finite bounds, low < high: state them in"
            " the environment, or register it wrapped in gymnasium.wrappers.TransformAction(env, lambda action: action,"
            " gymnasium.spaces.Box(LOW, HIGH, SHAPE)) (docs/limits.md)."
        )
    return space


def check_action_scale(scale: float) -> None:
    """Refuse a share of the action bounds that is none.

    Raises:
        ValueError: if it is not in (0, 1].
    """
    number("action_scale", scale, "(0, 1]")


def to_env_actions(
    actions: npt.ArrayLike, space: gymnasium.spaces.Box, action_scale: float = 1.0
) -> npt.NDArray[np.floating]:
    r"""Rescale agent actions to an environment's, :math:`c + \text{action\_scale} \cdot h \cdot a`.

    What :func:`to_agent_actions` does the other way round.

    The result has the type of the space and lies in it, to the last bit: centre and half width are rounded, so that
    :math:`c + h` can exceed the upper bound, in float32 for a third of all bounds.

    Args:
        actions: ``[*B, A]`` in [-1, 1].
        space: bounds of the environment's actions.
        action_scale: share of the action range that the agent uses.

    Examples:
        >>> uneven = gymnasium.spaces.Box(-0.7, 0.1, (1,), np.float32)
        >>> uneven.contains(to_env_actions(np.ones(1, np.float32), uneven))
        True
    """
    given = _vectors(actions, space, action_scale)
    centre, half = space.high / 2 + space.low / 2, space.high / 2 - space.low / 2  # the sum of both may overflow
    values = (centre + action_scale * half * given).astype(space.dtype)
    return np.asarray(np.minimum(np.maximum(values, space.low), space.high))  # a fraction of np.clip's time


def to_agent_actions(
    actions: npt.ArrayLike, space: gymnasium.spaces.Box, action_scale: float = 1.0
) -> npt.NDArray[np.float64]:
    r"""Rescale environment actions to agent actions, :math:`(a - c) / (\text{action\_scale} \cdot h)`.

    :math:`c` is the centre of the bounds and :math:`h` half their distance, so the agent's 1.0 lies
    ``action_scale`` of the way from the centre to the bound. Nothing is clipped.

    Args:
        actions: ``[*B, A]`` in the units of ``space``.
        space: bounds of the environment's actions.
        action_scale: share of the action range that the agent uses.

    Examples:
        >>> pusher = gymnasium.spaces.Box(-2.0, 2.0, (2,))
        >>> to_agent_actions([2.0, -1.0], pusher).tolist()
        [1.0, -0.5]
        >>> to_agent_actions([0.5, 0.0], pusher, action_scale=0.25).tolist()
        [1.0, 0.0]
    """
    given = _vectors(actions, space, action_scale).astype(np.float64)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return np.asarray((given - (low + high) / 2) / (action_scale * (high - low) / 2))


def _vectors(actions: npt.ArrayLike, space: gymnasium.spaces.Box, action_scale: Any) -> npt.NDArray[Any]:
    """The actions as an array, of the space's width: another one would be widened to it.

    Raises:
        ValueError: if they are no vectors ``[*B, A]`` of numbers, or the scale is none.
    """
    given = np.asarray(actions)
    if given.shape[-1:] != space.shape or given.dtype.kind not in "fiub":
        raise ValueError(f"The actions are {given.dtype} {list(given.shape)}, expected numbers [*B, {space.shape[0]}].")
    if not isinstance(action_scale, float) or not 0.0 < action_scale <= 1.0:
        check_action_scale(action_scale)
    return given
