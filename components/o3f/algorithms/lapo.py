"""The LAPO learner: networks, optimisers and the order of the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Bounded

from o3f.algorithms.guarded_adam import GuardedAdam, minimise
from o3f.algorithms.learner import Learner, batch_list, critic_metrics, detached
from o3f.errors import require
from o3f.modules import (
    EnsembleQValue,
    LatentPolicy,
    latent_actor,
    latent_decoder,
    latent_encoder,
    value_network,
)
from o3f.modules.mlp import Init
from o3f.objectives import LAPOLoss
from o3f.objectives.functional import Aggregation
from o3f.objectives.lapo import ActorAggregation
from o3f.objectives.ranges import check_ranges
from o3f.objectives.value_clamp import ClampMode

CRITICS = ("qvalue_network", "value_network")


@dataclass(frozen=True)
class LAPOConfig:
    """Hyper-parameters; the defaults are LAPO's for locomotion, with O3F's five critics and subset targets.

    Args:
        hidden_sizes: widths of the hidden layers of every network.
        num_critics: m.
        subset_size: k, target critics drawn for each use; None takes all.
        latent_dim: Z; None is twice the number of actions.
        max_latent: L, the largest entry of a latent.
        min_weight: λ, weight of the smallest against the largest target critic; 0.7 on antmaze.
        kl_weight: β of the autoencoder.
        advantage_weight: w, weight of the actions of positive advantage; the others have 1 - w.
        discount: γ, below 1.
        tau: Polyak rate of all targets.
        learning_rate: of Adam, for all networks.
        target_noise: standard deviation of the noise on target latents.
        target_noise_clip: its largest size.
        value_clamp: ``"running"``, ``"fixed"`` or ``"none"``, see :class:`~o3f.objectives.ValueClamp`.
        value_bounds: of the values, where they are known: 0 and 100 on antmaze, with its rewards times 100.
        delay_value: bootstrap from a target V.
        actor_aggregation: the latent actor ascends the ``"mean"`` of the critics or the ``"first"``.
        layer_norm: LayerNorm in the critics Q.
        normalise: z-score states and actions with the dataset's statistics, inside the networks.
        init: of every layer, ``"default"`` (torch's, the original's) or ``"orthogonal"``.
        compile: take each gradient step as one compiled graph: half a minute at the start of a process (seconds where
            its cache is warm), then faster. Needs a C++ compiler on a CPU. ``auto`` is for recipes, see
            :func:`~o3f.training.compiling.settle_compile`; a learner takes it as false.

    Raises:
        ConfigError: for a value out of its range.
    """

    hidden_sizes: Sequence[int] = (256, 256, 256)
    num_critics: int = 5
    subset_size: int | None = 2
    latent_dim: int | None = None
    max_latent: float = 2.0
    min_weight: float = 1.0
    kl_weight: float = 1.0
    advantage_weight: float = 0.9
    discount: float = 0.99
    tau: float = 0.005
    learning_rate: float = 2e-4
    target_noise: float = 0.1
    target_noise_clip: float = 0.2
    value_clamp: ClampMode = "running"
    value_bounds: Sequence[float] | None = None
    delay_value: bool = False
    actor_aggregation: ActorAggregation = "mean"
    layer_norm: bool = False
    normalise: bool = True
    init: Init = "default"
    compile: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        """Check the numbers' ranges."""
        check_ranges(vars(self))
        require(self.discount < 1, f"discount must be below 1, found {self.discount}: values are bounded by it.")


