"""What the plain learners share: one nn.Sequential a network, default Adam, contiguous arrays, index sampling."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .data import DISCOUNT, TAU, Columns

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Arrays:
    """Columns in memory; a batch is state, action, reward ``[B]``, next state and alive ``[B]`` (1 or 0)."""

    def __init__(self, columns: Columns) -> None:
        alive = ~columns["terminated"][:, 0]
        parts = (columns["observation"], columns["action"], columns["reward"][:, 0], columns["next_observation"], alive)
        self.columns = [torch.as_tensor(part, dtype=torch.float32) for part in parts]

    def sample(self, size: int) -> Any:
        """Draw rows with replacement."""
        index = torch.randint(len(self.columns[0]), (size,))
        return tuple(column[index] for column in self.columns)


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for fan_in, width in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(fan_in, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def adam(rate: float, *networks: nn.Module, also: Sequence[nn.Parameter] = (), decay: float = 0.0) -> Any:
    """Torch's Adam as it comes."""
    parameters = [p for network in networks for p in network.parameters()]
    return torch.optim.Adam([*parameters, *also], lr=rate, weight_decay=decay)


def minimise(loss: Tensor, optimiser: Any) -> None:
    """Take one step."""
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


@torch.no_grad()
def follow(targets: Iterable[nn.Module], networks: Iterable[nn.Module], rate: float = TAU) -> None:
    """Take a Polyak step, one parameter after another."""
    for target, network in zip(targets, networks, strict=True):
        for old, new in zip(target.parameters(), network.parameters(), strict=True):
            old.lerp_(new, rate)


def values(critics: Iterable[nn.Module], s: Tensor, a: Tensor) -> Tensor:
    """What each critic says, ``[m, *B]``."""
    sa = torch.cat([s, a], -1)
    return torch.stack([critic(sa).squeeze(-1) for critic in critics])


def bootstrap(reward: Tensor, alive: Tensor, next_value: Tensor) -> Tensor:
    """The critics' target ``[B]``."""
    return reward + DISCOUNT * alive * next_value
