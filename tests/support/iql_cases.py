"""Batches and networks shared by the tests of IQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn

from o3f.modules import EnsembleQValue

OBSERVATION_DIM, ACTION_DIM = 3, 2


@contextmanager
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def make_batch(*shape: int, seed: int = 0) -> TensorDict:
    """Random transitions: some terminated, some truncated, some neither."""
    generator = torch.Generator().manual_seed(seed)

    def normal(width: int) -> Tensor:
        return torch.randn(*shape, width, generator=generator, dtype=torch.float64).to(torch.get_default_dtype())

    kind = torch.randint(3, (*shape, 1), generator=generator)
    following = {
        "observation": normal(OBSERVATION_DIM),
        "reward": normal(1),
        "done": kind > 0,
        "terminated": kind == 1,
        "truncated": kind == 2,
    }
    action = normal(ACTION_DIM).tanh()
    return TensorDict(
        {"observation": normal(OBSERVATION_DIM), "action": action, "next": TensorDict(following, shape)},
        shape,
    )


class Concatenated(nn.Sequential):
    """A perceptron on the concatenation of its arguments: what users write for Q(s, a)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(torch.cat(inputs, -1))


def separate_critics(ensemble: EnsembleQValue) -> list[TensorDictModule]:
    """The members of an ensemble as plain torch modules with the same weights."""
    return [_member(ensemble, j) for j in range(ensemble.num_critics)]


@torch.no_grad()
def _member(ensemble: EnsembleQValue, j: int) -> TensorDictModule:
    layers: list[nn.Module] = []
    for i, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.copy_(weight[j].T)
        linear.bias.copy_(bias[j, 0])
        layers.append(linear)
        if i < len(ensemble.norm_weights):
            norm = nn.LayerNorm(weight.shape[2])
            norm.weight.copy_(ensemble.norm_weights[i][j, 0])
            norm.bias.copy_(ensemble.norm_biases[i][j, 0])
            layers.append(norm)
        layers.append(nn.ReLU())
    return TensorDictModule(Concatenated(*layers[:-1]), in_keys=ensemble.in_keys, out_keys=ensemble.out_keys)
