"""The networks of LAPO's latent policy: encoder, decoder and an actor that chooses latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey
from tensordict.nn import TensorDictModule
from torch import Tensor, nn

from o3f.errors import number
from o3f.modules.arguments import layer_sizes, whole_number
from o3f.modules.mlp import Init, mlp
from o3f.modules.normalisation import Normaliser
from o3f.modules.tensor_module import TensorModule

Device = torch.device | str | None


class LatentActor(nn.Module):
    """A latent within ``[-max_latent, max_latent]``: ``z = L tanh(mlp(s))``, L = ``max_latent``.

    Args:
        normaliser: of observations.
        network: ``[*B, O] -> [*B, Z]``.
        max_latent: L.
    """

    def __init__(self, normaliser: Normaliser, network: nn.Module, max_latent: float) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.network = network
        self.max_latent = max_latent

    def forward(self, observation: Tensor) -> Tensor:
        """Return the latent ``[*B, Z]``."""
        latent: Tensor = self.max_latent * torch.tanh(self.network(self.normaliser(observation)))
        return latent


class LatentEncoder(nn.Module):
    """Mean and logarithm of the variance of the latents that decode to an action.

    The logarithm is clipped to ±20, so that its exponential is finite for any input; the original does not clip it.

    Args:
        normaliser: of observations and actions, concatenated.
        network: ``[*B, O + A] -> [*B, 2 Z]``.
    """

    def __init__(self, normaliser: Normaliser, network: nn.Module) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.network = network

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance, both ``[*B, Z]``."""
        output = self.network(self.normaliser(torch.cat([observation, action], -1)))
        mean, log_variance = output.chunk(2, -1)
        return mean, log_variance.clamp(-20.0, 20.0)


class LatentDecoder(nn.Module):
    """The action of a latent, in the environment's units and neither squashed nor clipped.

    Args:
        observation_normaliser: of observations.
        action_normaliser: of actions; the network's output is a z-score of these.
        network: ``[*B, O + Z] -> [*B, A]``.
    """

    def __init__(self, observation_normaliser: Normaliser, action_normaliser: Normaliser, network: nn.Module) -> None:
        super().__init__()
        self.observation_normaliser = observation_normaliser
        self.action_normaliser = action_normaliser
        self.network = network

    def forward(self, observation: Tensor, latent: Tensor) -> Tensor:
        """Return the action ``[*B, A]``."""
        output = self.network(torch.cat([self.observation_normaliser(observation), latent], -1))
        return self.action_normaliser.inverse(output)


def latent_actor(
    observation_dim: int,
    latent_dim: int,
    hidden_sizes: Sequence[int] = (256, 256, 256),
    *,
    max_latent: float = 2.0,
    init: Init = "default",
    in_key: NestedKey = "observation",
    out_key: NestedKey = "latent",
    device: Device = None,
) -> TensorDictModule:
    """Build the latent actor: reads ``in_key`` ``[*B, O]``, writes ``out_key`` ``[*B, Z]``.

    Args:
        observation_dim: O.
        latent_dim: Z (LAPO: twice the number of actions).
        hidden_sizes: widths of the hidden layers, the default is LAPO's.
        max_latent: L, the largest entry of a latent (LAPO's scripts: 2).
        init: of every layer, ``"default"`` (LAPO's) or ``"orthogonal"``.
        in_key: the observation's entry.
        out_key: the latent's entry.
        device: where the parameters live.

    Raises:
        ValueError: if ``max_latent`` is not positive, or ``init`` is unknown.
    """
    max_latent = number("max_latent", max_latent, "(0, inf)")
    network = mlp(layer_sizes(observation_dim, hidden_sizes, latent_dim), init=init, device=device)
    actor = LatentActor(Normaliser(observation_dim, [in_key], device), network, max_latent)
    return TensorModule(actor, in_keys=[in_key], out_keys=[out_key])


def latent_encoder(
    observation_dim: int,
    action_dim: int,
    latent_dim: int,
    hidden_sizes: Sequence[int] = (256, 256, 256),
    *,
    init: Init = "default",
    in_key: NestedKey = "observation",
    action_key: NestedKey = "action",
    out_keys: Sequence[NestedKey] = ("latent_mean", "latent_log_variance"),
    device: Device = None,
) -> TensorDictModule:
    """Build the encoder: reads ``in_key`` and ``action_key``, writes ``out_keys``, both ``[*B, Z]``.

    The arguments are those of :func:`latent_decoder`.
    """
    inputs = whole_number("observation_dim", observation_dim) + whole_number("action_dim", action_dim)
    outputs = 2 * whole_number("latent_dim", latent_dim)
    network = mlp(layer_sizes(inputs, hidden_sizes, outputs), init=init, device=device)
    keys = [in_key, action_key]
    encoder = LatentEncoder(Normaliser(inputs, keys, device), network)
    return TensorModule(encoder, in_keys=keys, out_keys=list(out_keys))


def latent_decoder(
    observation_dim: int,
    action_dim: int,
    latent_dim: int,
    hidden_sizes: Sequence[int] = (256, 256, 256),
    *,
    init: Init = "default",
    in_key: NestedKey = "observation",
    latent_key: NestedKey = "latent",
    action_key: NestedKey = "action",
    device: Device = None,
) -> TensorDictModule:
    """Build the decoder: reads ``in_key`` ``[*B, O]`` and ``latent_key`` ``[*B, Z]``, writes ``action_key``.

    Args:
        observation_dim: O.
        action_dim: A.
        latent_dim: Z.
        hidden_sizes: widths of the hidden layers, the default is LAPO's.
        init: of every layer, ``"default"`` (LAPO's) or ``"orthogonal"``.
        in_key: the observation's entry.
        latent_key: the latent's entry.
        action_key: the action's entry, ``[*B, A]``.
        device: where the parameters live.
    """
    inputs = whole_number("observation_dim", observation_dim) + whole_number("latent_dim", latent_dim)
    network = mlp(layer_sizes(inputs, hidden_sizes, action_dim), init=init, device=device)
    normalisers = Normaliser(observation_dim, [in_key], device), Normaliser(action_dim, [action_key], device)
    return TensorModule(LatentDecoder(*normalisers, network), in_keys=[in_key, latent_key], out_keys=[action_key])
