"""The equations of the objectives as pure functions of tensors: no modules, no keys, no state."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Aggregation",
    "Weighting",
    "advantage_weights",
    "aggregate_critics",
    "awac_weights",
    "divergence_from_normal",
    "draw_members",
    "expectile_loss",
    "mix_extremes",
    "sign_weights",
]

Aggregation = Literal["min", "mean", "subset"]
Weighting = Literal["softmax", "exp"]

MAX_WEIGHT = 100.0
"""Largest advantage weight of IQL and of AWAC's exponential form."""


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
    members = draw_members(values.shape[-1], subset_size, generator)
    return values.index_select(-1, members.to(values.device)).amin(-1)


def draw_members(num_critics: int, subset_size: int, generator: torch.Generator | None = None) -> Tensor:
    """Indices ``[subset_size]`` of members drawn without replacement out of ``num_critics``.

    Raises:
        ValueError: for a ``subset_size`` outside 1 to ``num_critics``.

    Examples:
        >>> sorted(draw_members(num_critics=3, subset_size=3).tolist())
        [0, 1, 2]
    """
    if not 1 <= subset_size <= num_critics:
        raise ValueError(f"subset_size is {subset_size}; expected 1 to {num_critics}, the number of critics.")
    device = "cpu" if generator is None else generator.device
    return torch.randperm(num_critics, generator=generator, device=device)[:subset_size]


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


def mix_extremes(values: Tensor, min_weight: float | Tensor) -> Tensor:
    """From pessimistic to optimistic, ``λ min_j Q_j + (1 - λ) max_j Q_j`` of what several critics say.

    Args:
        values: Q, ``[*B, m]``.
        min_weight: λ in [0, 1]; 1 is the minimum (LAPO's code calls it ``doubleq_min``).

    Returns:
        The values, ``[*B]``.

    Examples:
        >>> import torch
        >>> mix_extremes(torch.tensor([[1.0, 5.0, 3.0]]), 0.75)
        tensor([2.])
    """
    return min_weight * values.amin(-1) + (1 - min_weight) * values.amax(-1)


def sign_weights(advantage: Tensor, weight: float | Tensor) -> Tensor:
    """LAPO's two weights: w = ``weight`` where ``advantage`` > 0 and ``1 - w`` elsewhere.

    Examples:
        >>> import torch
        >>> sign_weights(torch.tensor([-2.0, 0.0, 3.0]), 0.75)
        tensor([0.2500, 0.2500, 0.7500])
    """
    return torch.where(advantage > 0, weight, 1 - weight)


def divergence_from_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """``KL(N(μ, σ²) || N(0, I)) = -½ Σ_i (1 + log σ_i² - μ_i² - σ_i²)``.

    Args:
        mean: μ, ``[*B, Z]``.
        log_variance: log σ², ``[*B, Z]``.

    Returns:
        The divergences, ``[*B]``.

    Examples:
        >>> import torch
        >>> divergence_from_normal(torch.tensor([1.0, 2.0]), torch.zeros(2))
        tensor(2.5000)
    """
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)


__all__ = ["Lagrange", "conservative_gap", "weighted_gap"]

Lagrange = Literal["weighted_gap", "weighted_excess"]


def conservative_gap(values: Tensor, log_density: Tensor, data_value: Tensor) -> Tensor:
    """How much a critic prefers other actions to those of the data, CQL(H)'s regulariser.

    With K proposals a_i of density p(a_i) and the data's action a,

        gap = log Σ_i exp(Q(s, a_i) - log p(a_i)) - Q(s, a)

    The sum is not divided by K (as in Kumar et al., 2020, https://arxiv.org/abs/2006.04779, and all
    implementations we know): a constant Q over K uniform proposals in [-1, 1]^d has the gap d log 2 + log K.

    Args:
        values: the critics' values of the proposals, ``[*B, K, m]``.
        log_density: log p(a_i), ``[*B, K]``.
        data_value: the critics' values of the data's actions, ``[*B, m]``.

    Returns:
        The gap of each critic, ``[*B, m]``.

    Examples:
        >>> import torch
        >>> conservative_gap(torch.ones(4, 1), torch.zeros(4), torch.ones(1))  # log 4
        tensor([1.3863])
    """
    return (values - log_density.unsqueeze(-1)).logsumexp(-2) - data_value


def weighted_gap(
    gap: Tensor, weight: float | Tensor, threshold: float | Tensor = 0.0, lagrange: Lagrange | None = None
) -> Tensor:
    """What CQL's critics minimise beside the TD error, before its multiplier.

    With w = ``weight`` and τ = ``threshold``,

        None: w gap        "weighted_gap": w gap - τ        "weighted_excess": w (gap - τ)

    The second is the first release of d3rlpy's, the third that of the authors' later code and of d3rlpy 2:
    with w = 5, a threshold of 10 holds the gap at 2 in one and at 10 in the other. In both the multiplier
    grows while the gap is larger: a *lower* threshold is *more* conservative.

    Args:
        gap: any shape.
        weight: w, a float or a 0-d tensor.
        threshold: τ.
        lagrange: which form.

    Raises:
        ValueError: for an unknown ``lagrange``.

    Examples:
        >>> import torch
        >>> gap = torch.tensor(3.0)
        >>> [weighted_gap(gap, 5.0, 10.0, form).item() for form in (None, "weighted_gap", "weighted_excess")]
        [15.0, 5.0, -35.0]
    """
    if lagrange is None:
        return weight * gap
    if lagrange == "weighted_gap":
        return weight * gap - threshold
    if lagrange == "weighted_excess":
        return weight * (gap - threshold)
    raise ValueError(f"lagrange is {lagrange!r}; expected None, 'weighted_gap' or 'weighted_excess'.")
