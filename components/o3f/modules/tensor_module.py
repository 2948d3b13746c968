"""A TensorDictModule for modules that are known to return tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor


class TensorModule(TensorDictModule):
    """Writes what its module returns as it is: one tensor, or a tuple of them.

    A :class:`tensordict.nn.TensorDictModule` first asks of each value whether it is an array, a data frame or
    another container, which takes longer than a small network's head. Nothing else differs.
    """

    def _write_to_tensordict(
        self,
        tensordict: TensorDictBase,
        tensors: Sequence[Tensor],
        tensordict_out: TensorDictBase | None = None,
        out_keys: Iterable[NestedKey] | None = None,
    ) -> TensorDictBase:
        as_built = self.inplace is True and self.out_keys == self.out_keys_source
        if tensordict_out is not None or out_keys is not None or not as_built:
            given: Any = list(tensors)
            return super()._write_to_tensordict(tensordict, given, tensordict_out, out_keys)
        for key, tensor in zip(self.out_keys, tensors, strict=True):
            tensordict.set(key, tensor)
        return tensordict
