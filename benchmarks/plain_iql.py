"""Implicit Q-learning in plain PyTorch, any number of critics."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from .data import ACTION_DIM, OBSERVATION_DIM
from .plain_networks import Batch, adam, bootstrap, follow, minimise, mlp, values

EXPECTILE, TEMPERATURE, RATE = 0.7, 3.0, 3e-4


class PlainIQL:
    """Order of the steps: V, policy, critics, targets."""

    def __init__(self, num_critics: int) -> None:
        self.policy = mlp(OBSERVATION_DIM, 256, 256, ACTION_DIM)
        self.log_std = nn.Parameter(torch.zeros(ACTION_DIM))
        self.value = mlp(OBSERVATION_DIM, 256, 256, 1)
        self.critics = [mlp(OBSERVATION_DIM + ACTION_DIM, 256, 256, 1) for _ in range(num_critics)]
        self.targets = copy.deepcopy(self.critics)
        self.value_adam = adam(RATE, self.value)
        self.policy_adam = adam(RATE, self.policy, also=[self.log_std])
        self.critic_adam = adam(RATE, *self.critics)

    def log_prob(self, s: Tensor, a: Tensor) -> Tensor:
        """Log-density ``[B]`` of actions."""
        std = self.log_std.clamp(-5.0, 2.0).exp()
        return Normal(torch.tanh(self.policy(s)), std).log_prob(a).sum(-1)

    def update(self, batch: Batch) -> None:
        """Take one step of everything."""
        s, a, r, next_s, alive = batch
        with torch.no_grad():
            q = values(self.targets, s, a).amin(0)
        u = q - self.value(s).squeeze(-1)
        minimise((torch.where(u > 0, EXPECTILE, 1 - EXPECTILE) * u**2).mean(), self.value_adam)
        with torch.no_grad():
            weight = (TEMPERATURE * (q - self.value(s).squeeze(-1))).exp().clamp_max(100.0)
            target = bootstrap(r, alive, self.value(next_s).squeeze(-1))
        minimise(-(weight * self.log_prob(s, a)).mean(), self.policy_adam)
        minimise((values(self.critics, s, a) - target).square().mean(1).sum(), self.critic_adam)
        follow(self.targets, self.critics)
