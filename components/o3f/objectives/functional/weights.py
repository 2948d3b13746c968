"""How much an action counts by its advantage."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Weighting = Literal["softmax", "exp"]

MAX_WEIGHT = 100.0
"""Largest advantage weight of IQL and of AWAC's exponential form."""


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


def weight_metrics(advantage: Tensor, temperature: float | Tensor) -> dict[str, Tensor]:
    """What :func:`advantage_weights` are like: the share at their cap, and the advantage that 99 % do not exceed.

    Args:
        advantage: A, any shape.
        temperature: β, an inverse temperature.

    Examples:
        >>> import torch
        >>> weight_metrics(torch.tensor([0.0, 1.0, 2.0, 3.0]), 3.0)["advantage/clipped_share"]
        tensor(0.5000)
    """
    capped = advantage * temperature > math.log(MAX_WEIGHT)
    return {
        "advantage/clipped_share": capped.to(advantage.dtype).mean(),
        "advantage/high": advantage.flatten().quantile(0.99),
    }


def awac_weights(
    advantage: Tensor, lam: float | Tensor, weighting: Weighting = "softmax", mask: Tensor | None = None
) -> Tensor:
    """Weights of AWAC's actor loss (Nair et al., 2020, https://arxiv.org/abs/2006.09359).

    With A = ``advantage``, λ = ``lam`` and B the number of elements,

        softmax: B exp(A / λ) / Σ exp(A / λ)        exp: min(exp(A / λ), 100)

    ``"softmax"``, d3rlpy's form, normalises over the whole batch: the weights have mean 1 and do not depend
    on a constant added to A. ``"exp"`` is CORL's. Both become 1 (behaviour cloning) as λ grows. Neither
    overflows.

    Args:
        advantage: any shape, all its dimensions are batch.
        lam: λ, positive, a float or a 0-d tensor.
        weighting: ``"softmax"`` or ``"exp"``.
        mask: of the same shape, false where a row is padding: B and the sum leave it out, its weight is 0.

    Returns:
        The weights, of the shape of ``advantage``.

    Raises:
        ValueError: for an unknown ``weighting``.

    Examples:
        >>> import torch
        >>> awac_weights(torch.tensor([0.0, 1.0]), 1.0, "exp")
        tensor([1.0000, 2.7183])
        >>> awac_weights(torch.tensor([0.0, 1.0]), 1.0)
        tensor([0.5379, 1.4621])
    """
    if weighting == "exp":
        weights = advantage_weights(advantage, 1 / lam)
        return weights if mask is None else torch.where(mask, weights, 0.0)
    if weighting != "softmax":
        raise ValueError(f"weighting is {weighting!r}; expected 'softmax' or 'exp'.")
    if mask is None:
        return (advantage / lam).flatten().softmax(0).reshape(advantage.shape) * advantage.numel()
    shares = torch.where(mask, advantage / lam, -torch.inf).flatten().softmax(0).reshape(advantage.shape)
    return torch.where(mask, shares, 0.0) * mask.sum()  # where all is padding, the shares are NaN


def sign_weights(advantage: Tensor, weight: float | Tensor) -> Tensor:
    """LAPO's two weights: w = ``weight`` where ``advantage`` > 0 and ``1 - w`` elsewhere.

    Examples:
        >>> import torch
        >>> sign_weights(torch.tensor([-2.0, 0.0, 3.0]), 0.75)
        tensor([0.2500, 0.2500, 0.7500])
    """
    return torch.where(advantage > 0, weight, 1 - weight)
