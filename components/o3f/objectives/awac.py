"""Advantage-weighted actor-critic (Nair et al., 2020, https://arxiv.org/abs/2006.09359) with an ensemble of critics.

With q the minimum (or another ``aggregation``) of the m critics, q̄ that of their targets, λ = ``lam``, and γ
given to ``make_value_estimator(gamma=γ)``:

    loss_qvalue = mean  Σ_j distance(Q_j(s, a), r + γ (1 - terminated) q̄(s', a'))          with a' ~ π(s')
    loss_actor  = mean -w(A) log π(a | s)            with A = q(s, a) - q(s, ã), ã ~ π(s), a constant
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule, dispatch
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.modules.calls import sample_action
from o3f.objectives.actor_critic import ActorCriticLoss
from o3f.objectives.critics import Critics
from o3f.objectives.functional import Weighting, awac_weights
from o3f.objectives.loss_arguments import check_shape, log_probability
from o3f.objectives.ranges import coefficients_in_range


class AWACLoss(ActorCriticLoss):
    """The two losses of AWAC over m critics: no value network, no entropy.

    ``weighting="softmax"`` is d3rlpy's form: weights of mean 1 over the batch (over its rows that are no padding,
    where it has a mask). Its loss is the *sum* over the
    batch, ours (with ``reduction="mean"``) the mean, B times smaller, which matters only beside a weight decay.
    ``"exp"`` is CORL's form, ``min(exp(A / λ), 100)`` and the mean. Neither comes from the paper, which
    leaves the normalisation open.

    d3rlpy steps the losses in turn on each batch: critics, then the actor with the new critics, then the
    targets. :meth:`qvalue_loss` and :meth:`actor_loss` are public for that; :meth:`forward` is joint.

    Args:
        actor_network: the policy, with ``get_dist``; its samples are those of calling it, clipped if it clips.
        qvalue_network: see :class:`~o3f.objectives.actor_critic.ActorCriticLoss`.
        lam: λ, positive: the smaller, the greedier. A buffer, set in place (``loss.lam = 0.5``).
        weighting: ``"softmax"`` or ``"exp"``, see :func:`~o3f.objectives.awac_weights`.
        **kwargs: ``num_qvalue_nets``, ``loss_function``, ``aggregation``, ``subset_size``, ``reduction``,
            ``separate_losses``, ``generator`` and TorchRL's arguments of the same class.

    Raises:
        ValueError: if an argument is out of its range.

    Examples:
        >>> from o3f.modules import EnsembleQValue, gaussian_policy
        >>> from torchrl.objectives import SoftUpdate
        >>> loss = AWACLoss(gaussian_policy(3, 2), EnsembleQValue(3, 2, num_critics=2), lam=1.0)
        >>> target_updater = SoftUpdate(loss, tau=0.005)
        >>> loss.out_keys
        ['loss_actor', 'loss_qvalue']
    """

    _schedulable_buffers = frozenset({"lam"})
    lam: Tensor

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        qvalue_network: Critics | TensorDictModule | Sequence[TensorDictModule],
        *,
        lam: float = 1.0,
        weighting: Weighting = "softmax",
        **kwargs: Any,
    ) -> None:
        super().__init__(actor_network, qvalue_network, **kwargs)
        self.out_keys = ["loss_actor", "loss_qvalue"]
        coefficients = coefficients_in_range(lam=lam)
        awac_weights(torch.zeros(1), coefficients["lam"], weighting)  # an unknown weighting fails here
        self.weighting: Weighting = weighting
        self.register_coeff_buffer("lam", coefficients["lam"], device=self._default_device)

    def _sample(self, tensordict: TensorDictBase) -> Tensor:
        with set_exploration_type(ExplorationType.RANDOM):
            return self._act(tensordict)

    @torch.no_grad()
    def next_state_value(self, tensordict: TensorDictBase) -> Tensor:
        """Aggregated value ``[*B]`` of one sampled action in s', by the target critics."""
        tensordict = self._prepared(tensordict)
        following = tensordict["next"]
        return self._aggregate(self.target_qvalue_network, following, self._sample(following))

    @torch.no_grad()
    def advantage(self, tensordict: TensorDictBase, drawn: Tensor | None = None) -> Tensor:
        """Advantage ``[*B]`` of the batch's actions over one sampled action, in one evaluation of the critics.

        Args:
            tensordict: the batch.
            drawn: the sampled action ã ``[*B, A]``, by default drawn from the policy now.
        """
        tensordict = self._prepared(tensordict)
        drawn = self._sample(tensordict) if drawn is None else drawn
        taken = tensordict[self.tensor_keys.action]
        check_shape("the policy's action", drawn, taken.shape)
        action = torch.stack([taken, drawn], -2)
        value, baseline = self._aggregate(self.qvalue_network, tensordict, action).unbind(-1)
        return value - baseline

    def actor_loss(
        self, tensordict: TensorDictBase, advantage: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Regress the policy onto the actions of the batch, weighted by their advantage.

        Args:
            tensordict: the batch.
            advantage: ``[*B]``, by default :meth:`advantage`.

        Raises:
            ValueError: if the policy's log-probability is not one number per action.
        """
        tensordict = self._prepared(tensordict)
        if advantage is None:
            with set_exploration_type(ExplorationType.RANDOM):
                policy, drawn = sample_action(self.actor_network, tensordict, self.tensor_keys.action)
            advantage = self.advantage(tensordict, drawn)
        else:
            policy = self._distribution(tensordict)
        log_prob = log_probability(policy, tensordict[self.tensor_keys.action], advantage)
        weights = awac_weights(advantage, self.lam, self.weighting, self._valid(tensordict, advantage))
        loss = -weights * log_prob
        return self._reduce(loss, tensordict), {"log_prob": log_prob.detach(), "advantage": advantage}

    @dispatch()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Return both losses from the networks as they are now; the critics' draws come first.

        Writes each element's largest squared TD error over the critics to the ``priority`` key.
        """
        loss_qvalue, info = self.qvalue_loss(tensordict)
        loss_actor, _ = self.actor_loss(tensordict)
        tensordict.set(self.tensor_keys.priority, info["td_error"].amax(-1))
        return self._collect_output(tensordict, {"loss_actor": loss_actor, "loss_qvalue": loss_qvalue}, {})
