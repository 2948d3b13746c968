"""Agents of Stable-Baselines3: ``MlpPolicy`` of SAC and TD3 (https://stable-baselines3.readthedocs.io).

| algorithm | names |
|---|---|
| SAC | ``actor.latent_pi.{i}``, ``actor.mu``, ``actor.log_std`` |
| TD3, DDPG | ``actor.mu.{i}`` |
| both | ``critic.qf{k}.{i}`` |

Its networks act in [-1, 1], as ours do. ``VecNormalize`` is outside of them: add its mean as ``observation_mean``
and the root of its variance as ``observation_std``; its clipping at 10 deviations is left out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from o3f.adapters import networks
from o3f.adapters.networks import join
from o3f.adapters.tensors import Tensors, flat
from o3f.algorithms.agent import Agent
from o3f.errors import require


def from_sb3(model: Any, origin: str = "a Stable-Baselines3 agent") -> Agent:
    """Build the agent of a ``SAC``, ``TD3`` or ``DDPG`` object with an ``MlpPolicy``.

    Raises:
        ConfigError: its networks are none that can be read.
    """
    activation = getattr(model.policy, "activation_fn", None)
    require(
        activation is nn.ReLU,
        f"{origin}: its networks have the activation {getattr(activation, '__name__', activation)}; only ReLU can"
        " be read.",
    )
    require(not getattr(model, "use_sde", False), f"{origin}: a policy with use_sde=True cannot be read.")
    tensors = flat(model.policy.state_dict())
    if getattr(model, "log_ent_coef", None) is not None:
        tensors["log_ent_coef"] = model.log_ent_coef.detach()
    elif hasattr(model, "ent_coef_tensor"):
        tensors["log_ent_coef"] = model.ent_coef_tensor.log()
    normaliser = model.get_vec_normalize_env()
    if normaliser is not None and normaliser.norm_obs:
        statistics = normaliser.obs_rms
        tensors["observation_mean"] = torch.as_tensor(statistics.mean)
        tensors["observation_std"] = (torch.as_tensor(statistics.var) + normaliser.epsilon).sqrt()
    return read_sb3(Tensors(tensors, origin))


def read_sb3(tensors: Tensors) -> Agent:
    """Build the agent of a policy's state dict, see the table above.

    Raises:
        ConfigError: a tensor is missing, not known, or of another shape than the others imply.
    """
    if tensors.has("actor.latent_pi."):
        heads = join(tensors.take_linear("actor.mu"), tensors.take_linear("actor.log_std"))
        layers = tensors.chain([*tensors.take_layers("actor.latent_pi."), heads], "actor")
        action_dim = len(heads.bias) // 2
    else:
        layers = tensors.take_layers("actor.mu.")
        action_dim = len(layers[-1].bias)
    statistics = tensors.take_statistics("observation_mean", "observation_std", layers[0].weight.shape[1])
    squashed = action_dim < len(layers[-1].bias)
    policy = (
        networks.tanh_gaussian(layers, bounds=(-20.0, 2.0), statistics=statistics)
        if squashed
        else networks.deterministic(layers, statistics)
    )
    tensors.drop("actor_target.", "critic_target.")
    members = [tensors.take_layers(f"critic.qf{index}.") for index in tensors.indices("critic.qf")]
    critic = networks.critics(members, action_dim, statistics) if members else None
    log_temperature = tensors.take_number("log_ent_coef")
    tensors.finish()
    temperature = None if log_temperature is None else math.exp(log_temperature)
    return Agent(policy, critic, None, temperature, f"{tensors.origin} (Stable-Baselines3)")
