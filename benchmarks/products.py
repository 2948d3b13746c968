"""Contender ``products``: the matrix products of our update and nothing else, into memory that is there already.

No implementation in float32 on one thread with this library of products does the same work faster, so its ratio is
the share of our time that the products alone would take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .ours import LEARNERS, learning

Cases = dict[str, Callable[[], int]]

#: Where the two factors stand among the arguments of each operation.
FACTORS = {
    torch.ops.aten.mm: (0, 1),
    torch.ops.aten.bmm: (0, 1),
    torch.ops.aten.addmm: (1, 2),
    torch.ops.aten.addmm_: (1, 2),
    torch.ops.aten.baddbmm: (1, 2),
}


class Recorder(TorchDispatchMode):
    """Notes the factors of all products."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[Tensor, Tensor, Tensor]] = []
        self._known: dict[Any, tuple[Tensor, Tensor, Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation; keep factors of the same form, and room for their product."""
        places = FACTORS.get(function.overloadpacket)
        if places is not None:
            first, second = (args[place] for place in places)
            form = (first.shape, first.stride(), second.shape, second.stride())
            if form not in self._known:
                shape = [*first.shape[:-1], second.shape[-1]]
                self._known[form] = (_alike(first), _alike(second), first.new_empty(shape))
            self.products.append(self._known[form])
        return function(*args, **(kwargs or {}))


def _alike(tensor: Tensor) -> Tensor:
    if 0 in tensor.stride():  # one matrix for every network
        return tensor.detach()[:1].clone().expand(tensor.shape)
    return torch.empty_strided(tensor.shape, tensor.stride()).normal_()


def products(workload: str) -> Cases:
    """All products of one call of our step."""
    update = learning(workload)["update"]
    update()
    with Recorder() as recorder:
        steps = update()
    calls = [
        (torch.bmm if first.ndim == 3 else torch.mm, first, second, out) for first, second, out in recorder.products
    ]

    @torch.no_grad()
    def step() -> int:
        for product, first, second, out in calls:
            product(first, second, out=out)
        return steps

    return {"update": step}


WORKLOADS: dict[str, Callable[[], Cases]] = {
    workload: lambda workload=workload: products(workload)  # type: ignore[misc]
    for workload in LEARNERS
}
