"""Critics that learn the values of a policy's own actions: what AWAC, soft actor-critic and CQL share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase, TensorDictParams
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor
from torchrl.objectives.utils import distance_loss

from o3f.modules.arguments import check_switches
from o3f.modules.calls import critic_values, distribution, replace_entry
from o3f.modules.noise_source import NoiseSource
from o3f.objectives.base import BoundLoss
from o3f.objectives.critics import Critics, critic_ensemble
from o3f.objectives.functional import Aggregation, aggregate_critics, draw_members
from o3f.objectives.loss_arguments import Distance, Reduction, check_form, check_policy
from o3f.objectives.torchrl_arguments import take_torchrl_arguments


class ActorCriticLoss(BoundLoss):
    """A policy, m critics and the critics' loss; subclasses add the policy's.

    With γ given to ``make_value_estimator(gamma=γ)``,

        loss_qvalue = mean Σ_j distance(Q_j(s, a), r + γ (1 - terminated) V(s'))

    where a subclass says in :meth:`next_state_value` what V(s') is. The losses are summed over the critics.

    Args:
        actor_network: the policy, with ``get_dist``.
        qvalue_network: one :class:`~o3f.modules.EnsembleQValue` (its Parameters are shared), a list of
            modules that write ``[*B, 1]`` (stacked into a new ensemble), or one such module to copy. Those
            that are copied may share no layers with another network.
        num_qvalue_nets: m, needed only with one module to copy (then 2 by default).
        loss_function: ``"l2"``, ``"l1"`` or ``"smooth_l1"``.
        aggregation: one value out of m critics, see :func:`~o3f.objectives.aggregate_critics`.
        subset_size: members that ``aggregation="subset"`` draws (REDQ: 2).
        reduction: ``"mean"`` (None is the same, as in TorchRL), ``"sum"`` or ``"none"``.
        separate_losses: where the critics share layers with the policy, let only the policy's loss train these.
        generator: source of the subsets, saved in ``state_dict``; ``None`` for torch's global stream.
        **torchrl: arguments of TorchRL's losses that ask for what is done anyway; the others are refused by name, see
            :mod:`o3f.objectives.torchrl_arguments`.

    Raises:
        ValueError: if an argument is out of its range, or asks for what TorchRL does and this does not. At the call, if
            the batch is empty.
        TypeError: if the policy has no ``get_dist``.
    """

    @dataclass
    class _AcceptedKeys(BoundLoss._AcceptedKeys):
        log_prob: NestedKey = "action_log_prob"  # neither read nor written, as in TorchRL 0.14: set_keys takes it

    target_actor = False
    """Whether a subclass has a target policy, too, ``target_actor_network``."""

    tensor_keys: _AcceptedKeys  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    default_keys = _AcceptedKeys

    actor_network: ProbabilisticTensorDictSequential
    actor_network_params: TensorDictParams
    target_actor_network: Any
    target_actor_network_params: TensorDictParams

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        qvalue_network: Critics | TensorDictModule | Sequence[TensorDictModule],
        *,
        num_qvalue_nets: int | None = None,
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
        check_switches(separate_losses=separate_losses)
        critic = critic_ensemble(qvalue_network, num_qvalue_nets, [actor_network])
        # Impossible settings fail here, not in the first step.
        aggregate_critics(torch.zeros(critic.num_critics), aggregation, subset_size, torch.Generator())
        self.reduction = check_form(reduction, loss_function)
        self.loss_function = loss_function
        self.aggregation: Aggregation = aggregation
        self.subset_size = subset_size
        self.subset_source = NoiseSource(generator)
        self._add_network("actor_network", actor_network, target=self.target_actor)
        frozen = [*actor_network.parameters()] if separate_losses else []
        self._add_network("qvalue_network", critic, frozen=frozen, target=True)
        self._adopt_key("action", getattr(actor_network, "dist_sample_keys", ()))
        self._adopt_key("state_action_value", critic.out_keys)
        self.make_value_estimator()

    def _read_keys(self) -> tuple[list[NestedKey], list[NestedKey]]:
        keys, networks = self.tensor_keys, (self.actor_network, self.qvalue_network)
        observed = [key for network in networks for key in network.in_keys if key != keys.action]
        return [keys.action, *observed], [keys.reward, keys.done, keys.terminated, *observed]

    def _distribution(self, tensordict: TensorDictBase) -> Any:
        return distribution(self.actor_network, tensordict)

    def _act(self, tensordict: TensorDictBase) -> Tensor:
        """The policy's action ``[*B, A]``, by TorchRL's exploration type."""
        action: Tensor = self.actor_network(tensordict.select(*self.actor_network.in_keys)).get(self.tensor_keys.action)
        return action

    def _qvalues(
        self,
        network: Critics,
        tensordict: TensorDictBase,
        action: Tensor | None = None,
        members: Tensor | None = None,
    ) -> Tensor:
        """Values ``[*B, m]`` of ``action`` ``[*B, A]``, ``[*B, K, m]`` of ``[*B, K, A]``, or of the batch's own."""
        inputs = tensordict if action is None else replace_entry(network, tensordict, self.tensor_keys.action, action)
        return critic_values(network, inputs, self.tensor_keys.state_action_value, members)

    def _aggregate(self, network: Critics, tensordict: TensorDictBase, action: Tensor) -> Tensor:
        """One value out of the m critics of ``network``, ``[*B]`` or ``[*B, K]``; only those drawn are evaluated."""
        if self.aggregation != "subset":
            return aggregate_critics(self._qvalues(network, tensordict, action), self.aggregation)
        members = draw_members(network.num_critics, self.subset_size, self.subset_source.generator)
        return self._qvalues(network, tensordict, action, members.to(action.device)).amin(-1)

    def next_state_value(self, tensordict: TensorDictBase) -> Tensor:
        """V(s') ``[*B]``, without gradients."""
        raise NotImplementedError

    def qvalue_loss(
        self, tensordict: TensorDictBase, next_value: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Regress all critics onto one bootstrapped target; their losses are summed.

        Only ``terminated`` stops the bootstrap: a time limit (``truncated``) does not.

        Args:
            tensordict: the batch.
            next_value: V(s') ``[*B]``, by default :meth:`next_state_value`.
        """
        tensordict = self._prepared(tensordict)
        values = self._qvalues(self.qvalue_network, tensordict)
        loss, info = self._td_losses(tensordict, values, next_value)
        return self._reduce(loss, tensordict), info

    def _td_losses(
        self, tensordict: TensorDictBase, values: Tensor, next_value: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Each element's loss ``[*B]`` of the critics' ``values`` ``[*B, m]``, summed over the critics."""
        with torch.no_grad():
            next_value = self.next_state_value(tensordict) if next_value is None else next_value
            target = self._target(tensordict, next_value)
        target = target.expand_as(values)
        loss = distance_loss(values, target, self.loss_function).sum(-1)
        values = values.detach()
        return loss, {"td_error": (values - target).square(), "state_action_value": values}
