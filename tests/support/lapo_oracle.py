"""LAPO once more, with plain float64 tensors: loops over layers and critics, its own Adam, nothing of the package.

A network is a list of (weight ``[out, in]``, bias ``[out]``) with a ReLU between its layers; the last layer of the
encoder has the mean in its first half and the logarithm of the variance in its second.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

Network = list[list[Tensor]]
Batch = dict[str, Tensor]


def evaluate(network: Network, *inputs: Tensor) -> Tensor:
    x = torch.cat(inputs, 1)
    for weight, bias in network[:-1]:
        x = torch.clamp(x @ weight.T + bias, min=0.0)
    return x @ network[-1][0].T + network[-1][1]


def copy_of(network: Network) -> Network:
    return [[tensor.detach().clone() for tensor in layer] for layer in network]


def follow(target: Network, network: Network, tau: float) -> None:
    for old, new in zip(target, network, strict=True):
        for index in (0, 1):
            old[index] = tau * new[index].detach() + (1 - tau) * old[index]


@dataclass
class Adam:
    """Kingma & Ba, 2015, with bias correction."""

    rate: float
    steps: int = 0
    moments: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def step(self, networks: list[Network], loss: Tensor) -> None:
        places = [(layer, index) for network in networks for layer in network for index in (0, 1)]
        slopes = torch.autograd.grad(loss, [layer[index] for layer, index in places])
        self.steps += 1
        for number, ((layer, index), slope) in enumerate(zip(places, slopes, strict=True)):
            first, second = self.moments.get(number, (torch.zeros_like(slope), torch.zeros_like(slope)))
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            self.moments[number] = first, second
            mean, square = first / (1 - 0.9**self.steps), second / (1 - 0.999**self.steps)
            layer[index] = (layer[index] - self.rate * mean / (square.sqrt() + 1e-8)).detach().requires_grad_()


@dataclass
class Oracle:
    """State of the algorithm; ``statistics`` are mean and scale of states, then of actions."""

    actor: Network
    encoder: Network
    decoder: Network
    critics: list[Network]
    value: Network
    statistics: tuple[Tensor, Tensor, Tensor, Tensor]
    min_weight: float
    kl_weight: float
    advantage_weight: float
    discount: float
    tau: float
    rate: float
    max_latent: float
    first_only: bool
    delay_value: bool
    running: bool
    reward_min: float
    reward_max: float

    def __post_init__(self) -> None:
        for network in (self.actor, self.encoder, self.decoder, *self.critics, self.value):
            for layer in network:
                layer[:] = [tensor.detach().clone().requires_grad_() for tensor in layer]
        self.target_actor, self.target_decoder = copy_of(self.actor), copy_of(self.decoder)
        self.target_critics = [copy_of(critic) for critic in self.critics]
        self.target_value = copy_of(self.value)
        self.critic_adam, self.vae_adam, self.actor_adam = Adam(self.rate), Adam(self.rate), Adam(self.rate)

    # Everything below is in z-scores, as the original is; only the batches come in other units.

    def scaled(self, batch: Batch) -> Batch:
        s_mean, s_scale, a_mean, a_scale = self.statistics
        states = {name: (batch[name] - s_mean) / s_scale for name in ("s", "next_s")}
        return {**batch, **states, "a": (batch["a"] - a_mean) / a_scale}

    def latent(self, actor: Network, s: Tensor) -> Tensor:
        return self.max_latent * torch.tanh(evaluate(actor, s))

    def extremes(self, s: Tensor, a: Tensor, members: list[int]) -> Tensor:
        values = [evaluate(self.target_critics[j], s, a)[:, 0] for j in members]
        low, high = values[0], values[0]
        for value in values[1:]:
            low, high = torch.minimum(low, value), torch.maximum(high, value)
        return self.min_weight * low + (1 - self.min_weight) * high

    def update(
        self, batches: list[Batch], noises: list[Tensor], subsets: list[list[int]], vae_noise: Tensor
    ) -> dict[str, float]:
        figures: dict[str, float] = {}
        for index, (batch, noise, members) in enumerate(zip(batches, noises, subsets[:-1], strict=True)):
            if index:
                self.critics_follow()
            figures = self.critic_step(self.scaled(batch), noise, members)
        last = self.scaled(batches[-1])
        advantage = self.advantage(last, subsets[-1])
        figures["advantage/mean"] = float(advantage.mean())
        figures["loss/vae"] = self.vae_step(last, advantage, vae_noise)
        figures["loss/actor"] = self.actor_step(last)
        self.critics_follow()
        follow(self.target_actor, self.actor, self.tau)
        follow(self.target_decoder, self.decoder, self.tau)
        return figures

    def critics_follow(self) -> None:
        for target, critic in zip(self.target_critics, self.critics, strict=True):
            follow(target, critic, self.tau)
        follow(self.target_value, self.value, self.tau)

    def critic_step(self, batch: Batch, noise: Tensor, members: list[int]) -> dict[str, float]:
        s, a, r = batch["s"], batch["a"], batch["r"]
        bootstrap = self.target_value if self.delay_value else self.value
        y = (r + self.discount * (1 - batch["terminated"]) * evaluate(bootstrap, batch["next_s"])[:, 0]).detach()
        z = self.latent(self.target_actor, s) + torch.clamp(0.1 * noise, -0.2, 0.2)
        goal = self.extremes(s, evaluate(self.target_decoder, s, z), members)
        if self.running:
            self.reward_min = min(self.reward_min, float(r.min()))
            self.reward_max = max(self.reward_max, float(r.max()))
        low, high = self.reward_min / (1 - self.discount), self.reward_max / (1 - self.discount)
        goal = torch.clamp(goal, low, high).detach()
        loss_value = ((evaluate(self.value, s)[:, 0] - goal) ** 2).mean()
        loss_critic = torch.zeros(())
        for critic in self.critics:
            loss_critic = loss_critic + ((evaluate(critic, s, a)[:, 0] - y) ** 2).mean()
        self.critic_adam.step([*self.critics, self.value], loss_value + loss_critic)
        return {"loss/value": loss_value.item(), "loss/critic": loss_critic.item()}

    def advantage(self, batch: Batch, members: list[int]) -> Tensor:
        s, next_s = batch["s"], batch["next_s"]
        a = evaluate(self.target_decoder, next_s, self.latent(self.target_actor, next_s))
        following = self.extremes(next_s, a, members)
        target = batch["r"] + self.discount * (1 - batch["terminated"]) * following
        return (target - evaluate(self.value, s)[:, 0]).detach()

    def vae_step(self, batch: Batch, advantage: Tensor, noise: Tensor) -> float:
        mean, log_variance = evaluate(self.encoder, batch["s"], batch["a"]).chunk(2, 1)
        z = mean + torch.exp(log_variance / 2) * noise
        errors = ((evaluate(self.decoder, batch["s"], z) - batch["a"]) ** 2).sum(1)
        divergences = -0.5 * (1 + log_variance - mean**2 - torch.exp(log_variance)).sum(1)
        total = torch.zeros(())
        for a, error, divergence in zip(advantage, errors, divergences, strict=True):
            weight = self.advantage_weight if a > 0 else 1 - self.advantage_weight
            total = total + weight * (error + self.kl_weight * divergence)
        loss = total / len(advantage)
        self.vae_adam.step([self.encoder, self.decoder], loss)
        return loss.item()

    def actor_step(self, batch: Batch) -> float:
        a = evaluate(self.target_decoder, batch["s"], self.latent(self.actor, batch["s"]))
        critics = self.critics[:1] if self.first_only else self.critics
        loss = -sum(evaluate(critic, batch["s"], a).mean() for critic in critics) / len(critics)
        assert isinstance(loss, Tensor)
        self.actor_adam.step([self.actor], loss)
        return loss.item()
