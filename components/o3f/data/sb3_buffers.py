"""What a Stable-Baselines3 replay buffer holds, as the arrays of a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from o3f.errors import ConfigError

_NEEDED = ("observations", "actions", "rewards", "dones", "pos", "full", "buffer_size", "action_space")


def sb3_arrays(buffer: Any) -> dict[str, npt.NDArray[Any]]:
    r"""Return the rows of a replay buffer of Stable-Baselines3, to be written with ``numpy.savez(FILE, **arrays)``.

    Rows are those that the buffer would sample, oldest first, environment after environment. ``terminals`` are what
    Stable-Baselines3 does not bootstrap, :math:`d (1 - u)` with its ``dones`` d and ``timeouts`` u. Where it does not
    handle time limits (``handle_timeout_termination=False``, and always with ``optimize_memory_usage=True``), they are
    among the terminals, because nothing tells them apart: so it trained on them.

    Stable-Baselines3 keeps actions in [-1, 1] whatever the environment's bounds; files have the environment's units, so
    they are rescaled: :math:`l + \frac{a + 1}{2} (h - l)`. A buffer with ``HerReplayBuffer``'s goals gives those that
    were pursued, none of those it would make up.

    Args:
        buffer: a ``ReplayBuffer`` or ``DictReplayBuffer`` with continuous actions, as ``model.replay_buffer`` is after
            ``model.load_replay_buffer(FILE)``. That unpickles FILE: do so with your own only.

    Returns:
        ``observations``, ``next_observations`` ``[N, O]`` (``observations/KEY`` where they have parts), ``actions``
        ``[N, A]`` float64, ``rewards``, ``terminals``, ``timeouts`` ``[N]``.

    Raises:
        ConfigError: if it is no such buffer, is empty, or its actions have no bounds.
    """
    if missing := [name for name in _NEEDED if not hasattr(buffer, name)]:
        raise ConfigError(
            f"{type(buffer).__name__} is no replay buffer of Stable-Baselines3: no {', no '.join(missing)}."
        )
    space = buffer.action_space
    if not hasattr(space, "low") or not np.isfinite([space.low, space.high]).all():
        raise ConfigError(f"The buffer's actions are {space}, expected a Box with bounds.")
    shared = bool(getattr(buffer, "optimize_memory_usage", False))
    order = _order(buffer.buffer_size, buffer.pos, buffer.full, shared)
    if not len(order):
        raise ConfigError("The replay buffer is empty: load it with model.load_replay_buffer(FILE).")
    following = (order + 1) % buffer.buffer_size
    dones = _rows(buffer.dones, order).astype(bool)
    handled = getattr(buffer, "handle_timeout_termination", False)
    timeouts = _rows(buffer.timeouts, order).astype(bool) if handled else np.zeros_like(dones)
    scaled = _rows(buffer.actions, order).astype(np.float64)
    arrays = {
        "actions": space.low + 0.5 * (scaled + 1) * (space.high.astype(np.float64) - space.low),
        "rewards": _rows(buffer.rewards, order),
        "terminals": dones & ~timeouts,
        "timeouts": dones & timeouts,
    }
    arrays |= _parts("observations", buffer.observations, order)
    after = buffer.observations if shared else buffer.next_observations
    return arrays | _parts("next_observations", after, following if shared else order)


def _order(capacity: int, cursor: int, full: bool, shared: bool) -> npt.NDArray[np.int_]:
    """Filled places, oldest first; where observations are shared the oldest one's has been written over."""
    return np.arange(cursor + shared, cursor + capacity) % capacity if full else np.arange(cursor)


def _rows(values: npt.NDArray[Any], order: npt.NDArray[np.int_]) -> npt.NDArray[Any]:
    """From ``[capacity, environments, ...]`` to rows, environment after environment."""
    ordered = np.swapaxes(values[order], 0, 1)
    return ordered.reshape(-1, *ordered.shape[2:])


def _parts(name: str, values: Any, order: npt.NDArray[np.int_]) -> dict[str, npt.NDArray[Any]]:
    if isinstance(values, dict):
        return {f"{name}/{key}": _rows(part, order) for key, part in values.items()}
    return {name: _rows(values, order)}
