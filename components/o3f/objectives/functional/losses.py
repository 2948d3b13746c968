"""What is minimised over the elements of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


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
