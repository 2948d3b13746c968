"""Configurations of the losses, beside TorchRL's own. Each field but ``gamma`` is an argument of the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchrl.trainers.algorithms.configs.objectives import LossConfig

_MAKE = "o3f.training.torchrl.make."


@dataclass
class _Loss(LossConfig):
    """``gamma`` is given to ``make_value_estimator``, as in TorchRL; None keeps TorchRL's 0.99."""

    actor_network: Any = None
    qvalue_network: Any = None
    num_qvalue_nets: int | None = None
    gamma: float | None = None
    reduction: str = "mean"
    generator: Any = None
    _convert_: str = "all"


@dataclass
class IQLLossConfig(_Loss):
    """:class:`~o3f.objectives.IQLLoss`."""

    value_network: Any = None
    expectile: float = 0.7
    temperature: float = 3.0
    loss_function: str = "l2"
    aggregation: str = "min"
    subset_size: int = 2
    separate_losses: bool = False
    _target_: str = _MAKE + "iql_loss"


@dataclass
class LAPOLossConfig(_Loss):
    """:class:`~o3f.objectives.LAPOLoss`."""

    encoder_network: Any = None
    decoder_network: Any = None
    value_network: Any = None
    subset_size: int | None = 2
    min_weight: float = 1.0
    advantage_weight: float = 0.9
    kl_weight: float = 1.0
    target_noise: float = 0.1
    target_noise_clip: float = 0.2
    value_clamp: str = "running"
    value_bounds: Any = None
    delay_value: bool = False
    actor_aggregation: str = "mean"
    _target_: str = _MAKE + "lapo_loss"


@dataclass
class _ActorCriticLoss(_Loss):
    loss_function: str = "l2"
    aggregation: str = "min"
    subset_size: int = 2
    separate_losses: bool = False


@dataclass
class AWACLossConfig(_ActorCriticLoss):
    """:class:`~o3f.objectives.AWACLoss`."""

    lam: float = 1.0
    weighting: str = "softmax"
    _target_: str = _MAKE + "awac_loss"


@dataclass
class CQLLossConfig(_ActorCriticLoss):
    """:class:`~o3f.objectives.CQLLoss`, the CQL(H) that TorchRL's ``cql`` is not."""

    conservative_weight: float = 5.0
    lagrange: str | None = None
    lagrange_threshold: float = 10.0
    num_random: int = 10
    gap_reduction: str = "mean"
    backup: str = "deterministic"
    entropy_backup: bool = False
    value_network: Any = None
    target_entropy: Any = None
    action_spec: Any = None
    alpha_init: float = 1.0
    actor_aggregation: str = "min"
    _target_: str = _MAKE + "cql_loss"


@dataclass
class SACLossConfig(_ActorCriticLoss):
    """:class:`~o3f.objectives.SACLoss`."""

    value_network: Any = None
    target_entropy: Any = None
    action_spec: Any = None
    alpha_init: float = 1.0
    actor_aggregation: str = "min"
    entropy_backup: bool = True
    _target_: str = _MAKE + "sac_loss"
