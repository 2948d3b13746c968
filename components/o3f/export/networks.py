"""A policy's network as plain PyTorch: no tensordict, no distribution, and weights under short names."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.modules import LatentPolicy
from o3f.modules.gaussian_policy import TanhMeanGaussian
from o3f.modules.latent_networks import LatentActor, LatentDecoder
from o3f.modules.tanh_gaussian_policy import TanhGaussian


class GaussianNetwork(nn.Module):
    """``tanh(layers(s))``, and around it a Gaussian of one spread for all states (IQL, AWAC, behaviour cloning).

    Args:
        network: of :func:`o3f.modules.gaussian_policy`; its layers are copied, without dropout.
    """

    stochastic = True
    std: Tensor

    def __init__(self, network: TanhMeanGaussian) -> None:
        super().__init__()
        self.layers = _without_dropout(network.mean)
        self.squash_mean = getattr(network, "squash_mean", True)
        self.register_buffer("std", network.bounded_log_std().exp().detach().clone())

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the action ``[B, A]`` in [-1, 1]: the mean, or with ``noise`` ``[B, A]`` a sample, clipped."""
        mean: Tensor = self.layers(observation)
        mean = torch.tanh(mean) if self.squash_mean else mean
        return (mean if noise is None else mean + self.std * noise).clamp(-1.0, 1.0)


class SquashedNetwork(nn.Module):
    """``tanh(u)``, where the first half of ``layers(s)`` is the mean of u, the second the log of its spread (SAC, CQL).

    Args:
        network: of :func:`o3f.modules.tanh_gaussian_policy`; its layers are copied.
    """

    stochastic = True

    def __init__(self, network: TanhGaussian) -> None:
        super().__init__()
        self.layers = _without_dropout(network.network)
        self.log_std_bounds = network.log_std_bounds

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the action ``[B, A]`` in [-1, 1]: ``tanh`` of the mean, or with ``noise`` ``[B, A]`` a sample."""
        loc, log_std = self.layers(observation).chunk(2, -1)
        return torch.tanh(loc if noise is None else loc + log_std.clamp(*self.log_std_bounds).exp() * noise)


class LatentNetwork(nn.Module):
    """The action that a decoder makes of an actor's latent, clipped to [-1, 1] (LAPO); both hold their z-scores.

    Args:
        actor: ``[B, O] -> [B, Z]``, copied.
        decoder: ``[B, O], [B, Z] -> [B, A]``, copied.
    """

    stochastic = False

    def __init__(self, actor: LatentActor, decoder: LatentDecoder) -> None:
        super().__init__()
        self.actor = deepcopy(actor)
        self.decoder = deepcopy(decoder)

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the action ``[B, A]``, the same one with any ``noise``."""
        return self.decode(observation, self.actor(observation))

    def decode(self, observation: Tensor, latent: Tensor) -> Tensor:
        """Return the action ``[*B, A]`` of a latent ``[*B, Z]``."""
        return self.decoder.forward(observation, latent).clamp(-1.0, 1.0)


class WrittenAction(nn.Module):
    """The deterministic action of a policy of any other kind, copied; weights keep the names that they have there.

    Args:
        policy: writes ``action`` ``[*B, A]`` from ``observation`` ``[*B, O]`` alone.
    """

    stochastic = True

    def __init__(self, policy: TensorDictModuleBase) -> None:
        super().__init__()
        self.policy = deepcopy(policy)

    def forward(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the action ``[B, A]``; how this policy samples is not known, so there is no ``noise``."""
        assert noise is None
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            action: Tensor = self.policy(TensorDict({"observation": observation}, []))["action"]
        return action


def plain_policy(policy: TensorDictModuleBase) -> nn.Module:
    """Copy a policy's network to the CPU: ``observation [B, O] -> action [B, A]`` in [-1, 1], without gradients."""
    found = [part for part in policy.modules() if isinstance(part, TanhMeanGaussian | TanhGaussian)]
    network: nn.Module = WrittenAction(policy)
    if isinstance(policy, LatentPolicy):
        actor, decoder = policy.actor.module, policy.decoder.module
        if isinstance(actor, LatentActor) and isinstance(decoder, LatentDecoder):
            network = LatentNetwork(actor, decoder)
    elif len(found) == 1 and isinstance(found[0], TanhMeanGaussian):
        network = GaussianNetwork(found[0])
    elif len(found) == 1 and isinstance(found[0], TanhGaussian):
        network = SquashedNetwork(found[0])
    return network.cpu().eval().requires_grad_(False)


def _without_dropout(layers: nn.Module) -> nn.Sequential:
    kept: list[Any] = [deepcopy(layer) for layer in layers.children() if not isinstance(layer, nn.Dropout)]
    return nn.Sequential(*kept)
