"""Networks shared by the tests of LAPO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from o3f.modules import (
    EnsembleQValue,
    Normaliser,
    latent_actor,
    latent_decoder,
    latent_encoder,
    value_network,
)
from o3f.objectives import LAPOLoss
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, make_batch

LATENT_DIM = 2 * ACTION_DIM
LOSSES = ("loss_actor", "loss_qvalue", "loss_vae", "loss_value")


def make_networks(num_critics: int, hidden: Sequence[int]) -> tuple[Any, ...]:
    value = value_network(OBSERVATION_DIM, hidden, init="default")
    value.module.insert(0, Normaliser(OBSERVATION_DIM, ["observation"]))
    return (
        latent_actor(OBSERVATION_DIM, LATENT_DIM, hidden),
        latent_encoder(OBSERVATION_DIM, ACTION_DIM, LATENT_DIM, hidden),
        latent_decoder(OBSERVATION_DIM, ACTION_DIM, LATENT_DIM, hidden),
        EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, num_critics, hidden, init="default", normalise=True),
        value,
    )


def make_loss(num_critics: int = 5, hidden: Sequence[int] = (8, 8), *, fitted: bool = True, **kwargs: Any) -> LAPOLoss:
    """A loss with targets that differ from the networks, and statistics of some dataset."""
    torch.manual_seed(0)
    loss = LAPOLoss(*make_networks(num_critics, hidden), **kwargs)
    loss.update_targets(1.0)
    if fitted:
        loss.fit_normalisers(make_batch(50, seed=9))
    with torch.no_grad():
        for name in ("actor", "decoder", "qvalue"):
            for target in getattr(loss, f"target_{name}_network_params").values(True, True):
                if not any(target is buffer for buffer in statistics(loss)):
                    target.mul_(0.9)
    return loss


def statistics(loss: LAPOLoss) -> list[Tensor]:
    """All statistics that the networks and targets of a loss hold."""
    networks = [value for name, value in vars(loss).items() if name.endswith("_network")]
    return [b for network in networks for part in normalisers(network) for b in (part.loc, part.scale)]


def normalisers(network: nn.Module) -> list[Normaliser]:
    return [part for part in network.modules() if isinstance(part, Normaliser)]


# ------------------------------------------------------------------- a numeric example with weights by formula


def weight(out: int, width: int, k: int) -> Tensor:
    """W[o, i] = 3 sin(0.7 (o + 1) + 1.3 (i + 1) + k) / sqrt(width)."""
    o, i = torch.meshgrid(torch.arange(out), torch.arange(width), indexing="ij")
    return 3 * torch.sin(0.7 * (o + 1).double() + 1.3 * (i + 1).double() + k) / math.sqrt(width)


def bias(out: int, k: int) -> Tensor:
    return 0.1 * torch.cos(torch.arange(out).double() + k)


@torch.no_grad()
def fill(network: nn.Module, k: int) -> None:
    """Fill the linear layers of a network by formula, the first one having number k."""
    linears = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    for number, linear in enumerate(linears, start=k):
        linear.weight.copy_(weight(linear.out_features, linear.in_features, number))
        linear.bias.copy_(bias(linear.out_features, number))


@torch.no_grad()
def example_loss() -> LAPOLoss:
    torch.manual_seed(0)
    actor, encoder, decoder, critic, value = make_networks(2, (256, 256, 256))
    fill(actor, 0)
    fill(encoder, 0)
    head = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)][-1]
    head.weight.copy_(torch.cat([weight(LATENT_DIM, 256, 3), weight(LATENT_DIM, 256, 4)]))
    head.bias.copy_(torch.cat([bias(LATENT_DIM, 3), bias(LATENT_DIM, 4)]))
    fill(decoder, 5)
    for layer, (stack, shift) in enumerate(zip(critic.weights, critic.biases, strict=True)):
        for member in range(2):
            stack[member] = weight(stack.shape[2], stack.shape[1], 4 * member + layer).T
            shift[member, 0] = bias(stack.shape[2], 4 * member + layer)
    fill(value, 8)
    return LAPOLoss(
        actor,
        encoder,
        decoder,
        critic,
        value,
        subset_size=None,
        min_weight=0.7,
        kl_weight=0.3,
        value_clamp="fixed",
        value_bounds=(-0.05, 0.5),
        actor_aggregation="first",
    )


def table(width: int, function: Any) -> Tensor:
    """Four rows of ``function(row, column)``."""
    b, j = torch.meshgrid(torch.arange(4.0).double(), torch.arange(float(width)).double(), indexing="ij")
    return function(b, j).to(torch.get_default_dtype())


def example_batch() -> TensorDict:
    following = {
        "observation": table(3, lambda b, j: torch.sin(b + 1.2 + 0.5 * j)),
        "reward": torch.tensor([[0.0], [1.0], [0.5], [-0.2]]),
        "done": torch.tensor([[False], [False], [True], [False]]),
        "terminated": torch.tensor([[False], [False], [True], [False]]),
    }
    entries = {
        "observation": table(3, lambda b, j: torch.sin(b + 1 + 0.5 * j)),
        "action": table(2, lambda b, j: torch.cos(0.3 * b + 0.7 * j)),
        "next": TensorDict(following, [4]),
    }
    return TensorDict(entries, [4])
