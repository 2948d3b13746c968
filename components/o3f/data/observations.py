"""Flat observation vectors, in one order for datasets and environments alike."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

Path = tuple[str, ...]


@dataclass(frozen=True)
class ObservationLayout:
    """The order in which the leaves of an observation are concatenated into one float32 vector.

    Build it with :func:`observation_layout`, once for a dataset and once for the environment: equal layouts
    mean that the same number stands at the same place on both sides.

    Attributes:
        paths: the keys that lead to each leaf, in order; ``((),)`` for an observation that is an array.
        boxes: the space of each leaf.
    """

    paths: tuple[Path, ...]
    boxes: tuple[gymnasium.spaces.Box, ...]

    @property
    def size(self) -> int:
        """Length of the flat vector, the ``O`` of ``[*B, O]``."""
        return sum(_size(box) for box in self.boxes)

    @property
    def space(self) -> gymnasium.spaces.Box:
        """The flat vector's space: float32, with the leaves' bounds."""
        low = np.concatenate([box.low.astype(np.float32).ravel() for box in self.boxes])
        high = np.concatenate([box.high.astype(np.float32).ravel() for box in self.boxes])
        return gymnasium.spaces.Box(low, high, dtype=np.float32)

    def flatten(self, observation: Any) -> npt.NDArray[np.float32]:
        """Concatenate the leaves of one observation, or of a whole batch of them.

        Args:
            observation: an array, or nested mappings of arrays; each leaf is ``[*B, *leaf.shape]``.

        Returns:
            The flat observations, ``[*B, O]``, float32; a new array.

        Raises:
            ValueError: if a leaf is missing or its shape does not end with the shape its space states.
        """
        parts = []
        for path, box in zip(self.paths, self.boxes, strict=True):
            leaf = np.asarray(_follow(observation, path))
            batch = leaf.shape[: leaf.ndim - len(box.shape)]
            if leaf.shape != batch + box.shape:
                raise ValueError(
                    f"Observation {_name(path)!r} has shape {leaf.shape}, expected [*B] + {list(box.shape)}"
                    " as its space states. Check that data and space come from the same environment version."
                )
            parts.append(leaf.reshape(*batch, _size(box)).astype(np.float32))
        if len({part.shape[:-1] for part in parts}) > 1:
            lengths = {_name(path): part.shape[:-1] for path, part in zip(self.paths, parts, strict=True)}
            raise ValueError(f"The parts of the observation differ in length: {lengths}.")
        return np.concatenate(parts, axis=-1)


def observation_layout(space: gymnasium.Space[Any], keys: Sequence[str] | None = None) -> ObservationLayout:
    """Lay out the leaves of an observation space in one flat vector.

    Without ``keys`` the keys of every ``Dict`` are taken in alphabetical order, which is the order
    ``gymnasium.spaces.Dict`` gives to a plain ``dict``. It is sorted here too because an ordered ``Dict``
    loses its own order when Minari writes it to disk.

    Args:
        space: a ``Box``, or a (nested) ``Dict`` of them.
        keys: the keys of the ``Dict`` to take, in this order; ``"a/b"`` reaches into a nested ``Dict``, and
            the key of a nested ``Dict`` takes all its leaves.

    Raises:
        KeyError: if a key is not in the space.
        ValueError: if the space has a part that is not a vector of numbers (images, text, discrete values),
            or if ``keys`` are given for a space that has none.

    Examples:
        >>> box = gymnasium.spaces.Box(-1.0, 1.0, (2,))
        >>> layout = observation_layout(gymnasium.spaces.Dict(position=box, goal=box))
        >>> layout.paths
        (('goal',), ('position',))
        >>> layout.flatten({"position": [0.1, 0.2], "goal": [0.8, 0.9]}).tolist() == [
        ...     float(np.float32(x)) for x in (0.8, 0.9, 0.1, 0.2)
        ... ]
        True
    """
    if keys is not None and (isinstance(keys, str) or not all(isinstance(key, str) for key in keys)):
        raise ValueError(f"observation_keys must be a list of names, [{keys!r}] for example, got {keys!r}.")
    if keys is None:
        leaves = list(_leaves(space, ()))
    elif not isinstance(space, gymnasium.spaces.Dict):
        raise ValueError(f"observation_keys={list(keys)} given, but the observation is {space}. Leave them out.")
    else:
        leaves = [leaf for key in keys for leaf in _leaves(_subspace(space, key), tuple(key.split("/")))]
    if not leaves:
        raise ValueError(f"No observation is left of {space} with observation_keys={keys}. Name at least one key.")
    paths, boxes = zip(*leaves, strict=True)
    if len(set(paths)) < len(paths):
        raise ValueError(f"observation_keys={list(keys or ())} take a part of the observation twice. Name it once.")
    layout = ObservationLayout(paths, boxes)
    if not layout.size:
        raise ValueError(
            f"The observation {space} holds no number: there is nothing to choose an action by. Where an environment"
            " has no state, let it state a Box of shape (1,) and return a zero."
        )
    return layout


def _leaves(space: gymnasium.Space[Any], path: Path) -> Iterator[tuple[Path, gymnasium.spaces.Box]]:
    if isinstance(space, gymnasium.spaces.Dict):
        for key in sorted(space.spaces):
            yield from _leaves(space.spaces[key], (*path, key))
        return
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(f"Observation '{_name(path)}' is {space}. Supported: Box vectors and (nested) Dicts of them.")
    if space.dtype == np.uint8 and len(space.shape) > 1:
        raise ValueError(f"Observation '{_name(path)}' looks like an image ({space}). Pixels are not supported.")
    yield path, space


def _subspace(space: gymnasium.spaces.Dict, key: str) -> gymnasium.Space[Any]:
    node: gymnasium.Space[Any] = space
    for part in key.split("/"):
        if not isinstance(node, gymnasium.spaces.Dict) or part not in node.spaces:
            known = ["/".join(path) for path, _ in _leaves(space, ())]
            near = difflib.get_close_matches(key, known) or known
            raise KeyError(f"Observation key '{key}' is not in the observation space. Nearest: {', '.join(near)}.")
        node = node.spaces[part]
    return node


def _follow(observation: Any, path: Path) -> Any:
    for depth, key in enumerate(path):
        if not isinstance(observation, Mapping):
            raise ValueError(f"Observation has no '{_name(path[: depth + 1])}'; found {type(observation).__name__}.")
        if key not in observation:
            raise ValueError(f"Observation has no '{_name(path[: depth + 1])}'; found {sorted(observation)}.")
        observation = observation[key]
    return observation


def _size(box: gymnasium.spaces.Box) -> int:
    return int(np.prod(box.shape))


def _name(path: Path) -> str:
    return "/".join(path) or "observation"
