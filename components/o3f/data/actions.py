"""Actions of an environment and of the agent: the agent's are in [-1, 1]."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt


def check_action_space(space: gymnasium.Space[Any]) -> gymnasium.spaces.Box:
    """Return the action space as the bounded vector it must be.

    Raises:
        ValueError: if actions are discrete, unbounded, or not a vector.
    """
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"The action space is {space}. Supported: a Box of shape [A]; discrete actions are not.")
    if not (space.is_bounded() and (space.high > space.low).all()):
        raise ValueError(
            f"The action space {space} is not bounded. Every dimension needs finite bounds, low < high:"
            " wrap the environment in gymnasium.wrappers.RescaleAction or ClipAction."
        )
    return space


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
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return (np.asarray(actions, dtype=np.float64) - (low + high) / 2) / (action_scale * (high - low) / 2)
