"""The soft actor-critic learner: networks, optimisers and the order of the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from o3f.algorithms.agent import Agent, fill_missing
from o3f.algorithms.guarded_adam import GuardedAdam, minimise
from o3f.algorithms.learner import critic_metrics
from o3f.algorithms.soft import SoftLearner, soft_networks
from o3f.errors import ConfigError, require
from o3f.modules import EnsembleQValue
from o3f.modules.mlp import Init
from o3f.objectives import SACLoss
from o3f.objectives.functional import Aggregation
from o3f.objectives.ranges import check_ranges
from o3f.objectives.sac import ActorAggregation


@dataclass(frozen=True)
class SACConfig:
    """Hyper-parameters; the defaults are the paper's. REDQ: 10 critics, ``subset``, actor ``mean``.

    Args:
        hidden_sizes: widths of the hidden layers of every network.
        num_critics: m.
        layer_norm: LayerNorm in the critics.
        actor_layer_norm: LayerNorm in the policy.
        discount: γ.
        tau: Polyak rate of the target critics.
        learning_rate: of Adam, for networks and temperature.
        target_entropy: of the policy, in nats; None is the paper's -A. Higher values keep actions noisy and
            off their bounds, which suits a policy that is to collect a dataset.
        aggregation: one value out of m target critics: ``"min"``, ``"mean"`` or ``"subset"``.
        subset_size: members that ``"subset"`` draws per update.
        actor_aggregation: what the policy ascends: ``"min"`` or ``"mean"`` of the critics.
        entropy_backup: count the policy's entropy in the critics' target.
        normalise: z-scores of observations and actions inside the networks, measured on the dataset.
        init: of every layer, ``"default"`` (torch's) or ``"orthogonal"``.
        compile: take each gradient step as one compiled graph: half a minute at the start of a process (seconds where
            its cache is warm), then faster. Needs a C++ compiler on a CPU. ``auto`` is for recipes, see
            :func:`~o3f.training.compiling.settle_compile`; a learner takes it as false.

    Raises:
        ConfigError: for a value out of its range.
    """

    hidden_sizes: Sequence[int] = (256, 256)
    num_critics: int = 2
    layer_norm: bool = False
    actor_layer_norm: bool = False
    discount: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    target_entropy: float | None = None
    aggregation: Aggregation = "min"
    subset_size: int = 2
    actor_aggregation: ActorAggregation = "min"
    entropy_backup: bool = True
    normalise: bool = False
    init: Init = "default"
    compile: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        """Check the numbers' ranges."""
        check_ranges(vars(self))


class SACLearner(SoftLearner):
    """Trains a tanh-Gaussian policy, m critics and the temperature by :class:`~o3f.objectives.SACLoss`.

    An update of one batch is a step of the critics, then one of policy and temperature with the new critics (d3rlpy's
    and RLPD's order), then a Polyak step of the target critics. Of several batches (a higher update-to-data ratio), all
    but the last serve the critics and their targets alone, as in REDQ and RLPD. The standard
    deviation of the policy depends on the observation, its logarithm is clipped to [-5, 2]. The temperature starts at
    1. Randomness is torch's global stream.

    Args:
        observation_dim: O.
        action_dim: A.
        config: hyper-parameters.
        device: of all networks.
        agent: networks to take, on that device, instead of those drawn by ``config``.
    """

    config_type = SACConfig
    loss: SACLoss
    squashed = True
    starts_from = frozenset({"cql"})
    draws_targets = True
    shared_keys = ("hidden_sizes", "num_critics", "layer_norm", "actor_layer_norm", "normalise")

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        config: SACConfig | None = None,
        device: torch.device | str | None = None,
        agent: Agent | None = None,
    ) -> None:
        config = config or SACConfig()
        rate = config.learning_rate
        self.config = config
        networks = fill_missing(soft_networks(observation_dim, action_dim, config, device), agent)
        self.policy, self.critic = networks.policy, networks.critic
        self.loss = SACLoss(
            networks.policy,
            networks.critic,
            target_entropy=config.target_entropy,
            aggregation=config.aggregation,
            subset_size=config.subset_size,
            actor_aggregation=config.actor_aggregation,
            entropy_backup=config.entropy_backup,
        )
        self.loss.make_value_estimator(gamma=config.discount)
        if networks.temperature is not None:
            self.loss.log_alpha.data.fill_(math.log(networks.temperature))
        self.optimisers = {
            "critic": GuardedAdam(self.critic.parameters(), lr=rate),
            "actor": GuardedAdam(self.policy.parameters(), lr=rate),
            "temperature": GuardedAdam([self.loss.log_alpha], lr=rate),
        }
        self._take_step = self._make_step(self._step)
        self._take_critic_step = self._make_step(self._critics_alone)

    def _step(self, batch: TensorDictBase, next_value: Tensor | None) -> dict[str, Tensor]:
        metrics = self._critic_step(batch, next_value) | self._policy_step(batch)
        self.loss.update_targets(self.config.tau)
        return metrics

    def _critic_step(self, batch: TensorDictBase, next_value: Tensor | None) -> dict[str, Tensor]:
        loss, info = self.loss.qvalue_loss(batch, next_value)
        minimise(loss, self.optimisers["critic"])
        return {"loss/critic": loss.detach(), **critic_metrics(info["state_action_value"])}

    def _policy_step(self, batch: TensorDictBase) -> dict[str, Tensor]:
        drawn = self.loss.draw(batch)
        loss_actor, info = self.loss.actor_loss(batch, drawn)
        if self.actor_term is not None:
            loss_actor = loss_actor + self.actor_term(batch)
        loss_alpha, temperature = self.loss.alpha_loss(batch, drawn[1])
        # These losses share no parameter: one backward pass serves both.
        minimise(loss_actor + loss_alpha, self.optimisers["actor"], self.optimisers["temperature"])
        return {
            "loss/actor": loss_actor.detach(),
            "loss/temperature": loss_alpha.detach(),
            "temperature": temperature["alpha"],
            "entropy": -info["log_prob"].mean(),
        }

    def draw_targets(self) -> None:
        """Draw the target critics anew, by ``init`` from torch's global stream; z-scores of their inputs stay.

        Raises:
            ConfigError: they are other networks than an :class:`~o3f.modules.EnsembleQValue`.
        """
        target = self.target_critic
        if not isinstance(target, EnsembleQValue):
            raise ConfigError(
                f"transfer.targets=false draws target critics that are an EnsembleQValue, found a"
                f" {type(target).__name__}: nothing tells how its weights were drawn. Use transfer.targets=true."
            )
        target.init = self.config.init
        target.reset_parameters()

    def start_from(self, state: Mapping[str, Any], *, copy_targets: bool, copy_optimisers: bool) -> None:
        """Take over the policy and the critics of a CQL (or another SAC) learner.

        Args:
            state: its ``state_dict()``.
            copy_targets: take its target critics, too. Otherwise they stay as drawn, like in d3rlpy, and follow
                by ``tau``: half of the way in 139 updates at 0.005.
            copy_optimisers: also take Adam's moments (the rates stay this learner's) and the temperature.

        Raises:
            ConfigError: if its networks are of another size.
        """
        own = self.loss.state_dict()
        networks = ["actor_network_params.", "qvalue_network_params."]
        networks += ["target_qvalue_network_params."] if copy_targets else []
        # z-scores are taken in any case: fresh targets see their inputs as the critics do that they will follow.
        names = [name for name in own if name.startswith(tuple(networks)) or name.endswith((".loc", ".scale"))]
        _check_sizes(own, state["loss"], names)
        names += ["log_alpha"] if copy_optimisers else []
        self.loss.load_state_dict({**own, **{name: state["loss"][name] for name in names}})
        for name, optimiser in self.optimisers.items() if copy_optimisers else ():
            moments = deepcopy(state["optimisers"][name]["state"])
            optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def _check_sizes(own: Mapping[str, Any], given: Mapping[str, Any], names: Sequence[str]) -> None:
    prefixes = tuple({name.split(".")[0] + "." for name in names})
    extra = [name for name in given if name.startswith(prefixes) and name not in own]
    for name in [*names, *extra]:
        found, expected = (getattr(state.get(name), "shape", None) for state in (given, own))
        require(
            found == expected,
            f"The networks to start from are not those of this learner: {name} is {_size(found)}, expected "
            f"{_size(expected)}. Give both the same hidden_sizes, num_critics, layer_norm, actor_layer_norm and"
            " normalise.",
        )


def _size(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(list(shape))
