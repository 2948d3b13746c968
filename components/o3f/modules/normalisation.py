"""z-scores inside networks: what users see stays in the units of the environment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor, nn

from o3f.modules.keys import key_list

MARGIN = 1e-6
"""Added to the standard deviation, as in LAPO's reference implementation."""


class Normaliser(nn.Module):
    """z-scores of vectors: ``(x - loc) / scale``, the identity until :meth:`fit` was called.

    ``loc`` and ``scale`` ``[D]`` are buffers, saved in ``state_dict``. A network that holds a normaliser takes
    inputs in the environment's units, and its statistics travel with its weights.

    Args:
        size: D.
        keys: the entries whose concatenation is normalised; :func:`fit_normalisers` measures these.
        device: where the buffers live.

    Examples:
        >>> import torch
        >>> normaliser = Normaliser(1, ["observation"])
        >>> normaliser.fit(torch.tensor([[1.0], [3.0]]))
        >>> normaliser(torch.tensor([4.0]))
        tensor([2.0000])
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, size: int, keys: Sequence[NestedKey], device: torch.device | str | None = None) -> None:
        super().__init__()
        self.keys = key_list(keys)
        self.register_buffer("loc", torch.zeros(size, device=device))
        self.register_buffer("scale", torch.ones(size, device=device))

    def forward(self, value: Tensor) -> Tensor:
        """Return the z-scores ``[*B, D]``.

        Raises:
            ValueError: if the vectors are of another width, one number among them, which would be widened to D.
        """
        if value.shape[-1:] != self.loc.shape or value.dtype is torch.bool:
            raise ValueError(
                f"A network that was built for {self.keys} [*B, {self.loc.numel()}] is given {list(value.shape)} of"
                f" {value.dtype}."
            )
        return (value - self.loc) / self.scale

    def inverse(self, value: Tensor) -> Tensor:
        """Return the vectors ``[*B, D]`` that have these z-scores."""
        return value * self.scale + self.loc

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Set ``loc`` to the mean of ``rows`` ``[*B, D]``, ``scale`` to their population standard deviation + 1e-6.

        A component that is the same in all rows, up to rounding, has scale 1, so that a value never seen gives a
        number of its own size; LAPO's reference implementation divides it by 1e-6.

        Raises:
            ValueError: if there are no rows, they have another width, or hold values that are not finite.
        """
        if rows.shape[-1:] != self.loc.shape or not rows.numel():
            raise ValueError(
                f"The rows of {self.keys} have shape {list(rows.shape)}; expected at least one row of width "
                f"{self.loc.numel()}. Fit with the rows of the dataset that the networks were built for."
            )
        flat = rows.reshape(-1, rows.shape[-1])
        flat = flat if flat.is_floating_point() else flat.to(self.loc.dtype)
        if not bool(flat.isfinite().all()):
            raise ValueError(
                f"The rows of {self.keys} hold {int((~flat.isfinite()).sum())} values that are not finite, the first in"
                f" row {int((~flat.isfinite()).any(-1).int().argmax())}: every z-score would be NaN. Leave these out."
            )
        spread, mean = torch.std_mean(flat, 0, correction=0)
        self.loc.copy_(mean)
        constant = spread <= MARGIN * mean.abs()
        self.scale.copy_(torch.where(constant, 1.0, spread + MARGIN))


def fit_normalisers(module: nn.Module, rows: TensorDictBase) -> None:
    """Fit every :class:`Normaliser` of ``module`` to its entries of ``rows`` ``[*B]``."""
    for part in module.modules():
        if isinstance(part, Normaliser):
            part.fit(torch.cat([rows[key] for key in part.keys], -1))
