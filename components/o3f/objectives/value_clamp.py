"""Bounds of what a state can be worth, from the rewards there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

ClampMode = Literal["running", "fixed", "none"]


class ValueClamp(nn.Module):
    """Clips value targets to what the rewards allow, ``[r_min, r_max] / (1 - γ)``.

    LAPO takes ``r_min`` and ``r_max`` from the dataset. Online, better behaviour than the dataset's has larger
    values and would be clipped, so by default the range here follows the rewards, and always holds 0: an episode
    that ends is worth nothing more.

    The range is in the buffers ``reward_min`` and ``reward_max``, saved in ``state_dict``.

    Args:
        mode: ``"running"`` widens the range by all rewards it is shown; ``"fixed"`` keeps the range given to
            :meth:`fit` (LAPO; until then nothing is clipped); ``"none"`` clips nothing.
        bounds: of the values, in place of both ranges (LAPO on antmaze, rewards times 100: 0 and 100).

    Raises:
        ValueError: if ``mode`` is unknown, or ``bounds`` are not two ordered numbers or do not go with it.

    Examples:
        >>> import torch
        >>> clamp = ValueClamp()
        >>> clamp.observe(torch.tensor([-1.0, 2.0]))
        >>> clamp(torch.tensor([-20.0, 3.0, 50.0]), discount=torch.tensor(0.75))
        tensor([-4.,  3.,  8.])
    """

    reward_min: Tensor
    reward_max: Tensor

    def __init__(self, mode: ClampMode = "running", bounds: Sequence[float] | None = None) -> None:
        super().__init__()
        if mode not in get_args(ClampMode):
            raise ValueError(f"value_clamp is {mode!r}; expected 'running', 'fixed' or 'none'.")
        if bounds is not None and (mode == "none" or not _ascending(bounds)):
            raise ValueError(
                f"value_bounds is {bounds} and value_clamp {mode!r}; expected two ascending numbers, with 'none' null."
            )
        self.mode: ClampMode = mode
        self.bounds = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        start = 0.0 if mode == "running" else math.inf
        self.register_buffer("reward_min", torch.tensor(-start))
        self.register_buffer("reward_max", torch.tensor(start))

    def fit(self, reward: Tensor) -> None:
        """Take the range of a dataset's rewards, of any shape; ``"running"`` widens its own by it.

        Raises:
            ValueError: if the range is ``"fixed"`` and no reward is finite.
        """
        if self.mode == "fixed":
            usable = _usable(reward)
            if not bool(usable.any()):
                raise ValueError(f"None of the rewards {list(reward.shape)} is finite: there is no range to take.")
            self.reward_min.copy_(torch.where(usable, reward, torch.inf).min())
            self.reward_max.copy_(torch.where(usable, reward, -torch.inf).max())
        self.observe(reward)

    @torch.no_grad()
    def observe(self, reward: Tensor, mask: Tensor | None = None) -> None:
        """Let the range follow a batch's rewards, if it is ``"running"``.

        Rewards that are not finite, or so large that their squares are not, say nothing: no update is made with them
        (:class:`~o3f.algorithms.guarded_adam.GuardedAdam`), and the range would never come back from them.

        Args:
            reward: of any shape.
            mask: of the same shape, false where a row is padding.
        """
        if self.mode == "running":
            usable = _usable(reward) if mask is None else _usable(reward) & mask
            lowest = torch.minimum(self.reward_min, torch.where(usable, reward, torch.inf).min())
            highest = torch.maximum(self.reward_max, torch.where(usable, reward, -torch.inf).max())
            # Compiled, torch 2.13 loses what is written into a float64 number, though not into a view of it.
            self.reward_min.view(1).copy_(lowest)
            self.reward_max.view(1).copy_(highest)

    def forward(self, value: Tensor, discount: Tensor) -> Tensor:
        """Return ``value``, clipped; ``discount`` is γ."""
        if self.mode == "none":
            return value
        if self.bounds is not None:
            return value.clamp(*self.bounds)
        horizon = 1 / (1 - discount).clamp_min(torch.finfo(value.dtype).eps)  # 0 times infinity is not a bound
        return value.clamp(self.reward_min * horizon, self.reward_max * horizon)


def _ascending(bounds: Any) -> bool:
    """Whether these are two ascending numbers."""
    try:
        low, high = bounds
        return not isinstance(bounds, str) and bool(float(low) < float(high))
    except (TypeError, ValueError):
        return False


def _usable(reward: Tensor) -> Tensor:
    return reward.square().isfinite()
