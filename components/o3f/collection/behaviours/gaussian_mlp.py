r"""Gaussian MLP policies as plain arrays: a small ``.npz`` file instead of a checkpoint.

With :math:`x` an observation, rows of the matrices being inputs (``x @ W + b``), the file holds:

========================  ==========================================================================
``obs_mean, obs_std``     optional ``[O]``: :math:`x \leftarrow (x - mean) / std` ...
``obs_clip``              ... clipped to plus or minus this (optional)
``W0, b0, W1, b1, ...``   hidden layers ``[in, out]`` and ``[out]``: :math:`x \leftarrow f(x W_i + b_i)`
``activation``            :math:`f`: ``"relu"`` or ``"tanh"``
``W_mean, b_mean``        the mean :math:`\mu = x W + b`, ``[hidden, A]`` and ``[A]``
``squash_mean``           optional bool: :math:`\mu \leftarrow \tanh \mu`
``log_std``               ``[A]``, or instead ``W_log_std, b_log_std``: :math:`\log\sigma = x W + b`
``log_std_bounds``        optional ``[2]``, the range of :math:`\log\sigma`; default (-20, 2)
``squash``                bool: whether the action is :math:`\tanh` of the sample
========================  ==========================================================================

The action is :math:`a \sim N(\mu, \sigma^2)`, squashed if ``squash``; who executes it clips it to [-1, 1].
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}
_OPTIONAL = {"obs_clip", "squash_mean", "log_std_bounds"}


class GaussianMLP:
    """A policy read from arrays, evaluated with NumPy: some 20 us a call, no PyTorch.

    Args:
        arrays: as described at the top of this module.

    Raises:
        ValueError: if an array is missing, unknown, not finite or does not fit the others.

    Examples:
        >>> policy = GaussianMLP(dict(W_mean=np.eye(2), b_mean=np.zeros(2), log_std=np.zeros(2),
        ...     activation=np.array("tanh"), squash=np.array(False)))
        >>> policy.mode(np.array([0.5, -0.5])).tolist()
        [0.5, -0.5]
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = {key: np.asarray(value) for key, value in arrays.items()}
        self.depth = sum(key[1:].isdigit() and key[0] == "W" for key in arrays)
        _check(self.arrays, self.depth)
        self._activation = _ACTIVATIONS[str(self.arrays["activation"])]
        self._squash = np.tanh if bool(self.arrays["squash"]) else lambda x: x
        self._layers = [(self.arrays[f"W{i}"], self.arrays[f"b{i}"]) for i in range(self.depth)]
        self._bounds = np.asarray(arrays.get("log_std_bounds", (-20.0, 2.0)))

    @property
    def observation_dim(self) -> int:
        """O, the size of the observations it reads."""
        return len(self.arrays["W0" if self.depth else "W_mean"])

    @property
    def action_dim(self) -> int:
        """A, the size of its actions."""
        return len(self.arrays["b_mean"])

    def distribution(self, observation: Array) -> tuple[Array, Array]:
        """Mean and standard deviation ``[*B, A]`` before squashing, of observations ``[*B, O]``."""
        a, x = self.arrays, np.asarray(observation, dtype=np.float32)
        if "obs_mean" in a:
            x = (x - a["obs_mean"]) / a["obs_std"]
            x = np.clip(x, -a["obs_clip"], a["obs_clip"]) if "obs_clip" in a else x
        for weight, bias in self._layers:
            x = self._activation(x @ weight + bias)
        mean = x @ a["W_mean"] + a["b_mean"]
        mean = np.tanh(mean) if a.get("squash_mean") else mean
        log_std = a["log_std"] if "log_std" in a else x @ a["W_log_std"] + a["b_log_std"]
        return mean, np.exp(np.clip(log_std, *self._bounds))

    def sample(self, observation: Array, rng: np.random.Generator) -> Array:
        """Draw actions ``[*B, A]``."""
        mean, std = self.distribution(observation)
        return np.asarray(self._squash(mean + std * rng.standard_normal(mean.shape)))

    def mode(self, observation: Array) -> Array:
        """The actions ``[*B, A]`` without noise."""
        return np.asarray(self._squash(self.distribution(observation)[0]))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> GaussianMLP:
        """Read a file; nothing is unpickled.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a readable ``.npz`` of this format.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"No policy file at {Path(path).resolve()}.")
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return cls(dict(arrays))
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not a Gaussian MLP policy (.npz): {error}") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file that :meth:`load` reads."""
        np.savez(Path(path).with_suffix(".npz"), **self.arrays)  # type: ignore[arg-type]


def _check(arrays: Mapping[str, Array], depth: int) -> None:
    layers = [(f"W{i}", f"b{i}") for i in range(depth)]
    state_dependent = "log_std" not in arrays
    standardised = "obs_mean" in arrays or "obs_std" in arrays
    known = {"W_mean", "b_mean", "activation", "squash"} | {name for pair in layers for name in pair}
    known |= {"W_log_std", "b_log_std"} if state_dependent else {"log_std"}
    known |= {"obs_mean", "obs_std"} if standardised else set()
    missing, unknown = known - set(arrays), set(arrays) - known - _OPTIONAL
    if missing or unknown:
        raise ValueError(f"arrays missing: {sorted(missing)}, unknown: {sorted(unknown)}.")
    if str(arrays["activation"]) not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(_ACTIVATIONS)}, found {arrays['activation']}.")
    for key in known - {"activation"}:
        if not np.isfinite(arrays[key]).all():
            raise ValueError(f"array {key} holds values that are not finite.")
    _check_shapes(arrays, [*layers, ("W_mean", "b_mean")])
    if state_dependent:
        _check_shapes(arrays, [*layers, ("W_log_std", "b_log_std")])
    sizes = {"b_log_std" if state_dependent else "log_std": arrays["b_mean"].shape}
    sizes |= dict.fromkeys(("obs_mean", "obs_std"), arrays["W0" if depth else "W_mean"].shape[:1])
    for key, shape in sizes.items():
        if key in arrays and arrays[key].shape != shape:
            raise ValueError(f"shapes do not fit: {key} {arrays[key].shape}, expected {shape}.")


def _check_shapes(arrays: Mapping[str, Array], layers: list[tuple[str, str]]) -> None:
    inputs = None
    for weight, bias in layers:
        shape = arrays[weight].shape
        if len(shape) != 2 or arrays[bias].shape != shape[1:] or inputs not in (None, shape[0]):
            raise ValueError(f"shapes do not fit: {weight} {shape}, {bias} {arrays[bias].shape}, inputs {inputs}.")
        inputs = shape[1]
