"""Agents of CORL: the state dicts its trainers save (https://github.com/tinkoff-ai/CORL).

| algorithm | names |
|---|---|
| IQL, Gaussian or deterministic | ``actor.net.net.{i}``, ``actor.log_std``, ``qf.q{1,2}.net.{i}``, ``vf.v.net.{i}`` |
| TD3+BC, SPOT, BC | ``actor.net.{i}``, ``critic_{1,2}.net.{i}`` (BC has none; SPOT's ``vae`` is left out) |
| AWAC | ``actor._mlp.{i}``, ``actor._log_std``, ``critic_{1,2}._mlp.{i}`` |
| SAC-N, EDAC, LB-SAC | ``actor.trunk.{i}``, ``actor.mu``, ``actor.log_sigma``, ``critic.critic.{i}`` (stacked) |
| CQL, Cal-QL | ``actor.base_network.{i}``, ``actor.log_std_{multiplier,offset}``, ``critic{1,2}.network.{i}`` |

CORL standardises observations outside its networks and saves neither mean nor deviation: add them as
``observation_mean`` and ``observation_std`` (its 1e-3 included) where it did. Its critics see actions in the
environment's units: add ``max_action`` where that is not 1.
"""

from __future__ import annotations

import math

from o3f.adapters import networks
from o3f.adapters.networks import join
from o3f.adapters.tensors import Linear, Statistics, Tensors
from o3f.algorithms.agent import Agent
from o3f.errors import require


def from_corl(tensors: Tensors) -> Agent:
    """Build the agent, see the table above.

    Raises:
        ConfigError: a tensor is missing, not known, or of another shape than the others imply.
    """
    max_action = tensors.take_number("max_action") or 1.0
    require(max_action > 0, f"{tensors.origin}: max_action must be positive, found {max_action}.")
    if tensors.has("actor.net.net."):
        agent = _iql(tensors, max_action)
    elif tensors.has("actor.net."):
        agent = _td3(tensors, max_action)
    elif tensors.has("actor._mlp."):
        agent = _awac(tensors, max_action)
    elif tensors.has("actor.trunk."):
        agent = _sac_n(tensors, max_action)
    else:
        agent = _cql(tensors, max_action)
    tensors.finish()
    return agent


def _statistics(tensors: Tensors, dim: int) -> Statistics | None:
    return tensors.take_statistics("observation_mean", "observation_std", dim)


def _iql(tensors: Tensors, max_action: float) -> Agent:
    layers = tensors.take_layers("actor.net.net.")
    observation_dim, _, action_dim = networks.widths(layers)
    statistics = _statistics(tensors, observation_dim)
    if tensors.has("actor.log_std"):
        log_std = tensors.take("actor.log_std", action_dim)
        policy = networks.gaussian(layers, log_std, bounds=(-20.0, 2.0), statistics=statistics)
    else:
        policy = networks.deterministic(layers, statistics)
    tensors.drop("q_target.")
    members = [tensors.take_layers(f"qf.q{number}.net.") for number in (1, 2)] if tensors.has("qf.") else []
    critic = networks.critics(members, action_dim, statistics, max_action) if members else None
    value = networks.value(tensors.take_layers("vf.v.net."), statistics) if tensors.has("vf.") else None
    return Agent(policy, critic, value, origin=f"{tensors.origin} (CORL: IQL)")


def _td3(tensors: Tensors, max_action: float) -> Agent:
    layers = tensors.take_layers("actor.net.")
    observation_dim, _, action_dim = networks.widths(layers)
    statistics = _statistics(tensors, observation_dim)
    name = "SPOT" if tensors.has("vae.") else "TD3+BC" if tensors.has("critic_") else "BC"
    # SPOT's VAE only stands in the loss that trained this policy.
    tensors.drop("actor_target.", "critic_1_target.", "critic_2_target.", "vae.")
    members = [tensors.take_layers(f"critic_{number}.net.") for number in (1, 2)] if name != "BC" else []
    critic = networks.critics(members, action_dim, statistics, max_action) if members else None
    return Agent(networks.deterministic(layers, statistics), critic, origin=f"{tensors.origin} (CORL: {name})")


