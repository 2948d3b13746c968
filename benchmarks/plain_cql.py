"""Conservative Q-learning in plain PyTorch: ten proposals a source, two critics, no multiplier."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from .data import ACTION_DIM, OBSERVATION_DIM
from .plain_networks import Batch, adam, bootstrap, follow, minimise, mlp, values

PROPOSALS, WEIGHT = 10, 5.0
ACTOR_RATE, CRITIC_RATE = 1e-4, 3e-4


class PlainCQL:
    """Order of the steps: temperature, critics, policy, targets."""

    def __init__(self) -> None:
        self.policy = mlp(OBSERVATION_DIM, 256, 256, 2 * ACTION_DIM)
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.critics = [mlp(OBSERVATION_DIM + ACTION_DIM, 256, 256, 1) for _ in range(2)]
        self.targets = copy.deepcopy(self.critics)
        self.policy_adam = adam(ACTOR_RATE, self.policy)
        self.alpha_adam = adam(ACTOR_RATE, also=[self.log_alpha])
        self.critic_adam = adam(CRITIC_RATE, *self.critics)

    def draw(self, s: Tensor, *count: int) -> tuple[Tensor, Tensor]:
        """Actions ``[*count, *B, A]`` and their log-densities, with gradients."""
        mean, log_std = self.policy(s).chunk(2, -1)
        normal = Normal(mean, log_std.clamp(-5.0, 2.0).exp())
        u = normal.rsample(torch.Size(count))
        log_slope = 2 * (math.log(2.0) - u - F.softplus(-2 * u))
        return torch.tanh(u), (normal.log_prob(u) - log_slope).sum(-1)

    @torch.no_grad()
    def propose(self, s: Tensor, next_s: Tensor) -> tuple[Tensor, Tensor]:
        """Actions ``[3 n, B, A]`` and log-densities ``[3 n, B]``: policy at s and s', uniform."""
        drawn, log_prob = self.draw(torch.stack([s, next_s]), PROPOSALS)
        uniform = 2 * torch.rand(len(s), PROPOSALS, ACTION_DIM).transpose(0, 1) - 1
        density = torch.full((PROPOSALS, len(s)), -ACTION_DIM * math.log(2.0))
        return torch.cat([drawn.flatten(0, 1), uniform]), torch.cat([log_prob.flatten(0, 1), density])

    def update(self, batch: Batch) -> None:
        """Take one step of everything."""
        s, a, r, next_s, alive = batch
        action, log_prob = self.draw(s)
        minimise(-(self.log_alpha * (log_prob.detach() - ACTION_DIM)).mean(), self.alpha_adam)

        proposals, density = self.propose(s, next_s)
        q = values(self.critics, s, a)
        proposed = values(self.critics, s.expand(len(proposals), -1, -1), proposals)
        gap = (proposed - density).logsumexp(1) - q
        with torch.no_grad():
            best = torch.tanh(self.policy(next_s).chunk(2, -1)[0])
            target = bootstrap(r, alive, values(self.targets, next_s, best).amin(0))
        minimise((q - target).square().mean(1).sum() + WEIGHT * gap.mean(), self.critic_adam)

        value = values(self.critics, s, action).amin(0)
        minimise((self.log_alpha.exp().detach() * log_prob - value).mean(), self.policy_adam)
        follow(self.targets, self.critics)
