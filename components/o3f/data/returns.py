"""Monte-Carlo returns of rows, for critics that are calibrated by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tensordict import TensorDictBase
from torch import Tensor

from o3f.data.rows import RETURN_KEY
from o3f.errors import number

Floats = npt.NDArray[np.float64]


def discounted_returns(rewards: Floats, discount: float, rest: float = 0.0) -> Floats:
    r"""Discounted sums to the end of the episode, :math:`G_t = \sum_{k \ge t} \gamma^{k - t} r_k + \gamma^{T - t} R`.

    Args:
        rewards: ``[T]``.
        discount: gamma.
        rest: R, the return after the last step.

    Examples:
        >>> discounted_returns(np.array([1.0, 0.0, 4.0]), 0.5).tolist()
        [2.0, 2.0, 4.0]
        >>> discounted_returns(np.array([1.0, 0.0, 4.0]), 0.5, rest=8.0).tolist()
        [3.0, 4.0, 8.0]
    """
    returns = np.empty(len(rewards) + 1)
    returns[-1] = rest
    for step in reversed(range(len(rewards))):
        returns[step] = rewards[step] + discount * returns[step + 1]
    return returns[:-1]


@dataclass(frozen=True)
class ReturnRule:
    r"""What the rest of an episode was worth from each of its steps on, at least.

    The discounted sum of the rewards that the learner sees. Behind a terminal step there is nothing. What would have
    come behind a truncated one is not known: it counts as ``lowest`` for ever, :math:`\text{lowest} / (1 - \gamma)`, so
    that no return is higher than it was. That is nothing where no reward is below 0, as Cal-QL's code has it, and where
    every reward of an episode is -1 it gives its steps -1 / (1 - gamma), as there.

    Args:
        discount: gamma.
        lowest: the least reward of a step that was seen, or 0 if that is less.

    Raises:
        ValueError: if the discount is not in [0, 1), or ``lowest`` is above 0.
    """

    discount: float
    lowest: float = 0.0

    def __post_init__(self) -> None:
        number("discount", self.discount, "[0, 1)")
        number("lowest", self.lowest, "(-inf, 0]")

    @classmethod
    def of(cls, rows: TensorDictBase, discount: float) -> ReturnRule:
        """Return the rule for the rewards of rows ``[D]``.

        Raises:
            ValueError: if there are none.
        """
        if not len(rows):
            raise ValueError("There are no rows to take the lowest reward of: give those of a dataset.")
        return cls(discount, min(0.0, float(rows["next", "reward"].min())))

    def __call__(self, rewards: Tensor, terminated: bool) -> Tensor:
        """Return the returns ``[T]`` of an episode's steps, or of its last T ones.

        Args:
            rewards: as the learner sees them, ``[T]``.
            terminated: whether the last step is a terminal one.
        """
        lowest = min(self.lowest, float(rewards.min())) if len(rewards) else self.lowest
        rest = 0.0 if terminated else lowest / (1.0 - self.discount)
        returns = discounted_returns(rewards.double().numpy(), self.discount, rest)
        return torch.from_numpy(returns).to(rewards.dtype)

    def fill(self, rows: TensorDictBase) -> None:
        """Write the returns of whole episodes, one after the other in rows ``[D]``."""
        following: Any = rows["next"]
        ends = following["done"].flatten().clone()
        ends[-1:] = True
        begin = 0
        for end in (ends.nonzero().flatten() + 1).tolist():
            reward, terminated = following["reward"][begin:end], following["terminated"][end - 1]
            returns = self(reward.flatten(), bool(terminated))
            rows[RETURN_KEY][begin:end] = returns.unsqueeze(-1)
            begin = end
