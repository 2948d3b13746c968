"""Networks of a loss that are joined with their parameters for good, and their targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.objectives import LossModule

from o3f.modules.mlp import reset_
from o3f.modules.normalisation import fit_normalisers


class BoundNetworks(LossModule):
    """A TorchRL loss whose networks are called as they are.

    TorchRL keeps a network ``X`` and its parameters ``X_params`` apart and joins them for every call, which
    takes longer than a small network's arithmetic. Here they are joined for good: the module ``X`` holds the
    Parameters of ``X_params`` and, where there is a target, a module ``target_X`` holds ``target_X_params``.
    Target updaters, ``load_state_dict`` and ``to`` all change those tensors in place.
    """

    def _add_network(
        self,
        name: str,
        network: TensorDictModuleBase,
        *,
        target: bool = False,
        frozen: Iterable[nn.Parameter] = (),
    ) -> None:
        """Register a network; those of its Parameters that are in ``frozen`` are constants to this loss."""
        constants: list[Any] = list(frozen)
        module: Any = network
        self.convert_to_functional(module, name, create_target_params=target, compare_against=constants)
        if not set(constants).isdisjoint(network.parameters()):
            # The layers it shares stay trainable where they are the other network's: only in this copy are they
            # constants.
            self._join(name, deepcopy(network))
        if target:  # a module of its own, so that calling it never touches the trained one
            self._join(f"target_{name}", deepcopy(network))

    def _join(self, name: str, module: nn.Module) -> None:
        """Let ``module`` hold the tensors of ``{name}_params`` and be this loss's ``name``."""
        params: Any = self._modules[f"{name}_params"]
        # Not for the time of a call, as TorchRL does, but for good: the module's tensors are those of `params`.
        params.to_module(module, preserve_module_state=False)
        for part in module.modules():
            if isinstance(part, TensorDictParams):
                part._reset_params()  # to_module leaves the old tensors in its list of parameters
        object.__setattr__(self, name, module)  # not a child: its parameters are registered already

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Join networks and parameters of a copied or unpickled loss: tensordict has copied them apart."""
        super().__setstate__(state)
        self._join_all()

    def _apply(self, fn: Any) -> Any:
        """Join them after ``to`` as well, which replaces buffers."""
        result = super()._apply(fn)
        self._join_all()
        return result

    def _join_all(self) -> None:
        for name in self._bound_networks():
            self._join(name, self.__dict__[name])

    def fit_normalisers(self, rows: TensorDictBase) -> None:
        """Fit every :class:`~o3f.modules.Normaliser` of all networks and targets to a dataset's rows ``[*B]``.

        Networks have one where they were made with ``normalise=True``; the others stay as they are.
        """
        for name in self._bound_networks():
            fit_normalisers(self.__dict__[name], rows)

    @torch.no_grad()
    def reset_parameters_recursive(self) -> None:
        """Begin again: draw all networks anew, put learned coefficients back, and set targets to their networks.

        TorchRL's draws targets on their own, so that a target says something else than its network; here they begin
        equal, as in a loss that was just made.
        """
        for name in self._bound_networks():
            if not name.startswith("target_"):
                reset_(self.__dict__[name])
        for name in self._bound_networks():
            params, target = self._modules[f"{name}_params"], self._modules.get(f"target_{name}_params")
            if params is not None and target is not None:
                held = dict(target.named_buffers())
                for key, value in params.named_parameters():
                    held[key].copy_(value)

    def _bound_networks(self) -> list[str]:
        """The names of the networks, targets among them, that were joined with their parameters."""
        held = [key for key, part in self._modules.items() if key.endswith("_params") and part is not None]
        return [name for name in (key.removesuffix("_params") for key in held) if name in self.__dict__]

    @contextmanager
    def _constant(self, name: str) -> Iterator[Any]:
        """A network with parameters that are constants: gradients flow through to its inputs alone."""
        params: Any = self._modules[f"{name}_params"]
        network: Any = self.__dict__[name]
        # `data` shares the memory but asks for no gradient; the Parameters are back in their places afterwards.
        with params.data.to_module(network, preserve_module_state=False):
            yield network

    @torch.no_grad()
    def update_targets(self, tau: float, networks: Iterable[str] | None = None) -> None:
        """Step targets, ``target += tau * (parameter - target)``, as ``SoftUpdate`` does, in one call.

        Args:
            tau: the share of the way.
            networks: names of the networks whose targets to step, by default all.

        Raises:
            ValueError: if ``tau`` is not in [0, 1], or there is no network of a name.
        """
        if not (isinstance(tau, int | float) and 0 <= tau <= 1):
            raise ValueError(f"tau must be a number in [0, 1], got {tau!r}.")
        sources: list[Tensor] = []
        targets: list[Tensor] = []
        for name in self._has_update_associated if networks is None else networks:
            if f"{name}_params" not in self._modules:
                raise ValueError(f"There is no network {name!r}, but {', '.join(self._has_update_associated)}.")
            params, target = self._modules[f"{name}_params"], self._modules.get(f"target_{name}_params")
            self._has_update_associated[name] = True
            if params is None or target is None:
                continue
            trained, held = dict(params.named_parameters()), dict(target.named_buffers())
            sources += trained.values()
            targets += (held[key] for key in trained)
        torch._foreach_lerp_(targets, sources, tau)  # pyright: ignore[reportPrivateImportUsage]
