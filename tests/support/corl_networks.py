"""CORL's networks by their published names and arithmetic, in plain PyTorch: what the adapter is compared with."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from o3f.adapters.tensors import flat

OBSERVATIONS, ACTIONS = 3, 2
MEAN, STD = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.5, 0.7, 3.0])


def layers(*sizes: int) -> nn.Sequential:
    """Linear, ReLU, ..., Linear."""
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def tree(**parts: Any) -> nn.ModuleDict:
    """Networks with names of their own."""
    return nn.ModuleDict(parts)


class Stacked(nn.Module):
    """A linear layer of several critics: weights [m, in, out], biases [m, 1, out]."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(members, 1, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight + self.bias


class Peer:
    """A trainer of CORL: what its ``state_dict`` returns, and what its networks say.

    Observations are standardised outside of the networks. Critics see the environment's actions, in
    [-max_action, max_action]; ours are in [-1, 1].
    """

    max_action = 1.0
    temperature: float | None = None

    def __init__(self) -> None:
        torch.manual_seed(7)
        self.parts = self.build()
        optimiser = torch.optim.Adam([torch.zeros(1, requires_grad=True)]).state_dict()
        self.state: dict[str, Any] = {name: part for name, part in self.parts.items()}
        self.state |= {"actor_optimizer": optimiser, "total_it": 12, "observation_mean": MEAN, "observation_std": STD}
        if self.max_action != 1.0:
            self.state["max_action"] = self.max_action

    @property
    def flat(self) -> dict[str, Tensor]:
        return flat(self.state)

    def build(self) -> dict[str, Any]:
        raise NotImplementedError

    def policy(self, seen: Tensor, action: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def critics(self, inputs: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def says(self, observation: Tensor, action: Tensor) -> dict[str, Tensor]:
        seen = (observation - MEAN) / STD
        values = self.critics(torch.cat([seen, self.max_action * action], -1))
        return {**self.policy(seen, action), "q": values}


class IQL(Peer):
    max_action = 2.0

    def build(self) -> dict[str, Any]:
        actor: Any = tree(net=tree(net=layers(OBSERVATIONS, 5, 4, ACTIONS)))
        actor.register_parameter("log_std", nn.Parameter(torch.tensor([-0.4, 3.0])))  # the second one is clipped
        qf = tree(q1=tree(net=layers(5, 6, 4, 1)), q2=tree(net=layers(5, 6, 4, 1)))
        return {"actor": actor, "qf": qf, "vf": tree(v=tree(net=layers(OBSERVATIONS, 5, 1)))}

    def policy(self, seen: Tensor, action: Tensor) -> dict[str, Tensor]:
        mean = torch.tanh(self.parts["actor"]["net"]["net"](seen))
        std = self.parts["actor"].log_std.clamp(-20, 2).exp().expand_as(mean)
        value = self.parts["vf"]["v"]["net"](seen)
        return {"mean": mean, "std": std, "log_prob": Normal(mean, std).log_prob(action).sum(-1), "value": value}

    def critics(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.parts["qf"][name]["net"](inputs) for name in ("q1", "q2")], -1)


class DeterministicIQL(IQL):
    def build(self) -> dict[str, Any]:
        return {**super().build(), "actor": tree(net=tree(net=layers(OBSERVATIONS, 5, 4, ACTIONS)))}

    def policy(self, seen: Tensor, action: Tensor) -> dict[str, Tensor]:
        return {"mean": torch.tanh(self.parts["actor"]["net"]["net"](seen))}


class TD3BC(Peer):
    def build(self) -> dict[str, Any]:
        actor = tree(net=layers(OBSERVATIONS, 5, 4, ACTIONS))
        return {"critic_1": tree(net=layers(5, 6, 1)), "critic_2": tree(net=layers(5, 6, 1)), "actor": actor}

    def policy(self, seen: Tensor, action: Tensor) -> dict[str, Tensor]:
        return {"mean": torch.tanh(self.parts["actor"]["net"](seen))}

    def critics(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.parts[name]["net"](inputs) for name in ("critic_1", "critic_2")], -1)


class SPOT(TD3BC):
    """TD3+BC's networks, and the VAE that stood in its policy's loss."""

    max_action = 2.0

    def build(self) -> dict[str, Any]:
        vae = tree(encoder_shared=layers(5, 6, 6), mean=nn.Linear(6, 4), log_std=nn.Linear(6, 4))
        return {**super().build(), "vae": vae}


