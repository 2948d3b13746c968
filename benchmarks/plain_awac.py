"""AWAC in plain PyTorch: the form of d3rlpy, with two critics and all networks 2x256."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from .data import ACTION_DIM, OBSERVATION_DIM
from .plain_networks import Batch, adam, bootstrap, follow, minimise, mlp, values

RATE, WEIGHT_DECAY = 3e-4, 1e-4


class PlainAWAC:
    """Order of the steps: critics, policy, targets."""

    def __init__(self) -> None:
        self.policy = mlp(OBSERVATION_DIM, 256, 256, ACTION_DIM)
        self.log_std = nn.Parameter(torch.zeros(ACTION_DIM))
        self.critics = [mlp(OBSERVATION_DIM + ACTION_DIM, 256, 256, 1) for _ in range(2)]
        self.targets = copy.deepcopy(self.critics)
        self.policy_adam = adam(RATE, self.policy, also=[self.log_std], decay=WEIGHT_DECAY)
        self.critic_adam = adam(RATE, *self.critics)

    def distribution(self, s: Tensor) -> Normal:
        """The policy's, before it is clipped."""
        mean = torch.tanh(self.policy(s))
        return Normal(mean, (-6 + 6 * self.log_std.sigmoid()).exp().expand_as(mean))

    def sample(self, s: Tensor) -> Tensor:
        """One action a state."""
        return self.distribution(s).sample().clamp(-1.0, 1.0)

    def update(self, batch: Batch) -> None:
        """Take one step of everything."""
        s, a, r, next_s, alive = batch
        with torch.no_grad():
            target = bootstrap(r, alive, values(self.targets, next_s, self.sample(next_s)).amin(0))
        minimise((values(self.critics, s, a) - target).square().mean(1).sum(), self.critic_adam)
        with torch.no_grad():
            advantage = values(self.critics, s, a).amin(0) - values(self.critics, s, self.sample(s)).amin(0)
            weight = advantage.softmax(0) * len(advantage)
        log_prob = self.distribution(s).log_prob(a).sum(-1)
        minimise(-(weight * log_prob).sum(), self.policy_adam)
        follow(self.targets, self.critics)