def _awac(tensors: Tensors, max_action: float) -> Agent:
    require(max_action == 1.0, f"{tensors.origin}: CORL's AWAC clips actions to [-1, 1]; max_action must be 1.")
    layers = tensors.take_layers("actor._mlp.")
    observation_dim, _, action_dim = networks.widths(layers)
    statistics = _statistics(tensors, observation_dim)
    log_std = tensors.take("actor._log_std", action_dim)
    policy = networks.gaussian(layers, log_std, bounds=(-20.0, 2.0), squash_mean=False, statistics=statistics)
    members = [tensors.take_layers(f"critic_{number}._mlp.") for number in (1, 2)]
    critic = networks.critics(members, action_dim, statistics)
    return Agent(policy, critic, origin=f"{tensors.origin} (CORL: AWAC)")


def _sac_n(tensors: Tensors, max_action: float) -> Agent:
    heads = join(tensors.take_linear("actor.mu"), tensors.take_linear("actor.log_sigma"))
    layers = tensors.chain([*tensors.take_layers("actor.trunk."), heads], "actor")
    observation_dim, _, outputs = networks.widths(layers)
    statistics = _statistics(tensors, observation_dim)
    policy = networks.tanh_gaussian(layers, bounds=(-5.0, 2.0), statistics=statistics)
    tensors.drop("target_critic.")
    critic = networks.critics(_stacked(tensors, "critic.critic."), outputs // 2, statistics, max_action)
    log_alpha = tensors.take_number("log_alpha")
    temperature = None if log_alpha is None else math.exp(log_alpha)
    return Agent(policy, critic, temperature=temperature, origin=f"{tensors.origin} (CORL: SAC-N)")


def _cql(tensors: Tensors, max_action: float) -> Agent:
    layers = tensors.take_layers("actor.base_network.")
    observation_dim, _, outputs = networks.widths(layers)
    statistics = _statistics(tensors, observation_dim)
    # log_std = multiplier * output + offset: the same function with both in the last layer.
    multiplier = tensors.take("actor.log_std_multiplier.constant")
    offset = tensors.take("actor.log_std_offset.constant")
    weight, bias = (part.clone() for part in layers[-1])
    action_dim = outputs // 2
    weight[action_dim:] *= multiplier
    bias[action_dim:] = bias[action_dim:] * multiplier + offset
    policy = networks.tanh_gaussian([*layers[:-1], Linear(weight, bias)], bounds=(-20.0, 2.0), statistics=statistics)
    tensors.drop("critic1_target.", "critic2_target.", "cql_log_alpha")
    members = [tensors.take_layers(f"critic{number}.network.") for number in (1, 2)]
    critic = networks.critics(members, action_dim, statistics, max_action)
    log_alpha = tensors.take_number("sac_log_alpha.constant")
    temperature = None if log_alpha is None else math.exp(log_alpha)
    return Agent(policy, critic, temperature=temperature, origin=f"{tensors.origin} (CORL: CQL)")


def _stacked(tensors: Tensors, prefix: str) -> list[list[Linear]]:
    """The members of an ensemble with weights ``[m, in, out]`` and biases ``[m, 1, out]``."""
    layers: list[list[Linear]] = []
    for index in tensors.indices(prefix):
        shape = tensors.shape(f"{prefix}{index}.weight")
        require(
            len(shape) == 3,
            f"{tensors.origin}: {prefix}{index}.weight has shape {list(shape)}, expected [critics, inputs, outputs].",
        )
        weight = tensors.take(f"{prefix}{index}.weight", *shape)
        bias = tensors.take(f"{prefix}{index}.bias", shape[0], 1, shape[2])
        layers.append([Linear(w.T, b[0]) for w, b in zip(weight, bias, strict=True)])
    counts = {len(layer) for layer in layers}
    require(
        len(counts) == 1, f"{tensors.origin}: {prefix} has layers of {sorted(counts)} critics, expected one number."
    )
    return [tensors.chain(list(member), prefix) for member in zip(*layers, strict=True)]
