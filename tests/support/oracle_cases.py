"""From learners and batches to the plain arrays of the oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import nn

from tests.support.iql_oracle import Network


def numpy_layers(network: nn.Sequential) -> Network:
    layers: Network = []
    for layer in network:
        weight, bias = ("W", "b") if isinstance(layer, nn.Linear) else ("g", "h")
        if isinstance(layer, nn.Linear):
            layers.append({})
        if isinstance(layer, nn.Linear | nn.LayerNorm):
            layers[-1][weight] = layer.weight.detach().numpy().T.copy()
            layers[-1][bias] = layer.bias.detach().numpy().copy()
    return layers


def numpy_critics(ensemble: Any) -> list[Network]:
    def entry(tensors: Any, i: int, j: int) -> np.ndarray:
        return tensors[i][j].detach().numpy().copy()

    critics: list[Network] = []
    for j in range(ensemble.num_critics):
        layers = [
            {"W": entry(ensemble.weights, i, j), "b": entry(ensemble.biases, i, j)[0]}
            for i in range(len(ensemble.weights))
        ]
        for i in range(len(ensemble.norm_weights)):
            layers[i] |= {"g": entry(ensemble.norm_weights, i, j)[0], "h": entry(ensemble.norm_biases, i, j)[0]}
        critics.append(layers)
    return critics


def rows(batch: TensorDict) -> list[dict[str, Any]]:
    return [
        {
            "s": batch["observation"][i].numpy(),
            "a": batch["action"][i].numpy(),
            "r": batch["next", "reward"][i].item(),
            "next_s": batch["next", "observation"][i].numpy(),
            "terminated": batch["next", "terminated"][i].item(),
        }
        for i in range(len(batch))
    ]


def normal(*shape: int) -> np.ndarray:
    """What a torch distribution draws next from the global stream."""
    drawn: np.ndarray = torch.normal(torch.zeros(*shape), torch.ones(*shape)).numpy()
    return drawn


def assert_networks_equal(found: Network, expected: Network, rtol: float = 1e-8) -> None:
    assert len(found) == len(expected)
    for layer, twin in zip(found, expected, strict=True):
        assert layer.keys() == twin.keys()
        for name in twin:
            np.testing.assert_allclose(layer[name], twin[name], rtol=rtol, atol=1e-10)
