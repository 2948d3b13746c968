"""The CQL learner: networks, optimisers and the order of the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from o3f.algorithms.agent import Agent, fill_missing
from o3f.algorithms.guarded_adam import GuardedAdam, minimise
from o3f.algorithms.learner import critic_metrics
from o3f.algorithms.soft import SoftLearner, soft_networks
from o3f.modules.mlp import Init
from o3f.objectives import CQLLoss
from o3f.objectives.cql import Backup, GapReduction
from o3f.objectives.functional import Aggregation, Lagrange
from o3f.objectives.ranges import check_ranges
from o3f.objectives.sac import ActorAggregation


@dataclass(frozen=True)
class CQLConfig:
    """Hyper-parameters; the defaults are d3rlpy's, and as in its script for the paper three layers and no multiplier.

    With a multiplier its own default is two hidden layers. The policy's log-std is clipped to [-5, 2], where d3rlpy has
    [-20, 2].

    Args:
        hidden_sizes: widths of the hidden layers of every network.
        num_critics: m.
        layer_norm: LayerNorm in the critics.
        actor_layer_norm: LayerNorm in the policy.
        discount: γ.
        tau: Polyak rate of the target critics.
        actor_learning_rate: of Adam, for the policy.
        critic_learning_rate: for the critics.
        temperature_learning_rate: for the temperature.
        lagrange_learning_rate: for the multiplier.
        conservative_weight: of the gap.
        lagrange: None, ``"weighted_gap"`` or ``"weighted_excess"``: learn a multiplier of the gap, in d3rlpy's
            first or second form.
        lagrange_threshold: the gap the multiplier aims at, times ``conservative_weight`` in the first form.
        num_random: proposals from each of policy, policy at the next state, and uniform.
        calibrate: do not push the policy's proposals below the returns of the data (Cal-QL).
        gap_reduction: ``"mean"`` or ``"sum"`` over the critics (d3rlpy's first and second release).
        backup: V(s') of the policy's ``"deterministic"`` action or of a ``"sample"``.
        entropy_backup: count the policy's entropy in the critics' target; only with samples.
        target_entropy: of the policy, in nats; None is -A.
        aggregation: one value out of m target critics: ``"min"``, ``"mean"`` or ``"subset"``.
        subset_size: members that ``"subset"`` draws per update.
        actor_aggregation: what the policy ascends: ``"min"`` or ``"mean"`` of the critics.
        normalise: z-scores of observations and actions inside the networks, measured on the dataset.
        init: of every layer, ``"default"`` (torch's) or ``"orthogonal"``.
        compile: take each gradient step as one compiled graph: half a minute at the start of a process (seconds where
            its cache is warm), then faster. Needs a C++ compiler on a CPU. ``auto`` is for recipes, see
            :func:`~o3f.training.compiling.settle_compile`; a learner takes it as false.

    Raises:
        ConfigError: for a value out of its range.
    """

    hidden_sizes: Sequence[int] = (256, 256, 256)
    num_critics: int = 2
    layer_norm: bool = False
    actor_layer_norm: bool = False
    discount: float = 0.99
    tau: float = 0.005
    actor_learning_rate: float = 1e-4
    critic_learning_rate: float = 3e-4
    temperature_learning_rate: float = 1e-4
    lagrange_learning_rate: float = 1e-4
    conservative_weight: float = 5.0
    lagrange: Lagrange | None = None
    lagrange_threshold: float = 10.0
    num_random: int = 10
    calibrate: bool = False
    gap_reduction: GapReduction = "mean"
    backup: Backup = "deterministic"
    entropy_backup: bool = False
    target_entropy: float | None = None
    aggregation: Aggregation = "min"
    subset_size: int = 2
    actor_aggregation: ActorAggregation = "min"
    normalise: bool = False
    init: Init = "default"
    compile: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        """Check the numbers' ranges."""
        check_ranges(vars(self))


class CQLLearner(SoftLearner):
    """Trains a tanh-Gaussian policy, m critics, the temperature and the multiplier by CQL's losses.

    Each update follows d3rlpy's order: temperature, multiplier (if learned), critics, policy, Polyak step of
    the targets; one draw of the policy serves its loss and the temperature's, one evaluation of the gap the
    critics' loss and the multiplier's. Of several batches, temperature and policy are trained on the last
    alone. The networks are those of :class:`~o3f.algorithms.SACLearner`, which can start from this learner's
    state. Randomness is torch's global stream.

    Args:
        observation_dim: O.
        action_dim: A.
        config: hyper-parameters.
        device: of all networks.
        agent: networks to take, on that device, instead of those drawn by ``config``.
    """

    config_type = CQLConfig
    loss: CQLLoss
    squashed = True

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        config: CQLConfig | None = None,
        device: torch.device | str | None = None,
        agent: Agent | None = None,
    ) -> None:
        config = config or CQLConfig()
        self.config = config
        networks = fill_missing(soft_networks(observation_dim, action_dim, config, device), agent)
        self.policy, self.critic = networks.policy, networks.critic
        self.loss = CQLLoss(
            networks.policy,
            networks.critic,
            conservative_weight=config.conservative_weight,
            lagrange=config.lagrange,
            lagrange_threshold=config.lagrange_threshold,
            num_random=config.num_random,
            calibrate=config.calibrate,
            gap_reduction=config.gap_reduction,
            backup=config.backup,
            entropy_backup=config.entropy_backup,
            target_entropy=config.target_entropy,
            aggregation=config.aggregation,
            subset_size=config.subset_size,
            actor_aggregation=config.actor_aggregation,
        )
        self.loss.make_value_estimator(gamma=config.discount)
        if networks.temperature is not None:
            self.loss.log_alpha.data.fill_(math.log(networks.temperature))
        self.optimisers = {
            "critic": GuardedAdam(self.critic.parameters(), lr=config.critic_learning_rate),
            "actor": GuardedAdam(self.policy.parameters(), lr=config.actor_learning_rate),
            "temperature": GuardedAdam([self.loss.log_alpha], lr=config.temperature_learning_rate),
        }
        if config.lagrange is not None:
            rate = config.lagrange_learning_rate
            self.optimisers["lagrange"] = GuardedAdam([self.loss.log_multiplier], lr=rate)
        self._take_step = self._make_step(self._step)
        self._take_critic_step = self._make_step(self._critics_alone)

    @property
    def coefficients(self) -> dict[str, Tensor]:
        """Those a schedule may change; without a multiplier there is no threshold."""
        named = super().coefficients
        if self.config.lagrange is None:
            del named["lagrange_threshold"]
        return named

    def _step(self, batch: TensorDictBase, next_value: Tensor | None) -> dict[str, Tensor]:
        drawn = self.loss.draw(batch)
        metrics = self._temperature_step(batch, drawn[1]) | self._critic_step(batch, next_value)
        metrics |= self._actor_step(batch, drawn)
        self.loss.update_targets(self.config.tau)
        return metrics

    def _temperature_step(self, batch: TensorDictBase, log_prob: Tensor) -> dict[str, Tensor]:
        loss, info = self.loss.alpha_loss(batch, log_prob)
        minimise(loss, self.optimisers["temperature"])
        return {"loss/temperature": loss.detach(), "temperature": info["alpha"]}

    def _critic_step(self, batch: TensorDictBase, next_value: Tensor | None) -> dict[str, Tensor]:
        metrics: dict[str, Tensor] = {}
        evaluated = self.loss.evaluate_gap(batch)
        if self.config.lagrange is not None:
            loss, multiplier = self.loss.lagrange_loss(batch, evaluated[0])
            minimise(loss, self.optimisers["lagrange"])
            metrics = {"loss/lagrange": loss.detach(), "cql/multiplier": multiplier["multiplier"]}
        loss, info = self.loss.qvalue_loss(batch, next_value, evaluated)
        minimise(loss, self.optimisers["critic"])
        shares = {"cql/below_return": info["below_return"].mean()} if self.config.calibrate else {}
        return {
            **metrics,
            "loss/critic": loss.detach(),
            **critic_metrics(info["state_action_value"]),
            "cql/gap": info["gap"].mean(),
            **shares,
        }

    def _actor_step(self, batch: TensorDictBase, drawn: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        loss, info = self.loss.actor_loss(batch, drawn)
        if self.actor_term is not None:
            loss = loss + self.actor_term(batch)
        minimise(loss, self.optimisers["actor"])
        return {"loss/actor": loss.detach(), "entropy": -info["log_prob"].mean()}
