"""Agents in a file: safetensors in our own names, which hold all that rebuilding them needs.

``policy.*``, ``critic.*`` and ``value.*`` are the state dicts of the networks (the last two may be missing),
``temperature`` is a number. The header's entry ``o3f_agent`` is JSON: what weights do not tell of the policy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor

from o3f.adapters.networks import policy_network
from o3f.algorithms.agent import Agent
from o3f.errors import ConfigError, first_lines, optional, require
from o3f.modules import (
    EnsembleQValue,
    Normaliser,
    TanhGaussian,
    TanhMeanGaussian,
    gaussian_policy,
    tanh_gaussian_policy,
    value_network,
)
from o3f.runs.files import publish

HEADER = "o3f_agent"


def save_agent(path: str | Path, agent: Agent) -> None:
    """Write an agent of our own networks, as the adapters and the learners build them.

    Args:
        path: of the file, which ends in ``.safetensors``; an existing one is replaced.
        agent: for a learner ``Agent(learner.policy, learner.critic, learner.loss.value_network)``; the last for IQL.

    Raises:
        ConfigError: the name ends otherwise, or a network is of other code, which weights alone would not bring back.
    """
    tensors = agent_tensors(agent)
    header = {HEADER: json.dumps(settings(agent))}
    require(Path(path).suffix == ".safetensors", f"{path}: the name of an agent's file ends in .safetensors.")
    staged = Path(path).with_name(f".{Path(path).name}.stage")
    try:
        staged.write_bytes(optional("safetensors.torch", "export").save(tensors, header))
        publish(staged, Path(path))
    finally:
        staged.unlink(missing_ok=True)


def agent_tensors(agent: Agent) -> dict[str, Tensor]:
    """Return all weights by name, as they are saved."""
    own = isinstance(agent.policy, ProbabilisticActor)
    parts = {"policy": policy_network(agent.policy) if own else agent.policy, "critic": agent.critic}
    parts["value"] = agent.value.module if isinstance(agent.value, TensorDictModule) else agent.value
    tensors: dict[str, Tensor] = {}
    for name, module in parts.items():
        state = {} if module is None else module.state_dict()
        found = {f"{name}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
        tensors |= {key: value.detach().cpu().contiguous().clone() for key, value in found.items()}
    if agent.temperature is not None:
        tensors["temperature"] = torch.tensor(agent.temperature)
    return tensors


def read_own(tensors: Mapping[str, Tensor], header: str, origin: str) -> Agent:
    """Build the agent that :func:`save_agent` wrote.

    Raises:
        ConfigError: the file does not hold what it should.
    """
    try:
        found = json.loads(header)
        parts = {name: _part(tensors, name) for name in ("policy", "critic", "value")}
        known = sum(map(len, parts.values())) + ("temperature" in tensors)
        require(known == len(tensors), f"{origin} holds tensors of no known network.")
        with torch.random.fork_rng(devices=[]):  # what is drawn is overwritten
            policy = _policy(parts["policy"], found)
            critic = _critic(parts["critic"], policy.spec["action"].shape[-1]) if parts["critic"] else None
            value = _value(parts["value"]) if parts["value"] else None
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{origin} is no agent that save_agent wrote: {first_lines(error)}") from error
    temperature = float(tensors["temperature"]) if "temperature" in tensors else None
    return Agent(policy.eval(), critic, value, temperature, origin)


def is_own(agent: Agent) -> bool:
    """Whether all its networks are ours, so that it can be saved."""
    try:
        return bool(settings(agent))
    except ConfigError:
        return False


def settings(agent: Agent) -> dict[str, Any]:
    """Return what weights do not tell of an agent's policy.

    Raises:
        ConfigError: a network is of other code.
    """
    _check_own(agent)
    policy = agent.policy
    network = policy_network(policy) if isinstance(policy, ProbabilisticActor) else policy
    if isinstance(network, TanhGaussian):
        return {"kind": "tanh_gaussian", "log_std_bounds": list(network.log_std_bounds)}
    if not isinstance(network, TanhMeanGaussian):
        raise ConfigError(
            f"a {type(network).__name__} cannot be saved as an agent: only gaussian_policy and tanh_gaussian_policy"
            " can. Keep it as code and start with pretrained=package.module:function."
        )
    names = ("log_std_bounds", "log_std_rule", "squash_mean")
    dropout = next((part.p for part in network.modules() if isinstance(part, nn.Dropout)), 0.0)
    return {"kind": "gaussian", "dropout": dropout, **{name: getattr(network, name) for name in names}}


def _check_own(agent: Agent) -> None:
    if not isinstance(agent.critic, EnsembleQValue | None):
        raise ConfigError(f"critics that are a {type(agent.critic).__name__} cannot be saved; an EnsembleQValue can.")
    if agent.critic is not None:
        # Names are not in the file, so it must be the order that it is read in: others would be other critics.
        keys, actions = agent.critic.in_keys, getattr(agent.policy, "dist_sample_keys", ["action"])
        require(
            len(keys) == 2 and keys[1] in actions,
            f"critics that read {keys} cannot be saved: only those of an observation and then the action can. Build"
            " them with in_keys in this order.",
        )
    plain = agent.value is None or type(getattr(agent.value, "module", None)) is nn.Sequential
    require(plain, "only a value_network can be saved as an agent's value.")


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _policy(state: dict[str, Tensor], found: dict[str, Any]) -> ProbabilisticActor:
    low, high = (float(bound) for bound in found["log_std_bounds"])
    if not -math.inf < low < high < math.inf:
        raise TypeError(f"log_std_bounds must be two ascending numbers, found {[low, high]}")
    name = {"tanh_gaussian": "network", "gaussian": "mean"}[found["kind"]]
    layers = _part(state, name)
    inputs, hidden, outputs = _widths(layers)
    if name == "network":
        policy = tanh_gaussian_policy(
            inputs, outputs // 2, hidden, layer_norm=_normed(layers), log_std_bounds=(low, high)
        )
    else:
        policy = gaussian_policy(
            inputs,
            outputs,
            hidden,
            squash_mean=found["squash_mean"],
            dropout=found["dropout"],
            log_std_bounds=(low, high),
            log_std_rule=found["log_std_rule"],
        )
    network: Any = policy_network(policy)
    _insert_normaliser(getattr(network, name), layers)
    network.load_state_dict(state)
    return policy


def _critic(state: dict[str, Tensor], action_dim: int) -> EnsembleQValue:
    weights = [state[f"weights.{index}"] for index in range(sum(key.startswith("weights.") for key in state))]
    members, inputs, _ = weights[0].shape
    critic: EnsembleQValue = EnsembleQValue(
        inputs - action_dim,
        action_dim,
        members,
        [weight.shape[-1] for weight in weights[:-1]],
        layer_norm="norm_weights.0" in state,
        normalise="normaliser.loc" in state,
    )
    critic.load_state_dict(state)
    return critic


def _value(state: dict[str, Tensor]) -> TensorDictModule:
    inputs, hidden, _ = _widths(state)
    module = value_network(inputs, hidden, layer_norm=_normed(state))
    network: Any = module.module
    _insert_normaliser(network, state)
    network.load_state_dict(state)
    return module


def _widths(state: Mapping[str, Tensor]) -> tuple[int, list[int], int]:
    order = sorted((int(key.split(".")[0]), key) for key in state if key.endswith(".weight") and state[key].ndim == 2)
    shapes = [state[key].shape for _, key in order]
    return shapes[0][1], [shape[0] for shape in shapes[:-1]], shapes[-1][0]


def _normed(state: Mapping[str, Tensor]) -> bool:
    return any(key.endswith(".weight") and tensor.ndim == 1 for key, tensor in state.items())


def _insert_normaliser(network: Any, state: Mapping[str, Tensor]) -> None:
    if "0.loc" in state:
        network.insert(0, Normaliser(state["0.loc"].numel(), ["observation"]))
