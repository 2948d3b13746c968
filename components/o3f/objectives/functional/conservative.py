"""The regulariser of conservative Q-learning."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Lagrange = Literal["weighted_gap", "weighted_excess"]


def conservative_gap(values: Tensor, log_density: Tensor, data_value: Tensor, floor: Tensor | None = None) -> Tensor:
    """How much a critic prefers other actions to those of the data, CQL(H)'s regulariser.

    With K proposals a_i of density p(a_i) and the data's action a,

        gap = log Σ_i exp(Q(s, a_i) - log p(a_i)) - Q(s, a)

    The sum is not divided by K (as in Kumar et al., 2020, https://arxiv.org/abs/2006.04779, and all
    implementations we know): a constant Q over K uniform proposals in [-1, 1]^d has the gap d log 2 + log K.

    With ``floor`` G_i, max(Q(s, a_i), G_i) stands for Q(s, a_i): values below it are not pushed down, which calibrates
    critics where G is the return of the data (Nakamoto et al., 2023, https://arxiv.org/abs/2303.05479).

    Args:
        values: the critics' values of the proposals, ``[*B, K, m]``.
        log_density: log p(a_i), ``[*B, K]``.
        data_value: the critics' values of the data's actions, ``[*B, m]``.
        floor: G, ``[*B, K]``; -inf bounds nothing.

    Returns:
        The gap of each critic, ``[*B, m]``.

    Examples:
        >>> import torch
        >>> conservative_gap(torch.ones(4, 1), torch.zeros(4), torch.ones(1))  # log 4
        tensor([1.3863])
        >>> conservative_gap(torch.zeros(4, 1), torch.zeros(4), torch.ones(1), floor=torch.ones(4))
        tensor([1.3863])
    """
    if floor is not None:
        values = values.maximum(floor.unsqueeze(-1))
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
