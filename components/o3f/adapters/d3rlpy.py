"""Agents of d3rlpy 2: policies, Q-functions and value functions with vector encoders (https://d3rlpy.readthedocs.io).

| network | names |
|---|---|
| SAC, CQL, Cal-QL | ``policy._encoder._layers.{i}``, ``policy._mu``, ``policy._logstd.{weight,bias}`` |
| IQL, AWAC | ``policy._encoder._layers.{i}``, ``policy._mu``, ``policy._logstd`` ``[1, A]`` |
| TD3, TD3+BC | ``policy._encoder._layers.{i}``, ``policy._fc`` |
| all | ``q_funcs.{k}._encoder._layers.{i}``, ``q_funcs.{k}._fc`` |
| IQL | ``value_func._encoder._layers.{i}``, ``value_func._fc`` |

An observation scaler is outside the networks: add what it subtracts as ``observation_mean`` and what it divides by
as ``observation_std``. Actions are in [-1, 1], as here; an action scaler must span the environment's bounds.
Rewards are as its reward scaler leaves them: give ``task.reward`` the same scale.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from o3f.adapters import networks
from o3f.adapters.networks import join
from o3f.adapters.tensors import Linear, Tensors, flat
from o3f.algorithms.agent import Agent
from o3f.errors import ConfigError, require


def from_d3rlpy(algorithm: Any, origin: str = "a d3rlpy agent") -> Agent:
    """Build the agent of a d3rlpy object: an algorithm with its networks built, or one that was loaded.

    Raises:
        ConfigError: its networks, or its scalers, are none that can be read.
    """
    held = getattr(getattr(algorithm, "impl", None), "_modules", None)
    modules = {} if held is None else vars(held)
    require(bool(modules), f"{origin}: its networks are not built yet: call fit, build_with_env or load_learnable.")
    wanted = ("policy", "q_funcs", "value_func", "log_temp")
    tensors = flat({name: modules[name] for name in wanted if name in modules})
    _check_activations({name: modules[name] for name in wanted[:3] if name in modules}, origin)
    return read_d3rlpy(Tensors(tensors | _scaler(algorithm.config.observation_scaler, origin), origin))


def read_d3rlpy(tensors: Tensors) -> Agent:
    """Build the agent of a state dict, see the table above.

    Raises:
        ConfigError: a tensor is missing, not known, or of another shape than the others imply.
    """
    hidden = tensors.take_layers("policy._encoder._layers.")
    statistics = tensors.take_statistics("observation_mean", "observation_std", hidden[0].weight.shape[1])
    if tensors.has("policy._fc"):
        layers = tensors.chain([*hidden, tensors.take_linear("policy._fc")], "policy")
        policy, action_dim = networks.deterministic(layers, statistics), layers[-1].bias.numel()
    elif tensors.has("policy._logstd."):
        heads = join(tensors.take_linear("policy._mu"), tensors.take_linear("policy._logstd"))
        layers = tensors.chain([*hidden, heads], "policy")
        policy, action_dim = (
            networks.tanh_gaussian(layers, bounds=(-20.0, 2.0), statistics=statistics),
            len(heads.bias) // 2,
        )
    else:
        layers = tensors.chain([*hidden, tensors.take_linear("policy._mu")], "policy")
        action_dim = layers[-1].bias.numel()
        bounds = (-5.0, 2.0) if tensors.has("value_func.") else (-6.0, 0.0)  # IQL's and AWAC's in d3rlpy
        log_std = tensors.take("policy._logstd", 1, action_dim)[0]
        policy = networks.gaussian(layers, log_std, bounds=bounds, rule="sigmoid", statistics=statistics)
    tensors.drop("targ_", "log_alpha")
    members = [_network(tensors, f"q_funcs.{index}") for index in tensors.indices("q_funcs.")]
    critic = networks.critics(members, action_dim, statistics) if members else None
    value = networks.value(_network(tensors, "value_func"), statistics) if tensors.has("value_func.") else None
    log_temperature = tensors.take_number("log_temp._parameter")
    tensors.finish()
    temperature = None if log_temperature is None else math.exp(log_temperature)
    return Agent(policy, critic, value, temperature, f"{tensors.origin} (d3rlpy)")


def _network(tensors: Tensors, name: str) -> list[Linear]:
    layers = [*tensors.take_layers(f"{name}._encoder._layers."), tensors.take_linear(f"{name}._fc")]
    return tensors.chain(layers, name)


def _scaler(scaler: Any, origin: str) -> dict[str, torch.Tensor]:
    """What a scaler of observations subtracts and divides by."""
    if scaler is None:
        return {}
    if hasattr(scaler, "std"):
        mean, std = torch.as_tensor(scaler.mean), torch.as_tensor(scaler.std) + scaler.eps
    elif hasattr(scaler, "minimum"):
        low, high = torch.as_tensor(scaler.minimum), torch.as_tensor(scaler.maximum)
        mean, std = (low + high) / 2, (high - low) / 2
    else:
        raise ConfigError(f"{origin}: the scaler {type(scaler).__name__} of observations is not known.")
    return {"observation_mean": mean, "observation_std": std}


def _check_activations(modules: dict[str, Any], origin: str) -> None:
    parts = {type(part) for module in modules.values() for part in module.modules() if not list(part.children())}
    found = sorted(part.__name__ for part in parts - {torch.nn.Linear, torch.nn.ReLU, torch.nn.Dropout})
    require(not found, f"{origin}: its networks have {', '.join(found)}; only Linear and ReLU can be read.")
