"""Reward rules: what the learner sees instead of the raw reward."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

#: The largest return after scaling by the range, from which on the returns are called narrow.
NARROW = 4000.0

Reward = TypeVar("Reward", float, npt.NDArray[np.floating], torch.Tensor)


@dataclass(frozen=True)
class RewardRule:
    r"""An affine rule, applied once when a transition enters the buffer, offline and online alike.

    :math:`r' = \text{scale} \cdot r + \text{shift}`. IQL (https://arxiv.org/abs/2110.06169) uses ``shift=-1``
    on AntMaze and ``scale="return_range"`` on locomotion. Evaluation never applies a rule.

    Args:
        scale: factor of the raw reward, or ``"return_range"`` for :func:`return_range_scale` of the dataset;
            the loader resolves it, and ``dataset_info(buffer).reward`` is the rule for the online rows.
        shift: added after scaling.

    Raises:
        ValueError: if a value is not finite or the scale is zero.

    Examples:
        >>> RewardRule(scale=2.0, shift=-1.0)(3.0)
        5.0
    """

    scale: float | Literal["return_range"] = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        number = 1.0 if self.scale == "return_range" else self.scale
        if isinstance(number, str) or not np.isfinite([number, self.shift]).all() or number == 0.0:
            raise ValueError(f"{self}: expected finite numbers, a scale that is not 0, or scale='return_range'.")

    def __call__(self, reward: Reward) -> Reward:
        """Apply the rule to a number, an array or a tensor of any shape; its type is kept.

        Raises:
            ValueError: if the scale is still to be taken from a dataset.
        """
        if isinstance(self.scale, str):
            raise ValueError("This rule takes its scale from a dataset: call resolve(episode_returns) first.")
        return reward * self.scale + self.shift  # pyright: ignore[reportReturnType]

    def resolve(self, episode_returns: Sequence[float]) -> RewardRule:
        """Return the rule with its scale as a number.

        Args:
            episode_returns: undiscounted raw returns of the dataset's episodes.
        """
        return replace(self, scale=return_range_scale(episode_returns)) if isinstance(self.scale, str) else self


def return_range_scale(episode_returns: Sequence[float] | npt.NDArray[np.floating]) -> float:
    r"""Reward scale of IQL's locomotion tasks, :math:`1000 / (\max_e R_e - \min_e R_e)`.

    Args:
        episode_returns: undiscounted raw return :math:`R_e` of each episode of the dataset, ``[E]``.

    Raises:
        ValueError: if all returns are equal, or one is not finite.

    Warns:
        UserWarning: if the returns are narrow, as those of a single policy: divided by their range, the rewards are
            many times larger than on the data that IQL's temperatures were chosen for, whose returns begin near 0.

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
    scale, largest = float(1000.0 / (returns.max() - returns.min())), float(np.abs(returns).max())
    if scale * largest > NARROW:
        warnings.warn(
            f"scale=return_range: the returns are narrow, {returns.min():.4g} to {returns.max():.4g}, which makes the"
            f" scale {scale:.3g} and the largest return {scale * largest:.4g}; on the data that IQL's temperatures are"
            f" meant for that is about 1000. They act as if they were {scale * largest / 1000:.1f} times as high:"
            f" give task.reward.scale={1000 / largest:.2g}, or a temperature that is so many times lower.",
            stacklevel=2,
        )
    return scale
