"""One value out of what several critics say."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["min", "mean", "subset"]


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
    if not isinstance(subset_size, int) or not 1 <= subset_size <= num_critics:
        raise ValueError(f"subset_size is {subset_size!r}; expected 1 to {num_critics}, the number of critics.")
    device = "cpu" if generator is None else generator.device
    return torch.randperm(num_critics, generator=generator, device=device)[:subset_size]


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
