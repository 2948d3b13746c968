"""Actions drawn uniformly from where a policy's actions may lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import NestedKey
from torch import Tensor, nn

from o3f.modules.acting import action_bounds, spec_of, warn_of_bounds


class UniformActions(nn.Module):
    r"""Draws actions uniformly within a policy's bounds; their density is :math:`\prod_i 1 / (high_i - low_i)`.

    Args:
        policy: its attribute ``spec`` has the bounds; -1 and 1 without one.
        action_key: the action's entry.

    Raises:
        ValueError: if the spec's action is not a bounded vector of floats.

    Warns:
        UserWarning: if the bounds are not known: then -1 and 1 are assumed.
    """

    low: Tensor
    width: Tensor

    def __init__(self, policy: Any, action_key: NestedKey) -> None:
        super().__init__()
        bounds = action_bounds(spec_of(policy, None, action_key), action_key)
        if bounds is None:
            warn_of_bounds(action_key)
            bounds = {"low": torch.tensor(-1.0), "high": torch.tensor(1.0)}
        width = bounds["high"] - bounds["low"]
        self._log_widths: list[float] = [math.log(each) for each in width.flatten().tolist()]
        # Of the spec: a state loaded must not overwrite them.
        self.register_buffer("low", bounds["low"], persistent=False)
        self.register_buffer("width", width, persistent=False)

    def forward(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Draw actions ``[*shape, A]`` of the width, type and device of ``like`` ``[*B, A]``."""
        drawn = torch.rand(*shape, like.shape[-1], dtype=like.dtype, device=like.device)
        return self.width * drawn + self.low

    def log_density(self, size: int) -> float:
        """Return the logarithm of the density of an action of ``size`` components, the same everywhere."""
        return -sum(self._log_widths) if len(self._log_widths) > 1 else -size * self._log_widths[0]
