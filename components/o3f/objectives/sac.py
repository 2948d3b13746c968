"""Soft actor-critic (Haarnoja et al., 2018, https://arxiv.org/abs/1812.05905) with an ensemble of critics.

With α the learned temperature, H = ``target_entropy``, q̄ the minimum (or another ``aggregation``) of m target
critics, q that of the critics by ``actor_aggregation``, and γ given to ``make_value_estimator(gamma=γ)``:

    loss_qvalue = mean Σ_j distance(Q_j(s, a), r + γ (1 - terminated) V(s'))
                  with V(s') = q̄(s', a') - α log π(a' | s'),  a' ~ π(s')
    loss_actor  = mean α log π(ã | s) - q(s, ã)                  with ã ~ π(s)
    loss_alpha  = mean -log α (log π(ã | s) + H)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule, dispatch
from torch import Tensor, nn
from torchrl.data import Composite, TensorSpec
from torchrl.modules.distributions.utils import rsample_and_log_prob

from o3f.modules.arguments import check_switches
from o3f.objectives.actor_critic import ActorCriticLoss
from o3f.objectives.critics import Critics
from o3f.objectives.functional import aggregate_critics
from o3f.objectives.loss_arguments import check_shape
from o3f.objectives.ranges import coefficients_in_range

ActorAggregation: TypeAlias = Literal["min", "mean"]
Drawn: TypeAlias = tuple[Tensor, Tensor]


class SACLoss(ActorCriticLoss):
    """The three losses of soft actor-critic over m critics.

    Equal to :class:`torchrl.objectives.SACLoss` (its version without a value network) in values and gradients,
    with its keys and outputs; its arguments are accepted where they ask for what is done here, and refused by name
    where they do not. It differs in that ``loss_function`` is the paper's ``"l2"`` by default; that the critics are
    one module, faster than copies under ``vmap``, whose Parameters stay the caller's; in ``aggregation`` (REDQ and
    RLPD: the minimum of 2 of 10 targets), ``actor_aggregation`` and ``entropy_backup`` (RLPD leaves the entropy out
    on antmaze); and that the weights of a prioritised buffer count in all three losses. As there, the temperature's
    loss is linear in log α; the paper and d3rlpy have α itself.

    Args:
        actor_network: the policy, with ``get_dist``, of a reparameterised distribution.
        qvalue_network: see :class:`~o3f.objectives.actor_critic.ActorCriticLoss`.
        value_network: None; TorchRL's place for that of the algorithm's first version.
        target_entropy: H in nats; ``None`` or ``"auto"`` is the paper's -A, which needs a spec.
        action_spec: counts the actions for that, a leaf or a composite; by default the policy's ``spec``.
        alpha_init: the temperature at the start.
        actor_aggregation: the value the policy ascends: ``"min"`` over the critics, or ``"mean"`` (REDQ).
        entropy_backup: whether V(s') counts the policy's entropy.
        **kwargs: ``num_qvalue_nets``, ``loss_function``, ``aggregation``, ``subset_size``, ``reduction``,
            ``separate_losses``, ``generator`` and TorchRL's arguments of the same class.

    Raises:
        ValueError: if an argument is out of its range, ``target_entropy`` is None and unknown, or ``action_spec`` is of
            another number of actions than the policy has (at the call, where that has no spec).

    Examples:
        >>> from o3f.modules import EnsembleQValue, tanh_gaussian_policy
        >>> from torchrl.objectives import SoftUpdate
        >>> loss = SACLoss(tanh_gaussian_policy(3, 2), EnsembleQValue(3, 2, 10), aggregation="subset")
        >>> target_updater = SoftUpdate(loss, tau=0.005)
        >>> loss.target_entropy
        tensor(-2.)
    """

    _schedulable_buffers = frozenset({"target_entropy"})
    target_entropy: Tensor
    log_alpha: nn.Parameter

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        qvalue_network: Critics | TensorDictModule | Sequence[TensorDictModule],
        value_network: None = None,
        *,
        target_entropy: float | Literal["auto"] | None = None,
        action_spec: TensorSpec | None = None,
        alpha_init: float = 1.0,
        actor_aggregation: ActorAggregation = "min",
        entropy_backup: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(actor_network, qvalue_network, value_network=value_network, **kwargs)
        self.out_keys = ["loss_actor", "loss_qvalue", "loss_alpha", "alpha", "entropy"]
        if actor_aggregation not in ("min", "mean"):
            raise ValueError(f"actor_aggregation is {actor_aggregation!r}; expected 'min' or 'mean'.")
        check_switches(entropy_backup=entropy_backup)
        start = coefficients_in_range(alpha_init=alpha_init)["alpha_init"]
        self.actor_aggregation: ActorAggregation = actor_aggregation
        self.entropy_backup = entropy_backup
        known = not (target_entropy is None or (isinstance(target_entropy, str) and target_entropy == "auto"))
        self._num_actions: int | None = None if known else self._count_actions(action_spec)
        given: Any = target_entropy if known else -float(self._num_actions or 0)
        entropy = coefficients_in_range(target_entropy=given)["target_entropy"]
        self.register_coeff_buffer("target_entropy", entropy, device=self._default_device)
        self.alpha_init = start
        self.log_alpha = nn.Parameter(torch.tensor(math.log(start), device=self._default_device))

    def _count_actions(self, action_spec: TensorSpec | None) -> int:
        """The number of actions by the spec given, or the policy's own, which may not differ."""
        specs: list[Any] = [action_spec, getattr(self.actor_network, "spec", None)]
        key = self.tensor_keys.action
        leaves = [spec.get(key, None) if isinstance(spec, Composite) else spec for spec in specs]
        widths = [leaf.shape[-1] for leaf in leaves if leaf is not None]
        if len(set(widths)) > 1:
            raise ValueError(f"action_spec= has {widths[0]} actions and the policy's spec {widths[1]}: leave it out.")
        if not widths:
            raise ValueError(
                "target_entropy is None and the policy has no spec to count the actions; give one, or action_spec=."
            )
        return int(widths[0])

    @torch.no_grad()
    def reset_parameters_recursive(self) -> None:
        """As of every loss of ours; the temperature goes back to ``alpha_init``."""
        super().reset_parameters_recursive()
        self.log_alpha.fill_(math.log(self.alpha_init))

    @property
    def alpha(self) -> Tensor:
        """The temperature, a constant."""
        return self.log_alpha.detach().exp()

    def draw(self, tensordict: TensorDictBase) -> Drawn:
        """Return a sampled action ``[*B, A]`` and its log-probability ``[*B]``, both with gradients."""
        tensordict = self._prepared(tensordict)
        action, log_prob = rsample_and_log_prob(self._distribution(tensordict))
        if self._num_actions not in (None, action.shape[-1]):
            raise ValueError(
                f"The target entropy counts {self._num_actions} actions, by action_spec=, and the policy has"
                f" {action.shape[-1]}: give the spec of this policy's actions."
            )
        return action, log_prob

    @torch.no_grad()
    def next_state_value(self, tensordict: TensorDictBase) -> Tensor:
        """Soft value ``[*B]`` of s': one sampled action, judged by the target critics."""
        tensordict = self._prepared(tensordict)
        following = tensordict["next"]
        action, log_prob = self.draw(following)
        value = self._aggregate(self.target_qvalue_network, following, action)
        return value - self.alpha * log_prob if self.entropy_backup else value

    def actor_loss(self, tensordict: TensorDictBase, drawn: Drawn | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Ascend the critics' value of the policy's own actions, and its entropy.

        Args:
            tensordict: the batch.
            drawn: by default :meth:`draw`.
        """
        tensordict = self._prepared(tensordict)
        action, log_prob = self.draw(tensordict) if drawn is None else drawn
        with self._constant("qvalue_network") as critics:
            value = aggregate_critics(self._qvalues(critics, tensordict, action), self.actor_aggregation)
        check_shape("log_prob", log_prob, value.shape)
        loss = self.alpha * log_prob - value
        return self._reduce(loss, tensordict), {"log_prob": log_prob.detach(), "policy_value": value.detach()}

    def alpha_loss(
        self, tensordict: TensorDictBase, log_prob: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Raise the temperature while the policy's entropy is below its target, lower it while above.

        Args:
            tensordict: the batch.
            log_prob: of sampled actions, ``[*B]``, by default of :meth:`draw`.
        """
        tensordict = self._prepared(tensordict)
        if log_prob is None:
            with torch.no_grad():
                log_prob = self.draw(tensordict)[1]
        if tensordict.ndim:  # a batch may leave its own shape out
            check_shape("log_prob", log_prob, tensordict.batch_size)
        loss = -self.log_alpha * (log_prob.detach() + self.target_entropy)
        return self._reduce(loss, tensordict), {"alpha": self.alpha}

    @dispatch()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Return all losses, the temperature and the policy's entropy, from the networks as they are now.

        The draws are in the order of TorchRL's loss: next action, then action. Writes each element's largest
        squared TD error over the critics to the ``priority`` key.
        """
        loss_qvalue, info = self.qvalue_loss(tensordict)
        drawn = self.draw(tensordict)
        tensordict.set(self.tensor_keys.priority, info["td_error"].amax(-1))
        losses = {
            "loss_actor": self.actor_loss(tensordict, drawn)[0],
            "loss_qvalue": loss_qvalue,
            "loss_alpha": self.alpha_loss(tensordict, drawn[1])[0],
        }
        return self._collect_output(tensordict, losses, {"alpha": self.alpha, "entropy": -drawn[1].detach()})
