"""Reward rules: what the learner sees instead of the raw reward."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch

#: The largest return after scaling by the range, from which on the returns are called narrow.
NARROW = 4000.0

#: From how many times on a reward is far beyond another one: float32 does not see the smaller one beside it.
FAR = 2.0**24

#: Rewards up to this size are no fill values, however small the others are: a goal's 1 among costs of 1e-9.
ORDINARY = 1e4

#: What a scale can be measured by on a dataset.
Measured = Literal["return_range", "largest_reward"]
MEASURED: tuple[str, ...] = get_args(Measured)

Reward = TypeVar("Reward", float, npt.NDArray[np.floating], torch.Tensor)


@dataclass(frozen=True)
class RewardRule:
    r"""An affine rule, applied once when a transition enters the buffer, offline and online alike.

    :math:`r' = \text{scale} \cdot r + \text{shift}`. IQL (https://arxiv.org/abs/2110.06169) uses ``shift=-1``
    on AntMaze and ``scale="return_range"`` on locomotion, LAPO (https://arxiv.org/abs/2203.08949)
    ``scale="largest_reward"``. Evaluation never applies a rule.

    Args:
        scale: factor of the raw reward, or what of the dataset to measure it by: ``"return_range"`` is
            :func:`return_range_scale`, ``"largest_reward"`` :func:`largest_reward_scale`. The loader resolves it, and
            ``dataset_info(buffer).reward`` is the rule for the online rows.
        shift: added after scaling.
        running_sum: in an episode that is played, r is the sum of the rewards so far (:meth:`online`,
            :meth:`of_episode`): for an environment that pays once what its dataset pays in every step, FrankaKitchen.

    Raises:
        ValueError: if a value is not finite or the scale is zero.

    Examples:
        >>> RewardRule(scale=2.0, shift=-1.0)(3.0)
        5.0
    """

    scale: float | Measured = 1.0
    shift: float = 0.0
    running_sum: bool = False

    def __post_init__(self) -> None:
        number = 1.0 if self.scale in MEASURED else self.scale
        numbers = all(isinstance(each, Real) for each in (number, self.shift))
        if not numbers or not np.isfinite([number, self.shift]).all() or number == 0.0:
            raise ValueError(
                f"{self}: expected finite numbers, a scale that is not 0, or one of {', '.join(MEASURED)}."
            )

    def __call__(self, reward: Reward) -> Reward:
        """Apply the rule to rewards of a dataset: a number, an array or a tensor of any shape; its type is kept.

        Raises:
            ValueError: if the scale is still to be taken from a dataset.
        """
        if isinstance(self.scale, str):
            raise ValueError("This rule takes its scale from a dataset: call resolve(episode_returns) first.")
        return reward * self.scale + self.shift  # pyright: ignore[reportReturnType]

    def online(self, reward: Reward, before: float) -> Reward:
        """Apply the rule to the reward of a step that was played.

        Args:
            reward: raw, of any shape.
            before: sum of the episode's raw rewards before it.

        Examples:
            >>> RewardRule(0.25)(1.0), RewardRule(0.25, running_sum=True).online(1.0, before=2.0)
            (0.25, 0.75)
        """
        return self(reward + before if self.running_sum else reward)

    def of_episode(self, rewards: torch.Tensor) -> torch.Tensor:
        """Apply the rule to the raw rewards ``[T]`` of an episode that was played from its beginning."""
        return self(rewards.cumsum(0) if self.running_sum else rewards)

    def resolve(self, episode_returns: Sequence[float], largest_reward: float) -> RewardRule:
        """Return the rule with its scale as a number.

        Args:
            episode_returns: undiscounted raw returns of the dataset's episodes.
            largest_reward: of the dataset's rows, raw.
        """
        if self.scale == "return_range":
            return replace(self, scale=return_range_scale(episode_returns))
        return replace(self, scale=largest_reward_scale(largest_reward)) if isinstance(self.scale, str) else self


def largest_reward_scale(largest: float) -> float:
    """Reward scale of LAPO's locomotion tasks, 1 / r_max, with ``largest`` the largest raw reward of the dataset.

    Raises:
        ValueError: if it is not positive.

    Examples:
        >>> largest_reward_scale(4.0)
        0.25
    """
    if not 0.0 < largest < np.inf:
        raise ValueError(
            f"scale=largest_reward divides by the largest reward of the dataset, which is {largest:.6g}; expected a"
            " positive one. Give task.reward.scale as a number."
        )
    return 1.0 / largest


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


def far_rewards(reward: torch.Tensor) -> torch.Tensor:
    """Mark rewards that lie :data:`FAR` times beyond the rest and are rare (at most a tenth): fill values, faults.

    A goal's reward among zeros is none of them, and none is at most :data:`ORDINARY`. Rewards that are not finite are
    always marked.

    Args:
        reward: of any shape.

    Returns:
        A mask of that shape.

    Examples:
        >>> import torch
        >>> far_rewards(torch.tensor([1.0] * 20 + [-9.97e36])).nonzero().flatten()
        tensor([20])
    """
    size = reward.abs()
    far = ~size.isfinite()
    while True:  # once for each cluster of them, and once more
        largest = size.masked_fill(far, 0.0).amax() if size.numel() else size.sum()
        if float(largest) <= ORDINARY:
            return far
        beyond = ~far & (size > largest / FAR)
        rest = ~far & ~beyond
        if not bool((beyond.sum() * 10 <= rest.sum()) & (size.masked_fill(~rest, 0.0) > 0).any()):
            return far
        far = far | beyond


def warn_of_far_rewards(reward: torch.Tensor, dataset_id: str) -> None:
    """Warn of the rewards ``[D, 1]`` of a dataset that :func:`far_rewards` marks.

    Warns:
        UserWarning: with their number, the first of their rows, and how large the others are.
    """
    far = far_rewards(reward).flatten()
    if bool(far.any()):
        values = reward.flatten()
        first = int(far.int().argmax())
        warnings.warn(
            f"Dataset '{dataset_id}': {int(far.sum())} of {len(values)} rewards lie many orders of magnitude beyond the"
            f" rest, the first one {float(values[first]):.4g} in row {first}; the others reach"
            f" {float(values[~far].abs().amax()):.4g}. A fill value? Updates with them are left out, or swamp all"
            " others: correct them in the dataset.",
            stacklevel=5,
        )
