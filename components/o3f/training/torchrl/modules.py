"""Configurations of networks, actors and the actors' parts. Each field is an argument of what is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING
from torchrl.trainers.algorithms.configs.modules import NetworkConfig

_MAKE = "o3f.training.torchrl.make."


@dataclass
class _Node(NetworkConfig):
    """Lists reach the class as lists, not as OmegaConf's."""

    _convert_: str = "all"


@dataclass
class EnsembleQValueConfig(_Node):
    """:class:`~o3f.modules.EnsembleQValue`: m critics with stacked weights."""

    observation_dim: int = MISSING
    action_dim: int = MISSING
    num_critics: int = 5
    hidden_sizes: Any = (256, 256)
    layer_norm: bool = False
    init: str = "orthogonal"
    normalise: bool = False
    in_keys: Any = ("observation", "action")
    out_key: Any = "state_action_value"
    device: Any = None
    generator: Any = None
    _target_: str = _MAKE + "ensemble_qvalue"


@dataclass
class GaussianPolicyConfig(_Node):
    """:func:`~o3f.modules.gaussian_policy`: the policy of IQL and AWAC."""

    observation_dim: int = MISSING
    action_dim: int = MISSING
    hidden_sizes: Any = (256, 256)
    squash_mean: bool = True
    dropout: float = 0.0
    init: str = "orthogonal"
    log_std_bounds: Any = (-5.0, 2.0)
    log_std_rule: str = "clip"
    normalise: bool = False
    in_key: Any = "observation"
    action_key: Any = "action"
    device: Any = None
    _target_: str = _MAKE + "gaussian_policy"


@dataclass
class TanhGaussianPolicyConfig(_Node):
    """:func:`~o3f.modules.tanh_gaussian_policy`: the policy of SAC and CQL."""

    observation_dim: int = MISSING
    action_dim: int = MISSING
    hidden_sizes: Any = (256, 256)
    init: str = "default"
    layer_norm: bool = False
    log_std_bounds: Any = (-5.0, 2.0)
    normalise: bool = False
    in_key: Any = "observation"
    action_key: Any = "action"
    device: Any = None
    _target_: str = _MAKE + "tanh_gaussian_policy"


@dataclass
class ValueNetworkConfig(_Node):
    """:func:`~o3f.modules.value_network`: V(s)."""

    observation_dim: int = MISSING
    hidden_sizes: Any = (256, 256)
    init: str = "orthogonal"
    layer_norm: bool = False
    normalise: bool = False
    in_key: Any = "observation"
    out_key: Any = "state_value"
    device: Any = None
    _target_: str = _MAKE + "value_network"


@dataclass
class LatentActorConfig(_Node):
    """:func:`~o3f.modules.latent_actor`: chooses a latent."""

    observation_dim: int = MISSING
    latent_dim: int = MISSING
    hidden_sizes: Any = (256, 256, 256)
    max_latent: float = 2.0
    init: str = "default"
    in_key: Any = "observation"
    out_key: Any = "latent"
    device: Any = None
    _target_: str = _MAKE + "latent_actor"


@dataclass
class LatentEncoderConfig(_Node):
    """:func:`~o3f.modules.latent_encoder`: from an action to the distribution of its latent."""

    observation_dim: int = MISSING
    action_dim: int = MISSING
    latent_dim: int = MISSING
    hidden_sizes: Any = (256, 256, 256)
    init: str = "default"
    in_key: Any = "observation"
    action_key: Any = "action"
    out_keys: Any = ("latent_mean", "latent_log_variance")
    device: Any = None
    _target_: str = _MAKE + "latent_encoder"


@dataclass
class LatentDecoderConfig(_Node):
    """:func:`~o3f.modules.latent_decoder`: from a latent to the action."""

    observation_dim: int = MISSING
    action_dim: int = MISSING
    latent_dim: int = MISSING
    hidden_sizes: Any = (256, 256, 256)
    init: str = "default"
    in_key: Any = "observation"
    latent_key: Any = "latent"
    action_key: Any = "action"
    device: Any = None
    _target_: str = _MAKE + "latent_decoder"


@dataclass
class LatentPolicyConfig(_Node):
    """:func:`~o3f.modules.latent_policy`: a latent actor and a decoder, not trained yet."""

    observation_dim: int = MISSING
    action_dim: int = MISSING
    latent_dim: int | None = None
    hidden_sizes: Any = (256, 256, 256)
    max_latent: float = 2.0
    init: str = "default"
    device: Any = None
    _target_: str = _MAKE + "latent_policy"