class AWAC(Peer):
    def build(self) -> dict[str, Any]:
        actor: Any = tree(_mlp=layers(OBSERVATIONS, 5, 5, 5, ACTIONS))
        actor.register_parameter("_log_std", nn.Parameter(torch.tensor([-0.4, -7.0])))
        return {"actor": actor, "critic_1": tree(_mlp=layers(5, 6, 1)), "critic_2": tree(_mlp=layers(5, 6, 1))}

    def policy(self, seen: Tensor, action: Tensor) -> dict[str, Tensor]:
        loc = self.parts["actor"]["_mlp"](seen)
        std = self.parts["actor"]._log_std.clamp(-20, 2).exp().expand_as(loc)
        return {"mean": loc.clamp(-1, 1), "loc": loc, "std": std}

    def critics(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.parts[name]["_mlp"](inputs) for name in ("critic_1", "critic_2")], -1)


class SACN(Peer):
    max_action = 0.5
    temperature = 0.25

    def build(self) -> dict[str, Any]:
        trunk = layers(OBSERVATIONS, 5, 5, 5, 1)[:-1]
        actor = tree(trunk=trunk, mu=nn.Linear(5, ACTIONS), log_sigma=nn.Linear(5, ACTIONS))
        critic = nn.Sequential(Stacked(4, 5, 6), nn.ReLU(), Stacked(4, 6, 6), nn.ReLU(), Stacked(4, 6, 1))
        parts = {"actor": actor, "critic": tree(critic=critic), "target_critic": tree(critic=critic)}
        return {**parts, "log_alpha": torch.tensor(0.25).log().item()}

    def policy(self, seen: Tensor, action: Tensor) -> dict[str, Tensor]:
        actor = self.parts["actor"]
        hidden = actor["trunk"](seen)
        loc, std = actor["mu"](hidden), actor["log_sigma"](hidden).clip(-5, 2).exp()
        log_prob = (Normal(loc, std).log_prob(action.atanh()) - torch.log(1 - action**2 + 1e-6)).sum(-1)
        return {"mean": torch.tanh(loc), "loc": loc, "std": std, "log_prob": log_prob}

    def critics(self, inputs: Tensor) -> Tensor:
        values: Tensor = self.parts["critic"]["critic"](inputs.expand(4, -1, -1))
        return values.squeeze(-1).T


class CQL(Peer):
    temperature = 0.5

    def build(self) -> dict[str, Any]:
        def scalar(value: float) -> nn.Module:
            module = nn.Module()
            module.constant = nn.Parameter(torch.tensor(value))
            return module

        actor = tree(base_network=layers(OBSERVATIONS, 5, 5, 2 * ACTIONS))
        actor.update({"log_std_multiplier": scalar(0.7), "log_std_offset": scalar(-1.0)})
        parts = {"actor": actor, "critic1": tree(network=layers(5, 6, 1)), "critic2": tree(network=layers(5, 6, 1))}
        parts["critic1_target"] = tree(network=layers(5, 6, 1))
        return {**parts, "sac_log_alpha": scalar(-0.6931472), "cql_log_alpha": scalar(1.0)}

    def policy(self, seen: Tensor, action: Tensor) -> dict[str, Tensor]:
        actor = self.parts["actor"]
        loc, raw = actor["base_network"](seen).split(ACTIONS, -1)
        std = (actor["log_std_multiplier"].constant * raw + actor["log_std_offset"].constant).clamp(-20, 2).exp()
        dist = TransformedDistribution(Normal(loc, std), TanhTransform(cache_size=1))
        return {"mean": torch.tanh(loc), "loc": loc, "std": std, "log_prob": dist.log_prob(action).sum(-1)}

    def critics(self, inputs: Tensor) -> Tensor:
        return torch.cat([self.parts[name]["network"](inputs) for name in ("critic1", "critic2")], -1)


CORL: dict[str, Callable[[], Peer]] = {
    "iql": IQL,
    "iql_deterministic": DeterministicIQL,
    "td3_bc": TD3BC,
    "spot": SPOT,
    "awac": AWAC,
    "sac_n": SACN,
    "cql": CQL,
}
