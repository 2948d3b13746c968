"""The equations of the objectives as pure functions of tensors: no modules, no keys, no state."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Aggregation", "advantage_weights", "aggregate_critics", "expectile_loss"]

Aggregation = Literal["min", "mean", "subset"]

MAX_WEIGHT = 100.0
"""Largest advantage weight of IQL."""


def expectile_loss(diff: Tensor, expectile: float | Tensor) -> Tensor:
    """Asymmetric square error, ``|τ - 1(u < 0)| u²`` with u = ``diff`` and τ = ``expectile``.

    The constant e that minimises the mean loss of ``x - e`` is the τ-expectile of x: the mean at τ = 0.5,
    towards the maximum as τ goes to 1. There is no factor 1/2, as in IQL's reference implementation
    (Kostrikov et al., 2021, https://arxiv.org/abs/2110.06169).

    Args:
        diff: target minus prediction, any shape.
        expectile: τ in (0, 1), a float or a 0-d tensor.

    Returns:
        The loss of each element, of the shape of ``diff``.

    Examples:
        >>> import torch
        >>> expectile_loss(torch.tensor([2.0, -2.0]), 0.75)
        tensor([3., 1.])
    """
    return torch.where(diff > 0, expectile, 1 - expectile) * diff.square()


def advantage_weights(advantage: Tensor, temperature: float | Tensor, max_weight: float = MAX_WEIGHT) -> Tensor:
    """Capped exponential weights, ``min(exp(β A), max_weight)`` with A = ``advantage``, β = ``temperature``.

    β is an *inverse* temperature; the name is TorchRL's. The exponent is capped before the exponential, so
    that a huge advantage gives a finite gradient too; IQL's reference implementation caps the result alone.

    Args:
        advantage: any shape.
        temperature: β, at least 0, a float or a 0-d tensor.
        max_weight: the largest weight, positive (IQL: 100).

    Returns:
        The weights, of the shape of ``advantage``.

    Examples:
        >>> import torch
        >>> advantage_weights(torch.tensor([0.0, 2.0]), temperature=3.0)
        tensor([  1., 100.])
    """
    exponent = (temperature * advantage).clamp_max(math.log(max_weight))
    return exponent.exp().clamp_max(max_weight)  # exp(log(100)) rounds to 100.00001


def aggregate_critics(
    values: Tensor,
    aggregation: Aggregation = "min",
    subset_size: int = 2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One value out of the m of an ensemble.

    ``"min"`` is the minimum over all members (IQL), ``"mean"`` their mean, ``"subset"`` the minimum over
    ``subset_size`` members drawn without replacement, the same ones for the whole batch (REDQ,
    Chen et al., 2021, https://arxiv.org/abs/2101.05982).

    Args:
        values: what each member says, ``[*B, m]``.
        aggregation: ``"min"``, ``"mean"`` or ``"subset"``.
        subset_size: how many members ``"subset"`` draws, 1 to m (REDQ: 2).
        generator: where the draw comes from; ``None`` is torch's global stream.

    Returns:
        The aggregated values, ``[*B]``.

    Raises:
        ValueError: for an unknown ``aggregation`` or a ``subset_size`` outside 1 to m.

    Examples:
        >>> import torch
        >>> q = torch.tensor([[1.0, 5.0, 3.0]])
        >>> aggregate_critics(q), aggregate_critics(q, "mean")
        (tensor([1.]), tensor([3.]))
    """
    if aggregation == "min":
        return values.amin(-1)
    if aggregation == "mean":
        return values.mean(-1)
    if aggregation != "subset":
        raise ValueError(f"aggregation is {aggregation!r}; expected 'min', 'mean' or 'subset'.")
    num_critics = values.shape[-1]
    if not 1 <= subset_size <= num_critics:
        raise ValueError(f"subset_size is {subset_size}; expected 1 to {num_critics}, the number of critics.")
    device = "cpu" if generator is None else generator.device
    members = torch.randperm(num_critics, generator=generator, device=device)[:subset_size]
    return values.index_select(-1, members.to(values.device)).amin(-1)
