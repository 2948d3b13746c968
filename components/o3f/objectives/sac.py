"""TorchRL's soft actor-critic loss on an ensemble of critics."""

from __future__ import annotations

from typing import Any, cast

from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torchrl.objectives import SACLoss

from o3f.modules import EnsembleQValue, GenericEnsemble


class EnsembleSACLoss(SACLoss):
    """:class:`torchrl.objectives.SACLoss` with the critics in one module.

    With α the learned temperature and H the target entropy,

        loss_qvalue = mean Σ_j distance(Q_j(s, a), r + γ (1 - terminated) V)
                      with V = min_k Q̄_k(s', a') - α log π(a' | s'),  a' ~ π(s')
        loss_actor  = mean α log π(ã | s) - min_j Q_j(s, ã)           with ã ~ π(s)
        loss_alpha  = mean -log α (log π(ã | s) + H)

    TorchRL evaluates copies of the critics under ``vmap``. Here the ensemble evaluates its members itself:
    faster, and its Parameters stay the caller's, so that an actor on the same ensemble follows the training.

    Args:
        actor_network: the policy, with ``get_dist``.
        critic: the ensemble to train.
        **kwargs: the other arguments of :class:`torchrl.objectives.SACLoss`.
    """

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        critic: EnsembleQValue | GenericEnsemble,
        **kwargs: Any,
    ) -> None:
        module, no_copies = cast(Any, critic), cast(Any, None)  # TorchRL's copies would be drawn anew
        super().__init__(actor_network, module, num_qvalue_nets=no_copies, **kwargs)

    def _make_vmap(self) -> None:
        """There is no vmap to prepare."""

    def _vmap_qnetworkN0(self, tensordict: TensorDictBase, params: TensorDictBase) -> TensorDict:
        """The critics' values in the layout SACLoss computes with, ``[m, *B, 1]``."""
        key = self.tensor_keys.state_action_value
        with params.to_module(self.qvalue_network, preserve_module_state=False):
            values = self.qvalue_network(tensordict.select(*self.qvalue_network.in_keys)).get(key)
        members = values.movedim(-1, 0)
        return TensorDict({key: members.unsqueeze(-1)}, members.shape)
