"""The AWAC learner: networks, optimisers and the order of the steps."""

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
from o3f.modules import gaussian_policy
from o3f.modules.mlp import Init
from o3f.objectives import AWACLoss
from o3f.objectives.functional import Aggregation, Weighting, weight_metrics
from o3f.objectives.ranges import check_ranges


@dataclass(frozen=True)
class AWACConfig:
    """Hyper-parameters; the defaults are those of d3rlpy and its script that reproduces the paper.

    Args:
        hidden_sizes: widths of the hidden layers of the critics.
        actor_hidden_sizes: of the policy.
        num_critics: m.
        layer_norm: LayerNorm in the critics.
        lam: λ of the actor loss: the smaller, the greedier.
        weighting: ``"softmax"`` over the batch, or ``"exp"`` capped at 100.
        discount: γ.
        tau: Polyak rate of the target critics.
        learning_rate: of Adam, for all networks.
        weight_decay: of the policy, added to the gradient of the loss *summed* over the batch.
        aggregation: one value out of m critics: ``"min"``, ``"mean"`` or ``"subset"``.
        subset_size: members that ``"subset"`` draws per update.
        normalise: z-scores of observations and actions inside the networks, measured on the dataset.
        init: of every layer, ``"default"`` (torch's) or ``"orthogonal"``.
        compile: take each gradient step as one compiled graph: half a minute at the start of a process (seconds where
            its cache is warm), then faster. Needs a C++ compiler on a CPU. ``auto`` is for recipes, see
            :func:`~o3f.training.compiling.settle_compile`; a learner takes it as false.

    Raises:
        ConfigError: for a value out of its range.
    """

    hidden_sizes: Sequence[int] = (256, 256)
    actor_hidden_sizes: Sequence[int] = (256, 256, 256, 256)
    num_critics: int = 2
    layer_norm: bool = False
    lam: float = 1.0
    weighting: Weighting = "softmax"
    discount: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    aggregation: Aggregation = "min"
    subset_size: int = 2
    normalise: bool = False
    init: Init = "default"
    compile: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        """Check the numbers' ranges."""
        check_ranges(vars(self))


class AWACLearner(Learner):
    """Trains a policy and m critics by :class:`~o3f.objectives.AWACLoss`.

    Each update follows d3rlpy's order: critics, policy with the new critics, Polyak step of the targets. The
    policy is a Gaussian around a tanh mean, not squashed, the logarithm of its standard deviation
    ``-6 + 6 sigmoid(p)`` with one parameter per action, 0 at the start. Its loss is multiplied by the batch
    size, so that ``weight_decay`` counts as beside d3rlpy's sum; Adam does not see the factor otherwise. The
    metrics are means. Initial weights, actions and subsets are drawn from torch's global stream.

    Args:
        observation_dim: O.
        action_dim: A.
        config: hyper-parameters.
        device: of all networks.
        agent: networks to take, on that device, instead of those drawn by ``config``.
    """

    config_type = AWACConfig
    compiles_up_to = math.inf
    loss: AWACLoss

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        config: AWACConfig | None = None,
        device: torch.device | str | None = None,
        agent: Agent | None = None,
    ) -> None:
        config = config or AWACConfig()
        self.config = config
        policy = gaussian_policy(
            observation_dim,
            action_dim,
            tuple(config.actor_hidden_sizes),
            init=config.init,
            log_std_bounds=(-6.0, 0.0),
            log_std_rule="sigmoid",
            normalise=config.normalise,
            device=device,
        )
        critic = make_critics(observation_dim, action_dim, config, device)
        networks = fill_missing(Agent(policy, critic), agent)
        self.policy, self.critic = networks.policy, networks.critic
        self.loss = AWACLoss(
            networks.policy,
            networks.critic,
            lam=config.lam,
            weighting=config.weighting,
            aggregation=config.aggregation,
            subset_size=config.subset_size,
        )
        self.loss.make_value_estimator(gamma=config.discount)
        rate, decay = config.learning_rate, config.weight_decay
        self.optimisers = {
            "critic": GuardedAdam(self.critic.parameters(), lr=rate),
            "actor": GuardedAdam(self.policy.parameters(), lr=rate, weight_decay=decay),
        }
        self._take_step = self._make_step(self._step)

    def update(self, batches: Sequence[TensorDictBase], *, report: bool = True) -> dict[str, Tensor]:
        """Take one step of the critics and one of the policy per batch ``[B]``; return the last one's metrics."""
        metrics: dict[str, Tensor] = {}
        for batch in batch_list(batches):
            next_value = None if self.next_value is None else self.next_value(batch)
            metrics = self._take_step(batch, next_value)
            self.updates += 1
        return self._metrics(metrics) if report and metrics else {}

    def _step(self, batch: TensorDictBase, next_value: Tensor | None) -> dict[str, Tensor]:
        loss = self.loss
        loss_critic, critic_info = loss.qvalue_loss(batch, next_value)
        minimise(loss_critic, self.optimisers["critic"])

        loss_actor, actor_info = loss.actor_loss(batch)
        if self.actor_term is not None:
            loss_actor = loss_actor + self.actor_term(batch)
        minimise(loss_actor * batch.numel(), self.optimisers["actor"])

        loss.update_targets(self.config.tau)
        return detached({"loss/critic": loss_critic, "loss/actor": loss_actor, **critic_info, **actor_info})

    @torch.no_grad()
    def _metrics(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        advantage, q = metrics["advantage"], metrics["state_action_value"]
        capped = weight_metrics(advantage, 1 / self.loss.lam) if self.config.weighting == "exp" else {}
        return {
            **{name: metrics[name] for name in ("loss/critic", "loss/actor")},
            **critic_metrics(q),
            "advantage/mean": advantage.mean(),
            **capped,
        }
