"""The TD3+BC learner: what would be algorithms/td3_bc.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.modules import Actor

from o3f.algorithms import Agent, Learner
from o3f.algorithms.agent import fill_missing
from o3f.algorithms.guarded_adam import GuardedAdam, minimise
from o3f.modules import EnsembleQValue, Normaliser
from o3f.modules.mlp import mlp
from o3f.objectives.ranges import check_ranges
from tests.support.td3_bc.loss import TD3BCLoss


@dataclass(frozen=True)
class TD3BCConfig:
    """Hyper-parameters; the defaults are the paper's.

    Args:
        hidden_sizes: widths of the hidden layers of every network.
        num_critics: m.
        alpha: weight of the values.
        policy_noise: on target actions.
        noise_clip: its largest size.
        actor_every: updates of the critics to one of the policy and the targets.
        discount: γ.
        tau: Polyak rate of the targets.
        learning_rate: of Adam, for all networks.
        normalise: z-scores of observations and actions inside the networks.
    """

    hidden_sizes: Sequence[int] = (256, 256)
    num_critics: int = 2
    alpha: float = 2.5
    policy_noise: float = 0.2
    noise_clip: float = 0.5
    actor_every: int = 2
    discount: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    normalise: bool = True

    def __post_init__(self) -> None:
        """Check the numbers' ranges."""
        check_ranges(vars(self))


class TD3BCLearner(Learner):
    """Trains a deterministic policy and m critics by :class:`TD3BCLoss`, in the order of the paper's code."""

    config_type = TD3BCConfig
    loss: TD3BCLoss

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        config: TD3BCConfig | None = None,
        device: torch.device | str | None = None,
        agent: Agent | None = None,
    ) -> None:
        self.config = config = config or TD3BCConfig()
        sizes, rate = tuple(config.hidden_sizes), config.learning_rate
        scores = Normaliser(observation_dim, ["observation"], device) if config.normalise else None
        network = mlp([observation_dim, *sizes, action_dim], init="default", normaliser=scores, device=device)
        spec = Bounded(-1.0, 1.0, torch.Size((action_dim,)), device=device)
        policy = Actor(nn.Sequential(network, nn.Tanh()), in_keys=["observation"], out_keys=["action"], spec=spec)
        critic = EnsembleQValue(
            observation_dim,
            action_dim,
            config.num_critics,
            sizes,
            init="default",
            normalise=config.normalise,
            device=device,
        )
        networks = fill_missing(Agent(policy, critic), agent)
        self.policy, self.critic = networks.policy, networks.critic
        noise = {"policy_noise": config.policy_noise, "noise_clip": config.noise_clip}
        self.loss = TD3BCLoss(self.policy, self.critic, alpha=config.alpha, **noise)
        self.loss.make_value_estimator(gamma=config.discount)
        self.optimisers = {
            "critic": GuardedAdam(self.critic.parameters(), lr=rate),
            "actor": GuardedAdam(self.policy.parameters(), lr=rate),
        }

    def update(self, batches: Sequence[TensorDictBase], *, report: bool = True) -> dict[str, Tensor]:
        """Take one step of the critics per batch, of the policy and the targets on every second."""
        metrics: dict[str, Tensor] = {}
        for batch in batches:
            next_value = None if self.next_value is None else self.next_value(batch)
            loss, info = self.loss.qvalue_loss(batch, next_value)
            minimise(loss, self.optimisers["critic"])
            values = info["state_action_value"]
            metrics = {"loss/critic": loss.detach(), "critic/mean": values.mean()}
            metrics["critic/std"] = values.std(-1, correction=0).mean()
            self.updates += 1
            loss_actor, _ = self.loss.actor_loss(batch)
            metrics["loss/actor"] = loss_actor.detach()
            if self.updates % self.config.actor_every == 0:
                if self.actor_term is not None:
                    loss_actor = loss_actor + self.actor_term(batch)
                minimise(loss_actor, self.optimisers["actor"])
                self.loss.update_targets(self.config.tau)
        return metrics if report else {}