class LAPOLearner(Learner):
    """Trains a latent policy, m critics and a value network by :class:`~o3f.objectives.LAPOLoss`.

    Each update takes a step of all critics and V per batch, then, on the last batch, one of the autoencoder
    (advantages from the new V) and one of the latent actor (with the new critics). One batch is the original's
    update; O3F gives 20 online. Targets follow at the end of the step of the networks they belong to; those of
    the critics after the advantage in the last one, as in the original.

    The policy acts with the latent actor as it is and the *target* decoder. Initial weights, noise and subsets
    are drawn from torch's global stream.

    Args:
        observation_dim: O.
        action_dim: A.
        config: hyper-parameters.
        device: of all networks.
    """

    config_type = LAPOConfig
    compiles_up_to = 256  # above that eager passes go through blocks of rows, which are as fast
    loss: LAPOLoss
    accepts_agent = False

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        config: LAPOConfig | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.config = config or LAPOConfig()
        self.loss = _make_loss(observation_dim, action_dim, self.config, device)
        self.loss.make_value_estimator(gamma=self.config.discount)
        self.critic = self.loss.critic
        bounds = Bounded(low=-1.0, high=1.0, shape=torch.Size((action_dim,)), device=device)
        self.policy = LatentPolicy(self.loss.actor_network, self.loss.target_decoder_network, bounds)
        rate, loss = self.config.learning_rate, self.loss
        # The autoencoder's and the actor's losses share no parameter: one backward pass and step serve both.
        groups = {
            "critic": (loss.qvalue_network, loss.value_network),
            "policy": (loss.encoder_network, loss.decoder_network, loss.actor_network),
        }
        self.optimisers = {
            name: GuardedAdam([p for network in networks for p in network.parameters()], lr=rate)
            for name, networks in groups.items()
        }
        self._take_critic_step = self._make_step(self._critic_step)
        self._take_policy_step = self._make_step(self._policy_step)

    @property
    def target_rule(self) -> tuple[Aggregation, int]:
        """A subset of the target critics, or the smallest of all."""
        subset = self.config.subset_size
        return ("min", self.config.num_critics) if subset is None else ("subset", subset)

    def prepare(self, dataset: TensorDictBase) -> None:
        """Fit the z-scores of states and actions to the dataset's rows ``[D]``, and the range of its rewards.

        Raises:
            ConfigError: a reward lies outside ``value_bounds``, which are then of another reward rule.
        """
        if self.config.normalise:
            super().prepare(dataset)
        rewards, bounds = dataset["next", "reward"], self.config.value_bounds
        low, high = rewards.min().item(), rewards.max().item()
        require(
            bounds is None or (bounds[0] <= low and high <= bounds[1]),
            f"value_bounds={bounds}, but the learner's rewards of the dataset lie in [{low:.6g}, {high:.6g}], so values"
            " go beyond: give the bounds of these rewards, algorithm.value_bounds=null, or task.reward.rule=lapo.",
        )
        self.loss.value_clamp.fit(rewards)

    def update(self, batches: Sequence[TensorDictBase], *, report: bool = True) -> dict[str, Tensor]:
        """Take a critic step per batch ``[B]``, a policy step on the last; return metrics of it as 0-d tensors."""
        if not batch_list(batches):
            return {}
        metrics: dict[str, Tensor] = {}
        for index, (batch, action) in enumerate(zip(batches, self._target_actions(batches), strict=True)):
            next_value = None if self.next_value is None else self.next_value(batch)
            if index:
                self.loss.update_targets(self.config.tau, CRITICS)
            metrics = self._take_critic_step(batch, action, next_value)
            self.updates += 1
        metrics |= self._take_policy_step(batches[-1])
        return self._metrics(metrics) if report else {}

    def _target_actions(self, batches: Sequence[TensorDictBase]) -> Sequence[Tensor]:
        """The targets' actions in all states: the target policy stands still until the policy's step."""
        keys = self.policy.in_keys
        states: Any = torch.cat([batch.select(*keys) for batch in batches])
        return torch.split(self.loss.target_action(states), [len(batch) for batch in batches])

    def _critic_step(self, batch: TensorDictBase, action: Tensor, next_value: Tensor | None) -> dict[str, Tensor]:
        loss_value, value_info = self.loss.value_loss(batch, action)
        loss_critic, critic_info = self.loss.qvalue_loss(batch, next_value)
        minimise(loss_value + loss_critic, self.optimisers["critic"])
        return detached({"loss/value": loss_value, "loss/critic": loss_critic, **value_info, **critic_info})

    def _policy_step(self, batch: TensorDictBase) -> dict[str, Tensor]:
        loss_vae, info = self.loss.vae_loss(batch)
        loss_actor, _ = self.loss.actor_loss(batch)
        if self.actor_term is not None:
            loss_actor = loss_actor + self.actor_term(batch)
        minimise(loss_vae + loss_actor, self.optimisers["policy"])
        self.loss.update_targets(self.config.tau)
        return detached({"loss/vae": loss_vae, "loss/actor": loss_actor, **info})

    @torch.no_grad()
    def _metrics(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        advantage, q = metrics["advantage"], metrics["state_action_value"]
        losses = ("loss/critic", "loss/value", "loss/vae", "loss/actor")
        return {
            **{name: metrics[name] for name in losses},
            "value/mean": metrics["state_value"].mean(),
            "value/clamped_share": metrics["clamped"].to(q.dtype).mean(),
            **critic_metrics(q),
            "advantage/mean": advantage.mean(),
            "advantage/positive_share": (advantage > 0).to(q.dtype).mean(),
            "vae/reconstruction": metrics["reconstruction"].mean(),
            "vae/divergence": metrics["divergence"].mean(),
        }


def _make_loss(
    observation_dim: int, action_dim: int, config: LAPOConfig, device: torch.device | str | None
) -> LAPOLoss:
    sizes, init = tuple(config.hidden_sizes), config.init
    latent_dim = 2 * action_dim if config.latent_dim is None else config.latent_dim
    value = value_network(observation_dim, sizes, init=init, normalise=True, device=device)
    return LAPOLoss(
        latent_actor(observation_dim, latent_dim, sizes, max_latent=config.max_latent, init=init, device=device),
        latent_encoder(observation_dim, action_dim, latent_dim, sizes, init=init, device=device),
        latent_decoder(observation_dim, action_dim, latent_dim, sizes, init=init, device=device),
        EnsembleQValue(
            observation_dim,
            action_dim,
            config.num_critics,
            sizes,
            layer_norm=config.layer_norm,
            init=init,
            normalise=True,
            device=device,
        ),
        value,
        subset_size=config.subset_size,
        min_weight=config.min_weight,
        advantage_weight=config.advantage_weight,
        kl_weight=config.kl_weight,
        target_noise=config.target_noise,
        target_noise_clip=config.target_noise_clip,
        value_clamp=config.value_clamp,
        value_bounds=config.value_bounds,
        delay_value=config.delay_value,
        actor_aggregation=config.actor_aggregation,
    )
