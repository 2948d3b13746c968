"""The implicit Q-learning learner: networks, optimisers and the order of the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from o3f.algorithms.agent import Agent, fill_missing, make_critics
from o3f.algorithms.guarded_adam import GuardedAdam, minimise
from o3f.algorithms.learner import Learner, batch_list, critic_metrics, detached
from o3f.modules import gaussian_policy, value_network
from o3f.modules.mlp import Init
from o3f.objectives import IQLLoss
from o3f.objectives.functional import Aggregation, weight_metrics
from o3f.objectives.ranges import check_ranges


@dataclass(frozen=True)
class IQLConfig:
    """Hyper-parameters; the defaults are IQL's for locomotion, with the five critics of O3F.

    Args:
        hidden_sizes: widths of the hidden layers of every network.
        num_critics: m.
        layer_norm: LayerNorm in the critics Q (alone: V and the policy never see an action outside the data).
        expectile: τ of the value loss.
        temperature: β of the actor loss, an inverse temperature.
        discount: γ.
        tau: Polyak rate of the target critics.
        learning_rate: of Adam, for all networks.
        actor_dropout: of the policy's hidden layers; 0.1 in the paper's kitchen and adroit tasks.
        aggregation: one value out of m target critics: ``"min"``, ``"mean"`` or ``"subset"``.
        subset_size: members that ``"subset"`` draws per update.
        normalise: z-scores of observations and actions inside the networks, measured on the dataset.
        init: of every layer, ``"orthogonal"`` (the original's) or ``"default"`` (torch's).
        actor_decay_steps: updates over which the actor's rate falls to 0 on a cosine; None keeps it
            constant (as the original does in fine-tuning).
        compile: take each gradient step as one compiled graph: half a minute at the start of a process (seconds where
            its cache is warm), then faster. Needs a C++ compiler on a CPU. ``auto`` is for recipes, see
            :func:`~o3f.training.compiling.settle_compile`; a learner takes it as false.

    Raises:
        ConfigError: for a value out of its range.
    """

    hidden_sizes: Sequence[int] = (256, 256)
    num_critics: int = 5
    layer_norm: bool = False
    expectile: float = 0.7
    temperature: float = 3.0
    discount: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    actor_dropout: float = 0.0
    aggregation: Aggregation = "min"
    subset_size: int = 2
    normalise: bool = False
    init: Init = "orthogonal"
    actor_decay_steps: int | None = None
    compile: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        """Check the numbers' ranges."""
        check_ranges(vars(self))


class IQLLearner(Learner):
    """Trains a policy, m critics and a value network by :class:`~o3f.objectives.IQLLoss`.

    Each update follows the original's order: V towards the target critics, policy with the target critics
    and the new V, critics with the new V, Polyak step of the targets. Initial weights, dropout masks and
    subsets are drawn from torch's global stream.

    Args:
        observation_dim: O.
        action_dim: A.
        config: hyper-parameters.
        device: of all networks.
        agent: networks to take, on that device, instead of those drawn by ``config``.
    """

    config_type = IQLConfig
    compiles_up_to = math.inf
    needs_value = True

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        config: IQLConfig | None = None,
        device: torch.device | str | None = None,
        agent: Agent | None = None,
    ) -> None:
        config = config or IQLConfig()
        sizes = tuple(config.hidden_sizes)
        self.config = config
        policy = gaussian_policy(
            observation_dim,
            action_dim,
            sizes,
            dropout=config.actor_dropout,
            init=config.init,
            normalise=config.normalise,
            device=device,
        )
        critic = make_critics(observation_dim, action_dim, config, device)
        value = value_network(observation_dim, sizes, init=config.init, normalise=config.normalise, device=device)
        networks = fill_missing(Agent(policy, critic, value), agent)
        self.policy, self.critic = networks.policy, networks.critic
        self.loss = IQLLoss(
            networks.policy,
            networks.critic,
            networks.value,
            expectile=config.expectile,
            temperature=config.temperature,
            aggregation=config.aggregation,
            subset_size=config.subset_size,
        )
        self.loss.make_value_estimator(gamma=config.discount)
        rate = config.learning_rate
        # The actor's and the critics' losses share no parameter: one backward pass and one step serve both.
        groups = [{"params": list(network.parameters())} for network in (self.policy, self.critic)]
        self.optimisers = {
            "value": GuardedAdam(self.loss.value_network.parameters(), lr=rate),
            "rest": GuardedAdam(groups, lr=rate),
        }
        self._take_step = self._make_step(self._step)
        self.policy.eval()

    def update(self, batches: Sequence[TensorDictBase], *, report: bool = True) -> dict[str, Tensor]:
        """Take one gradient step per batch ``[B]``; return metrics of the last one as 0-d tensors."""
        metrics: dict[str, Tensor] = {}
        dropout = self.config.actor_dropout > 0  # only then does the policy differ from itself in evaluation
        if dropout:
            self.policy.train()
        for batch in batch_list(batches):
            next_value = None if self.next_value is None else self.next_value(batch)
            self._set_actor_rate()
            metrics = self._take_step(batch, next_value)
            self.updates += 1
        if dropout:
            self.policy.eval()
        return self._metrics(metrics) if report and metrics else {}

    def _step(self, batch: TensorDictBase, next_value: Tensor | None) -> dict[str, Tensor]:
        target_q = self.loss.target_qvalue(batch)
        loss_value, value_info = self.loss.value_loss(batch, target_q)
        minimise(loss_value, self.optimisers["value"])

        value, own_next_value = self.loss.state_values(batch)
        loss_actor, actor_info = self.loss.actor_loss(batch, target_q, value)
        loss_critic, critic_info = self.loss.qvalue_loss(batch, own_next_value if next_value is None else next_value)
        total = loss_actor + loss_critic
        if self.actor_term is not None:
            total = total + self.actor_term(batch)
        minimise(total, self.optimisers["rest"])

        self.loss.update_targets(self.config.tau)
        losses = {"loss/value": loss_value, "loss/actor": loss_actor, "loss/critic": loss_critic}
        return {**detached(losses), **value_info, **actor_info, **critic_info}

    def _set_actor_rate(self) -> None:
        # Set at every update, so that a decayed rate in a loaded state does not outlive the decay.
        horizon = self.config.actor_decay_steps
        progress = 0.0 if horizon is None else min(self.updates / horizon, 1.0)
        rate = self.config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
        self.optimisers["rest"].param_groups[0]["lr"] = rate

    @torch.no_grad()
    def _metrics(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        advantage, q = metrics["advantage"], metrics["state_action_value"]
        return {
            **{name: metrics[name] for name in ("loss/value", "loss/actor", "loss/critic")},
            "value/mean": metrics["state_value"].mean(),
            **critic_metrics(q),
            "advantage/mean": advantage.mean(),
            **weight_metrics(advantage, self.loss.temperature),
        }
