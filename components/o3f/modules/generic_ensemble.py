"""An ensemble of critics of any architecture, evaluated under vmap."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictParams, dispatch
from torch import Tensor

from o3f.modules.keys import key_list


class GenericEnsemble(TensorDictModuleBase):
    """``m`` critics of one architecture, which can be anything that ``torch.vmap`` can batch.

    Keeps the contract of :class:`~o3f.modules.EnsembleQValue`: reads what a critic reads, writes its value
    entry with shape ``[*B, m]``. Weights (and buffers) are copied exactly and stacked as ``params`` ``[m]``.
    Prefer :meth:`o3f.modules.EnsembleQValue.from_modules`, which takes the faster form where it exists.

    Args:
        critics: modules of one architecture, each writing one value ``[*B, 1]`` as its last output.

    Raises:
        ValueError: at the call, if a critic does not write ``[*B, 1]``.
    """

    _critic: TensorDictModule

    def __init__(self, critics: Sequence[TensorDictModule]) -> None:
        super().__init__()
        self.in_keys = key_list(critics[0].in_keys)
        self.out_keys = key_list([critics[0].out_keys[-1]])
        self.num_critics = len(critics)
        self.params: TensorDictParams = TensorDict.from_modules(*critics, as_module=True)
        # Hidden from torch: only its code is used, its own weights must appear in no state_dict or optimiser.
        self.__dict__["_critic"] = copy.deepcopy(critics[0])

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the critics' values of the actions in ``tensordict``."""
        if self._critic.training != self.training:
            self._critic.train(self.training)
        inputs = tensordict.select(*self.in_keys)
        values = torch.vmap(self._value, (None, 0), randomness="different")(inputs, self.params)
        if values.shape[1:] != (*tensordict.batch_size, 1):
            raise ValueError(
                f"Each critic must write {self.out_keys[0]!r} with shape [*B, 1] = "
                f"{[*tensordict.batch_size, 1]}, got {list(values.shape[1:])}."
            )
        return tensordict.set(self.out_keys[0], values.squeeze(-1).movedim(0, -1))

    def _value(self, inputs: TensorDictBase, params: TensorDictBase) -> Tensor:
        with params.to_module(self._critic, preserve_module_state=False):
            value: Tensor = self._critic(inputs.copy()).get(self.out_keys[0])
        return value
