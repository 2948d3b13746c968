"""Whether the arrays of a file fit an environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from o3f.data.actions import as_made, check_action_space
from o3f.data.observations import observation_layout
from o3f.errors import ConfigError

#: Sizes of observations (in the file, in the environment) that meet often.
_KNOWN = {
    (
        60,
        59,
    ): "D4RL's kitchen observations are positions and goals, FrankaKitchen-v1's positions and velocities: one"
    " cannot be made of the other. Take Minari's: task=kitchen/partial dataset.download=true.",
    (29, 31): "D4RL's AntMaze observations have no goal: task=d4rl/antmaze-umaze-diverse takes it out.",
    (29, 27): "D4RL's AntMaze observations begin with the position: task=d4rl/antmaze-umaze-diverse adds it.",
}


def check_fits(
    path: Path, sizes: Any, action_dim: int, env: gymnasium.Env[Any, Any] | None, keys: Sequence[str] | None
) -> tuple[gymnasium.Space[Any], gymnasium.spaces.Box]:
    """Compare the vectors of a file with an environment's.

    Args:
        path: the file.
        sizes: of its observations, by key where they have parts.
        action_dim: size of its actions.
        env: the environment, or None to take the file as it is.
        keys: parts of the environment's observation that a flat one consists of.

    Returns:
        The space of the file's observations, without bounds, and that of its actions.

    Raises:
        ConfigError: if a size is another one.
    """
    space = _space(sizes)
    if env is None:
        return space, gymnasium.spaces.Box(-1.0, 1.0, (action_dim,))
    if not isinstance(env, gymnasium.Env):
        raise TypeError(f"env must be an environment or None, got {env!r}: gymnasium.make(ID) makes one.")
    actions = check_action_space(as_made(env).action_space)
    here = observation_layout(env.observation_space, keys)
    flat = observation_layout(space, keys if isinstance(space, gymnasium.spaces.Dict) else None)
    name = env.unwrapped.spec.id if env.unwrapped.spec is not None else str(env.unwrapped)
    differences = []
    if actions.shape != (action_dim,):
        differences.append(f"actions: {action_dim} numbers in the file, {actions.shape[0]} here")
    if flat.size != here.size:
        differences.append(f"observations: {flat.size} numbers in the file, {here.size} here")
    if differences:
        hint = _KNOWN.get((flat.size, here.size), "Take the environment that the data are of.")
        raise ConfigError(f"{path} was not made in {name}:\n- " + "\n- ".join(differences) + f"\n{hint}")
    return space, actions


def _space(sizes: Any) -> gymnasium.Space[Any]:
    if isinstance(sizes, dict):
        return gymnasium.spaces.Dict({key: _space(part) for key, part in sizes.items()})
    return gymnasium.spaces.Box(-np.inf, np.inf, (sizes,), np.float32)
