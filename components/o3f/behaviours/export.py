"""From a trained actor to the arrays of a :class:`~o3f.behaviours.GaussianMLP`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from o3f.behaviours.gaussian_mlp import GaussianMLP
from o3f.modules.policies import TanhMeanGaussian

Array = npt.NDArray[Any]


def gaussian_mlp_from_actor(actor: nn.Module) -> GaussianMLP:
    """Copy the weights of an actor; dropout is left out, as in evaluation.

    Args:
        actor: from :func:`o3f.modules.gaussian_policy`.

    Raises:
        ValueError: if the actor is of another kind, or has layers other than Linear, ReLU and Dropout.
    """
    networks = [module for module in actor.modules() if isinstance(module, TanhMeanGaussian)]
    if len(networks) != 1:
        raise ValueError(f"Only an actor with one TanhMeanGaussian can be exported, found {len(networks)}.")
    (network,) = networks
    *hidden, head = _linears(network.mean)
    return GaussianMLP(
        _hidden(hidden)
        | {
            "W_mean": _array(head.weight.T),
            "b_mean": _array(head.bias),
            "squash_mean": np.asarray(True),
            "log_std": _array(network.log_std),
            "log_std_bounds": np.asarray(network.log_std_bounds),
            "squash": np.asarray(False),
        }
    )


def _linears(network: nn.Module) -> list[nn.Linear]:
    layers = [
        layer for layer in network.modules() if not isinstance(layer, nn.Sequential | nn.Dropout | nn.ReLU)
    ]
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if len(linears) != len(layers):
        raise ValueError(f"Only Linear, ReLU and Dropout layers can be exported, found {network}.")
    return linears


def _hidden(layers: list[nn.Linear]) -> dict[str, Array]:
    arrays = {"activation": np.asarray("relu")}
    for index, layer in enumerate(layers):
        arrays |= {f"W{index}": _array(layer.weight.T), f"b{index}": _array(layer.bias)}
    return arrays


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
