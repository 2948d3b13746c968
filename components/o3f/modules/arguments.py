"""Checks of arguments that several modules take."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` as an int: an int of Python, numpy or torch, not a float or text that looks like one.

    Raises:
        ValueError: if it is none, or smaller than ``least``.

    Examples:
        >>> whole_number("top", 3)
        3
        >>> whole_number("top", 2.5)
        Traceback (most recent call last):
        ...
        ValueError: top must be a whole number of at least 1, got 2.5.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return number


def check_switches(**values: Any) -> None:
    """Check that what is true or false is so, or 1 or 0: a text, ``"no"`` among them, would count as true.

    Raises:
        ValueError: naming the argument.
    """
    for name, value in values.items():
        if getattr(value, "ndim", 0) or value not in (True, False):
            raise ValueError(f"{name} must be True or False, got {value!r}.")


def log_std_range(bounds: Any) -> tuple[float, float]:
    """Return the bounds of the logarithm of a standard deviation.

    Raises:
        ValueError: if they are not two ascending numbers.
    """
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise ValueError(f"log_std_bounds must be two ascending numbers, (-5.0, 2.0) for example, got {bounds!r}.")
    return low, high


def layer_sizes(inputs: int, hidden_sizes: Iterable[int], outputs: int) -> list[int]:
    """Return a network's widths from input to output.

    Raises:
        ValueError: if one is no whole number of at least 1, or ``hidden_sizes`` is no sequence.
    """
    if isinstance(hidden_sizes, str) or not isinstance(hidden_sizes, Iterable):
        raise ValueError(f"hidden_sizes must be a sequence of widths, (256, 256) for example, got {hidden_sizes!r}.")
    hidden = [whole_number("each of hidden_sizes", width) for width in hidden_sizes]
    return [whole_number("the number of inputs", inputs), *hidden, whole_number("the number of outputs", outputs)]


def check_module(name: str, part: Any) -> None:
    """Check that a part says which entries it reads and writes.

    Raises:
        TypeError: if it does not.
    """
    if isinstance(part, type) or not (hasattr(part, "in_keys") and hasattr(part, "out_keys")):
        raise TypeError(
            f"The {name} must be a TensorDictModule, which names the entries that it reads and writes, got"
            f" {type(part).__name__}. Wrap it: tensordict.nn.TensorDictModule({name}, in_keys=[...], out_keys=[...])."
        )


def numbers(name: str, value: Any, dtype: torch.dtype | None = torch.float32) -> Tensor:
    """Return a setting of one number or several as a tensor of its own.

    Args:
        name: said in the message.
        value: a number, a sequence of numbers, an array or a tensor.
        dtype: of the tensor; None keeps that of the value.

    Raises:
        ValueError: if it is none of these.
    """
    try:
        return torch.as_tensor(value, dtype=dtype).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a number, or a sequence of numbers, got {value!r}.") from error


def check_flags(name: Any, flags: Tensor, batch: Sequence[int]) -> None:
    """Check that there is one flag for each row: ``[B]`` would be widened to ``[B, B]`` without a word.

    Args:
        name: the entry's.
        flags: that mark rows, an episode's first step for example.
        batch: the shape of the rows.

    Raises:
        ValueError: if they have not the shape ``[*B, 1]``.
    """
    if flags.shape != (*batch, 1):
        raise ValueError(
            f"{name!r} is {list(flags.shape)}, expected {[*batch, 1]}: one flag for each row, as"
            " torchrl.envs.InitTracker writes it."
        )


def check_per_dimension(name: str, value: Tensor, size: int | None = None) -> None:
    """Check that a setting is one number or one per dimension, so that it widens nothing it is added to.

    Args:
        name: of the setting.
        value: the setting.
        size: the number of dimensions, None where it is not known yet.

    Raises:
        ValueError: if it has another shape.
    """
    shape = value.shape
    if len(shape) == 0 or (len(shape) == 1 and shape[0] > 0 and (size is None or shape[0] in (1, size))):
        return
    expected = "one number or one per dimension" if size is None else f"one number or {size}, one per dimension"
    raise ValueError(f"{name} must be {expected}, got a tensor of shape {list(shape)}.")
