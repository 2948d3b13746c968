"""LAPO in plain PyTorch with its original settings; states and actions are z-scores already."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from .data import ACTION_DIM, OBSERVATION_DIM
from .plain_networks import Batch, adam, bootstrap, follow, minimise, mlp, values

HIDDEN = (256, 256, 256)
LATENT = 2 * ACTION_DIM
MAX_LATENT, RATE, ADVANTAGE_WEIGHT = 2.0, 2e-4, 0.9
NOISE, NOISE_CLIP = 0.1, 0.2


class PlainLAPO:
    """Order of the steps: critics and V, autoencoder, latent actor, targets.

    Args:
        low: the smallest value there can be.
        high: the largest one.
    """

    def __init__(self, low: float, high: float) -> None:
        self.bounds = low, high
        self.actor = mlp(OBSERVATION_DIM, *HIDDEN, LATENT)
        self.encoder = mlp(OBSERVATION_DIM + ACTION_DIM, *HIDDEN, 2 * LATENT)
        self.decoder = mlp(OBSERVATION_DIM + LATENT, *HIDDEN, ACTION_DIM)
        self.value = mlp(OBSERVATION_DIM, *HIDDEN, 1)
        self.critics = [mlp(OBSERVATION_DIM + ACTION_DIM, *HIDDEN, 1) for _ in range(2)]
        self.targets = copy.deepcopy(self.critics)
        self.target_actor, self.target_decoder = copy.deepcopy([self.actor, self.decoder])
        self.critic_adam = adam(RATE, *self.critics, self.value)
        self.vae_adam = adam(RATE, self.encoder, self.decoder)
        self.actor_adam = adam(RATE, self.actor)

    def act(self, actor: torch.nn.Module, s: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """What the target decoder makes of an actor's latents."""
        latent = MAX_LATENT * torch.tanh(actor(s)) + noise
        action: Tensor = self.target_decoder(torch.cat([s, latent], -1))
        return action

    def update(self, batch: Batch) -> None:
        """Take one step of everything."""
        s, a, r, next_s, alive = batch
        with torch.no_grad():
            noise = (NOISE * torch.randn(len(s), LATENT)).clamp(-NOISE_CLIP, NOISE_CLIP)
            goal = values(self.targets, s, self.act(self.target_actor, s, noise)).amin(0).clamp(*self.bounds)
            target = bootstrap(r, alive, self.value(next_s).squeeze(-1))
        critic_loss = (values(self.critics, s, a) - target).square().mean(1).sum()
        value_loss = (self.value(s).squeeze(-1) - goal).square().mean()
        minimise(critic_loss + value_loss, self.critic_adam)

        with torch.no_grad():
            following = values(self.targets, next_s, self.act(self.target_actor, next_s)).amin(0)
            advantage = bootstrap(r, alive, following) - self.value(s).squeeze(-1)
            weight = torch.where(advantage > 0, ADVANTAGE_WEIGHT, 1 - ADVANTAGE_WEIGHT)
        minimise((weight * self.elbo(s, a)).mean(), self.vae_adam)
        minimise(-values(self.critics[:1], s, self.act(self.actor, s)).mean(), self.actor_adam)
        follow([*self.targets, self.target_actor, self.target_decoder], [*self.critics, self.actor, self.decoder])

    def elbo(self, s: Tensor, a: Tensor) -> Tensor:
        """The autoencoder's loss of each row ``[B]``."""
        mean, log_variance = self.encoder(torch.cat([s, a], -1)).chunk(2, -1)
        latent = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        error = (self.decoder(torch.cat([s, latent], -1)) - a).square().sum(-1)
        divergence: Tensor = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1)
        return error + divergence
