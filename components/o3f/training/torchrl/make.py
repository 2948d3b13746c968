"""What the configurations instantiate: this package's classes and functions, called with what YAML can hold."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict.nn import TensorDictModuleBase
from torch import nn
from torchrl.data import Bounded, ReplayBuffer
from torchrl.envs import EnvBase
from torchrl.objectives import LossModule

from o3f import data, modules, objectives
from o3f.envs import EnvConfig, make_env, make_raw_env

_KEYS = ("in_key", "out_key", "action_key", "latent_key", "is_init_key")


def _key(key: Any) -> Any:
    """A nested key of tensordict, which is a tuple, from YAML's list; a plain name as it is."""
    return tuple(key) if isinstance(key, list) else key


def _from_yaml(target: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``target`` take nested keys as lists; its signature stays what it is."""

    @functools.wraps(target)
    def make(*args: Any, **options: Any) -> Any:
        options |= {name: _key(options[name]) for name in _KEYS if name in options}
        for name in ("in_keys", "out_keys"):
            if name in options:
                options[name] = [_key(key) for key in options[name]]
        return target(*args, **options)

    return make


ensemble_qvalue = _from_yaml(modules.EnsembleQValue)
gaussian_policy = _from_yaml(modules.gaussian_policy)
tanh_gaussian_policy = _from_yaml(modules.tanh_gaussian_policy)
value_network = _from_yaml(modules.value_network)
latent_actor = _from_yaml(modules.latent_actor)
latent_encoder = _from_yaml(modules.latent_encoder)
latent_decoder = _from_yaml(modules.latent_decoder)
latent_policy = _from_yaml(modules.latent_policy)
gaussian_candidates = _from_yaml(modules.GaussianCandidates)
mixed_candidates = _from_yaml(modules.MixedCandidates)
latent_candidates = _from_yaml(modules.LatentCandidates)
upper_confidence_bound = _from_yaml(modules.UpperConfidenceBound)
thompson = _from_yaml(modules.Thompson)
random_rank = _from_yaml(modules.RandomRank)
argmax = _from_yaml(modules.Argmax)
softmax = _from_yaml(modules.Softmax)


@_from_yaml
@functools.wraps(modules.OptimisticActor)
def optimistic_actor(policy: Any, critic: TensorDictModuleBase, *, sampler: Any = None, **options: Any) -> Any:
    """Build the actor; a sampler that still lacks its decoder is given the policy's."""
    if isinstance(sampler, functools.partial):
        sampler = sampler(policy.decoder)
    return modules.OptimisticActor(policy, critic, sampler=sampler, **options)


@_from_yaml
@functools.wraps(modules.GaussianNoiseActor)
def noise_actor(policy: Any, critic: TensorDictModuleBase | None = None, **options: Any) -> Any:
    """Build the actor; like the other one it may be given the critics, which it does not need."""
    return modules.GaussianNoiseActor(policy, **options)


def _loss(target: type[LossModule]) -> Callable[..., LossModule]:
    @functools.wraps(target)
    def make(*, gamma: float | None = None, **options: Any) -> LossModule:
        loss = target(**options)
        if gamma is not None:
            loss.make_value_estimator(gamma=gamma)
        return loss

    return make


#: Losses by the names of their nodes.
LOSSES = ("awac", "cql", "iql", "lapo", "sac")

iql_loss = _loss(objectives.IQLLoss)
lapo_loss = _loss(objectives.LAPOLoss)
awac_loss = _loss(objectives.AWACLoss)
cql_loss = _loss(objectives.CQLLoss)
sac_loss = _loss(objectives.SACLoss)


def policy_of(loss: Any) -> TensorDictModuleBase:
    """Return the policy that a loss trains; it holds the Parameters of the loss.

    LAPO's is the latent actor with the *target* decoder, for actions in [-1, 1].
    """
    if not isinstance(loss, objectives.LAPOLoss):
        policy: TensorDictModuleBase = loss.actor_network
        return policy
    decoder = loss.target_decoder_network
    last = [part for part in decoder.modules() if isinstance(part, nn.Linear)][-1]
    return modules.LatentPolicy(loss.actor_network, decoder, Bounded(-1.0, 1.0, torch.Size((last.out_features,))))


def _rule(reward: Any) -> data.RewardRule | None:
    return data.RewardRule(**reward) if isinstance(reward, Mapping) else reward


@functools.wraps(data.load_minari)
def minari_buffer(dataset_id: str, *, reward: Any = None, **options: Any) -> ReplayBuffer:
    """Load a dataset; ``reward`` has the fields of :class:`~o3f.data.RewardRule`."""
    return data.load_minari(dataset_id, reward=_rule(reward), **options)


@functools.wraps(data.load_file)
def file_buffer(path: str, *, reward: Any = None, env: Mapping[str, Any] | None = None, **options: Any) -> ReplayBuffer:
    """Load a file; ``env`` has the fields of :class:`~o3f.envs.EnvConfig`."""
    if env is None:
        return data.load_file(path, reward=_rule(reward), **options)
    with contextlib.closing(make_raw_env(EnvConfig(**env))) as recorded:
        return data.load_file(path, reward=_rule(reward), env=recorded, **options)


def gym_env(*, seed: int = 0, device: str = "cpu", **task: Any) -> EnvBase:
    """Build an environment with actions in [-1, 1]; ``task`` has the fields of :class:`~o3f.envs.EnvConfig`."""
    return make_env(EnvConfig(**task), seed=seed, device=device)
