"""Implicit Q-learning (Kostrikov et al., 2021, https://arxiv.org/abs/2110.06169) with an ensemble of critics.

With q(s, a) the minimum (or another ``aggregation``) of m target critics, τ = ``expectile``,
β = ``temperature`` (an inverse temperature), and γ given to ``make_value_estimator(gamma=γ)``:

    loss_value  = mean  |τ - 1(u < 0)| u²                         with u = q(s, a) - V(s)
    loss_actor  = mean -min(exp(β A), 100) log π(a | s)           with A = q(s, a) - V(s), a constant
    loss_qvalue = mean  Σ_j distance(Q_j(s, a), r + γ (1 - terminated) V(s'))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase, TensorDictParams
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule, dispatch
from torch import Tensor
from torchrl.objectives.utils import distance_loss

from o3f.modules.arguments import check_module, check_switches
from o3f.modules.calls import Entries, critic_values, distribution, output
from o3f.modules.noise_source import NoiseSource
from o3f.objectives.base import BoundLoss, stack_states
from o3f.objectives.critics import Critics, critic_ensemble
from o3f.objectives.functional import (
    Aggregation,
    advantage_weights,
    aggregate_critics,
    draw_members,
    expectile_loss,
)
from o3f.objectives.loss_arguments import (
    Distance,
    Reduction,
    check_form,
    check_policy,
    check_shape,
    log_probability,
    state_value,
)
from o3f.objectives.ranges import coefficients_in_range
from o3f.objectives.torchrl_arguments import take_torchrl_arguments


class IQLLoss(BoundLoss):
    """The three losses of implicit Q-learning over m critics.

    A drop-in for :class:`torchrl.objectives.IQLLoss`: same keys and outputs, equal values and gradients, and its
    arguments, which are refused by name where they ask for something that is not done here. It differs in that

    - the target critics are evaluated once per call, not twice, and all critics in one batched product;
    - ``expectile``, ``temperature`` and ``loss_function`` default to the paper's values for locomotion;
    - ``expectile`` and ``temperature`` are buffers: checkpointed, set in place (``loss.expectile = 0.8``);
    - one critic with ``num_qvalue_nets > 1`` gives properly initialised copies (see
      :func:`~o3f.objectives.critics.redraw_`), and ``aggregation`` offers other rules than the minimum;
    - the weights of a prioritised buffer (``priority_weight``) count in all three losses;
    - the value estimator exists from the start (TD(0), γ = 0.99), so that a ``state_dict`` always fits;
    - keys that the networks write under other names are taken over without ``set_keys``.

    The paper steps the losses in turn, each with the networks as the step before left them: value network,
    actor, critics, targets (:class:`torchrl.objectives.SoftUpdate`). :meth:`value_loss`, :meth:`actor_loss`
    and :meth:`qvalue_loss` are public for that; :meth:`forward` is joint, as TorchRL's.

    Args:
        actor_network: the policy, with ``get_dist``.
        qvalue_network: one :class:`~o3f.modules.EnsembleQValue` (its Parameters are shared), a list of
            modules that write ``[*B, 1]`` (stacked into a new ensemble, weights copied exactly), or one such
            module to copy. :attr:`critic` is the ensemble that is trained. Those
            that are copied may share no layers with another network.
        value_network: V(s), writes ``[*B, 1]``.
        num_qvalue_nets: m, needed only with one module to copy (then 2 by default).
        expectile: τ in (0, 1).
        temperature: β, at least 0.
        loss_function: distance of the critics' loss: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        aggregation: one value out of m target critics, see :func:`~o3f.objectives.aggregate_critics`. The
            minimum over all m is O3F's and TorchRL's; the paper has m = 2.
        subset_size: members that ``aggregation="subset"`` draws (REDQ: 2).
        reduction: ``"mean"`` (None is the same, as in TorchRL), ``"sum"`` or ``"none"``; with ``"none"`` the entropy is
            per element, too.
        separate_losses: where networks share layers, let only the loss of the first of them (in the order
            actor, value, critics) train these.
        generator: source of the subsets, saved in ``state_dict``; ``None`` for torch's global stream.
        **torchrl: arguments of TorchRL's losses that ask for what is done anyway; the others are refused by name, see
            :mod:`o3f.objectives.torchrl_arguments`.

    Raises:
        ValueError: if an argument is out of its range.

    Examples:
        >>> from o3f.modules import EnsembleQValue, gaussian_policy, value_network
        >>> from torchrl.objectives import SoftUpdate
        >>> critic = EnsembleQValue(observation_dim=3, action_dim=2, num_critics=5)
        >>> loss = IQLLoss(gaussian_policy(3, 2), critic, value_network(3))
        >>> target_updater = SoftUpdate(loss, tau=0.005)
        >>> loss.critic is critic
        True
    """

    @dataclass
    class _AcceptedKeys(BoundLoss._AcceptedKeys):
        log_prob: NestedKey = "_log_prob"

    tensor_keys: _AcceptedKeys  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    default_keys = _AcceptedKeys
    _schedulable_buffers = frozenset({"expectile", "temperature"})

    actor_network: ProbabilisticTensorDictSequential
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    value_network: TensorDictModule
    value_network_params: TensorDictParams
    target_value_network_params: TensorDictParams
    expectile: Tensor
    temperature: Tensor

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        qvalue_network: Critics | TensorDictModule | Sequence[TensorDictModule],
        value_network: TensorDictModule,
        *,
        num_qvalue_nets: int | None = None,
        expectile: float = 0.7,
        temperature: float = 3.0,
        loss_function: Distance = "l2",
        aggregation: Aggregation = "min",
        subset_size: int = 2,
        reduction: Reduction | None = "mean",
        separate_losses: bool = False,
        generator: torch.Generator | None = None,
        **torchrl: Any,
    ) -> None:
        super().__init__()
        take_torchrl_arguments(self, torchrl)
        check_policy(actor_network)
        check_module("value_network", value_network)
        check_switches(separate_losses=separate_losses)
        self.out_keys = ["loss_actor", "loss_qvalue", "loss_value", "entropy"]
        coefficients = coefficients_in_range(expectile=expectile, temperature=temperature)
        critic = critic_ensemble(qvalue_network, num_qvalue_nets, [actor_network, value_network])
        # Impossible settings fail here, not in the first step.
        aggregate_critics(torch.zeros(critic.num_critics), aggregation, subset_size, torch.Generator())
        self.reduction = check_form(reduction, loss_function)
        self.loss_function = loss_function
        self.aggregation: Aggregation = aggregation
        self.subset_size = subset_size
        self.subset_source = NoiseSource(generator)

        earlier = [*actor_network.parameters()] if separate_losses else []
        self._add_network("actor_network", actor_network)
        self._add_network("value_network", value_network, frozen=earlier)
        earlier += [*value_network.parameters()] if separate_losses else []
        self._add_network("qvalue_network", critic, frozen=earlier, target=True)
        for name, value in coefficients.items():
            self.register_coeff_buffer(name, value, device=self._default_device)
        self._adopt_key("action", getattr(actor_network, "dist_sample_keys", ()))
        self._adopt_key("value", value_network.out_keys)
        self._adopt_key("state_action_value", critic.out_keys)
        self.make_value_estimator()

    def _read_keys(self) -> tuple[list[NestedKey], list[NestedKey]]:
        keys, networks = self.tensor_keys, (self.actor_network, self.qvalue_network, self.value_network)
        now = [keys.action, *(key for network in networks for key in network.in_keys)]
        return now, [keys.reward, keys.done, keys.terminated, *self.value_network.in_keys]

    def _state_value(self, tensordict: Entries) -> Tensor:
        return state_value(output(self.value_network, tensordict, self.tensor_keys.value))

    def _qvalues(self, network: Critics, tensordict: TensorDictBase, members: Tensor | None = None) -> Tensor:
        return critic_values(network, tensordict, self.tensor_keys.state_action_value, members)

    @torch.no_grad()
    def target_qvalue(self, tensordict: TensorDictBase) -> Tensor:
        """Aggregated value ``[*B]`` of the target critics: one evaluation serves two losses."""
        tensordict = self._prepared(tensordict)
        network = self.target_qvalue_network
        if self.aggregation != "subset":
            return aggregate_critics(self._qvalues(network, tensordict), self.aggregation)
        members = draw_members(network.num_critics, self.subset_size, self.subset_source.generator)
        return self._qvalues(network, tensordict, members.to(self.expectile.device)).amin(-1)

    @torch.no_grad()
    def state_values(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """V(s) and V(s') of a batch, ``[*B]`` each, in one evaluation without gradients."""
        tensordict = self._prepared(tensordict)
        pairs = stack_states(tensordict, self.value_network.in_keys)
        value, next_value = self._state_value(pairs)
        return value, next_value

    def value_loss(
        self, tensordict: TensorDictBase, target_q: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Regress V(s) onto the expectile of ``target_q``, ``[*B]``, by default :meth:`target_qvalue`."""
        tensordict = self._prepared(tensordict)
        target_q = self.target_qvalue(tensordict) if target_q is None else target_q
        value = self._state_value(tensordict)
        check_shape("target_q", target_q, value.shape)
        loss = self._reduce(expectile_loss(target_q - value, self.expectile), tensordict)
        return loss, {"state_value": value.detach()}

    def actor_loss(
        self, tensordict: TensorDictBase, target_q: Tensor | None = None, value: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Regress the policy onto the actions of the batch, weighted by their advantage.

        Args:
            tensordict: the batch.
            target_q: q(s, a) ``[*B]``, by default :meth:`target_qvalue`.
            value: V(s) ``[*B]``, by default that of the value network as it is now.
        """
        tensordict = self._prepared(tensordict)
        with torch.no_grad():
            target_q = self.target_qvalue(tensordict) if target_q is None else target_q
            value = self._state_value(tensordict) if value is None else value
            check_shape("value", value, target_q.shape)
            advantage = target_q - value
        policy = distribution(self.actor_network, tensordict)
        log_prob = log_probability(policy, tensordict[self.tensor_keys.action], advantage)
        loss = -advantage_weights(advantage, self.temperature) * log_prob
        return self._reduce(loss, tensordict), {"log_prob": log_prob.detach(), "advantage": advantage}

    def qvalue_loss(
        self, tensordict: TensorDictBase, next_value: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Regress all critics onto one bootstrapped target; their losses are summed.

        Only ``terminated`` stops the bootstrap: a time limit (``truncated``) does not.

        Args:
            tensordict: the batch.
            next_value: V(s') ``[*B]``, by default that of the value network as it is now.
        """
        tensordict = self._prepared(tensordict)
        with torch.no_grad():
            next_value = self._state_value(tensordict["next"]) if next_value is None else next_value
            target = self._target(tensordict, next_value)
        values = self._qvalues(self.qvalue_network, tensordict)
        target = target.expand_as(values)
        loss = self._reduce(distance_loss(values, target, self.loss_function).sum(-1), tensordict)
        values = values.detach()
        return loss, {"td_error": (values - target).square(), "state_action_value": values}

    @dispatch()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Return the three losses and the policy's ``entropy``, all from the networks as they are now.

        Writes each element's largest squared TD error over the critics to the ``priority`` key and the
        log-probability of its action to the ``log_prob`` key.
        """
        target_q = self.target_qvalue(tensordict)
        loss_value, value_info = self.value_loss(tensordict, target_q)
        loss_actor, actor_info = self.actor_loss(tensordict, target_q, value_info["state_value"])
        loss_qvalue, qvalue_info = self.qvalue_loss(tensordict)
        tensordict.set(self.tensor_keys.priority, qvalue_info["td_error"].amax(-1))
        tensordict.set(self.tensor_keys.log_prob, actor_info["log_prob"])
        losses = {"loss_actor": loss_actor, "loss_qvalue": loss_qvalue, "loss_value": loss_value}
        return self._collect_output(tensordict, losses, {"entropy": -actor_info["log_prob"]})
