"""Two options that change the objective and not only the action: what O3F chooses, used for training.

Neither is part of O3F, whose point is to leave the objective alone. Both take an
:class:`~o3f.modules.OptimisticActor`, so they choose as acting does.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.errors import require_range
from o3f.modules import LatentPolicy, OptimisticActor
from o3f.modules.acting import action_bounds, evaluating
from o3f.modules.arguments import check_module
from o3f.objectives.functional import Aggregation, aggregate_critics
from o3f.objectives.loss_arguments import log_probability


class BestOfNValue:
    r"""A value of the next state that assumes optimistic selection there, for the critics' target.

    .. math::
        V(s') = \mathrm{agg}_j \bar{Q}_j(s', c_{i^*}), \quad i^* = \mathrm{argmax}_i \, f_i(s')

    with the candidates c and their scores f of ``actor``, the target critics of ``target_critic`` and agg =
    ``aggregation``. Online critics choose and target critics evaluate, as in double Q-learning. Give the result
    to a loss: ``loss.qvalue_loss(batch, next_value=best_of_n(batch))``. There is no entropy in it.

    Args:
        actor: chooses the action.
        target_critic: writes ``[*B, m]`` as its last output.
        aggregation: one value out of m, see :func:`~o3f.objectives.aggregate_critics`.
        subset_size: members that ``"subset"`` draws.
    """

    def __init__(
        self,
        actor: OptimisticActor,
        target_critic: TensorDictModuleBase,
        aggregation: Aggregation = "min",
        subset_size: int = 2,
    ) -> None:
        check_module("target_critic", target_critic)
        self.actor = actor
        self.target_critic = target_critic
        self.aggregation: Aggregation = aggregation
        self.subset_size = subset_size

    @torch.no_grad()
    def __call__(self, batch: TensorDictBase) -> Tensor:
        """Return the values ``[*B]`` of the next states in ``batch``."""
        following = best_action(self.actor, batch["next"])
        with evaluating(self.target_critic):
            values = self.target_critic(following).get(self.target_critic.out_keys[-1])
        return aggregate_critics(values, self.aggregation, self.subset_size)


class DistillationLoss:
    r"""Pulls the policy towards the action that optimistic selection chooses in the states of a batch.

    .. math::
        L = w \, \mathrm{mean}_s \left( -\log \pi(c_{i^*} | s) \right), \quad
        i^* = \mathrm{argmax}_i \, f_i(s)

    with w = ``weight`` and the candidates c and scores f of ``actor``. A deterministic policy (no ``get_dist``)
    has the squared distance of its action instead of the negative log-likelihood, summed over action dimensions;
    that of a :class:`~o3f.modules.LatentPolicy` before it is clipped, so that a gradient is left at the bounds.

    Args:
        policy: the policy to train.
        actor: chooses the action.
        weight: w, at least 0.
        margin: distance that the chosen action keeps from the bounds of the actor's spec (-1 and 1 without one), where
            the density of a tanh policy is not finite; in units of half their distance.

    Raises:
        ConfigError: (a ValueError) if ``weight`` is not finite and at least 0, or ``margin`` not in [0, 1).
    """

    def __init__(
        self, policy: TensorDictModuleBase, actor: OptimisticActor, weight: float = 1.0, margin: float = 0.01
    ) -> None:
        require_range({"weight": weight}, "weight", "[0, inf)")
        require_range({"margin": margin}, "margin", "[0, 1)")
        self.policy = policy
        self.actor = actor
        self.weight = weight
        self.margin = margin

    def __call__(self, batch: TensorDictBase) -> Tensor:
        """Return the loss, a scalar, for the states in ``batch`` ``[*B]``.

        Raises:
            ValueError: if the policy's distribution does not say one number per action.
        """
        key = self.actor.action_key
        chosen = best_action(self.actor, batch).get(key)
        states = batch.select(*self.policy.in_keys)
        policy: Any = self.policy
        if hasattr(policy, "get_dist"):
            inner = chosen.clamp(*self._inner_bounds(chosen))
            loss = -log_probability(policy.get_dist(states), inner, like=chosen[..., 0])
        elif isinstance(policy, LatentPolicy):
            loss = (policy.decoder(policy.actor(states)).get(key) - chosen).square().sum(-1)
        else:
            loss = (policy(states).get(key) - chosen).square().sum(-1)
        weighted: Tensor = self.weight * loss.mean()
        return weighted

    def _inner_bounds(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """The bounds ``[A]``, drawn in by the margin."""
        bounds = action_bounds(self.actor.spec, self.actor.action_key)
        one = action.new_ones(())
        low, high = (-one, one) if bounds is None else (bounds["low"].to(action), bounds["high"].to(action))
        centre, half = (high + low) / 2, (high - low) / 2 * (1 - self.margin)
        return centre - half, centre + half


@torch.no_grad()
def best_action(actor: OptimisticActor, states: TensorDictBase) -> TensorDictBase:
    """Return the states ``[*B]`` with the action that the actor executes there when it explores."""
    with set_exploration_type(ExplorationType.RANDOM):
        return actor(states.select(*actor.in_keys))
