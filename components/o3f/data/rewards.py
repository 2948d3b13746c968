"""Reward rules: what the learner sees instead of the raw reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

Reward = TypeVar("Reward", float, npt.NDArray[np.floating], torch.Tensor)


@dataclass(frozen=True)
class RewardRule:
    r"""An affine rule, applied once when a transition enters the buffer, offline and online alike.

    :math:`r' = \text{scale} \cdot r + \text{shift}`. IQL (https://arxiv.org/abs/2110.06169) uses ``shift=-1``
    on AntMaze and the scale of :func:`return_range_scale` on locomotion. Evaluation never applies a rule.

    Args:
        scale: factor of the raw reward.
        shift: added after scaling.

    Raises:
        ValueError: if a value is not finite or the scale is zero.

    Examples:
        >>> RewardRule(scale=2.0, shift=-1.0)(3.0)
        5.0
    """

    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not np.isfinite([self.scale, self.shift]).all() or self.scale == 0.0:
            raise ValueError(f"RewardRule needs finite values and a scale that is not 0, found {self}.")

    def __call__(self, reward: Reward) -> Reward:
        """Apply the rule to a number, an array or a tensor of any shape; its type is kept."""
        return reward * self.scale + self.shift  # pyright: ignore[reportReturnType]


def return_range_scale(episode_returns: Sequence[float] | npt.NDArray[np.floating]) -> float:
    r"""Reward scale of IQL's locomotion tasks, :math:`1000 / (\max_e R_e - \min_e R_e)`.

    Args:
        episode_returns: undiscounted raw return :math:`R_e` of each episode of the dataset, ``[E]``.

    Raises:
        ValueError: if all returns are equal, or one is not finite.

    Examples:
        >>> return_range_scale([0.0, 500.0, 250.0])
        2.0
    """
    returns = np.asarray(episode_returns, dtype=np.float64)
    if returns.size == 0 or not np.isfinite(returns).all() or returns.max() == returns.min():
        raise ValueError(
            "The return range needs at least two episodes of different, finite return; found"
            f" {returns.size} with returns {np.unique(returns)[:5]}. Give the reward rule a scale of its own."
        )
    return float(1000.0 / (returns.max() - returns.min()))
