"""A bandit with one continuous action, to see what a critic says where it has no data.

Every episode is one step; the reward is the action. The data cover actions from -0.8 to 0, so the truth keeps
rising beyond them.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

COVERED = (-0.8, 0.0)
OBSERVATION_DIM = ACTION_DIM = 1


def reward(action: Tensor) -> Tensor:
    """The truth, ``[*B, 1] -> [*B, 1]``."""
    return action.clone()


def make_rows(count: int, seed: int = 0) -> TensorDict:
    """Transitions ``[count]`` of a behaviour policy that is uniform over the covered actions."""
    generator = torch.Generator().manual_seed(seed)
    low, high = COVERED
    action = low + (high - low) * torch.rand(count, 1, generator=generator)
    over = torch.ones(count, 1, dtype=torch.bool)
    following = {
        "observation": torch.zeros(count, 1),
        "reward": reward(action),
        "done": over,
        "terminated": over,
        "truncated": ~over,
    }
    return TensorDict(
        {"observation": torch.zeros(count, 1), "action": action, "next": TensorDict(following, [count])}, [count]
    )


def grid(low: float, high: float, count: int = 33) -> Tensor:
    """Actions ``[count, 1]`` from ``low`` to ``high``."""
    return torch.linspace(low, high, count).unsqueeze(-1)


@torch.no_grad()
def mean_values(critic: Any, action: Tensor) -> Tensor:
    """What the critics say on average, ``[N, 1] -> [N]``."""
    rows = TensorDict({"observation": torch.zeros_like(action), "action": action}, action.shape[:1])
    values: Tensor = critic(rows)["state_action_value"].mean(-1)
    return values


def rank_agreement(values: Tensor, action: Tensor) -> float:
    """Share of pairs of actions that ``values`` ``[N]`` puts in the order of the truth: 1 right, 0 inverted."""
    truth = reward(action).squeeze(-1)
    first, second = torch.triu_indices(len(truth), len(truth), offset=1)
    agree = (values[first] - values[second]).sign() == (truth[first] - truth[second]).sign()
    return agree.float().mean().item()
