"""What TorchRL asks of any loss, kept out of the files that hold the algorithms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.objectives import LossModule, ValueEstimators
from torchrl.objectives.utils import dispatch_value_estimator

from o3f.errors import number
from o3f.modules.keys import key_list
from o3f.modules.mlp import reset_
from o3f.modules.normalisation import fit_normalisers
from o3f.modules.watched import check_written
from o3f.objectives.loss_arguments import check_bootstrap, refuse_mappings
from o3f.objectives.ranges import RANGES, check_ranges


def stack_states(tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> dict[NestedKey, Tensor]:
    """Entries of state and next state, ``[2, *B, n]`` each.

    Raises:
        KeyError: if one is missing.
        ValueError: if the two have not the same shape.
    """
    pairs = {}
    for key in keys:
        now, following = tensordict[key], tensordict["next"][key]
        if now.shape != following.shape:
            raise ValueError(f"{key!r} is {list(now.shape)} and in the next state {list(following.shape)}.")
        pairs[key] = torch.stack([now, following])
    return pairs


class BoundLoss(LossModule):
    """A TorchRL loss whose networks are called as they are.

    TorchRL keeps a network ``X`` and its parameters ``X_params`` apart and joins them for every call, which
    takes longer than a small network's arithmetic. Here they are joined for good: the module ``X`` holds the
    Parameters of ``X_params`` and, where there is a target, a module ``target_X`` holds ``target_X_params``.
    Target updaters, ``load_state_dict`` and ``to`` all change those tensors in place.
    """

    default_value_estimator = ValueEstimators.TD0
    SUPPORTED_VALUE_ESTIMATORS = (ValueEstimators.TD0, ValueEstimators.TD1, ValueEstimators.TDLambda)
    _in_keys: list[Any] | None = None
    scalar_output_mode: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.register_forward_pre_hook(refuse_mappings)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a coefficient in place, in its range; anything else as any module does.

        Raises:
            ConfigError: (a ValueError) if it is no number, or out of its range.
        """
        if name in type(self)._all_schedulable_buffers and name in self.__dict__.get("_buffers", {}):
            value = number(name, value, RANGES.get(name, "(-inf, inf)"))
        super().__setattr__(name, value)

    def _check_coefficients(self) -> None:
        check_ranges({name: number(name, self._buffers[name]) for name in sorted(self._schedulable_buffers)})

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

    def _adopt_key(self, name: str, written: Sequence[NestedKey]) -> None:
        """Take over the key a network writes if that is not the default one."""
        if written and getattr(self.tensor_keys, name) not in written:
            setattr(self.tensor_keys, name, written[-1])

    @property
    def in_keys(self) -> list[Any]:
        """The entries this loss reads."""
        return self._in_keys or self._set_in_keys()

    @in_keys.setter
    def in_keys(self, value: list[Any]) -> None:
        self._in_keys = value

    def _set_in_keys(self) -> list[Any]:
        now, following = self._read_keys()
        self._in_keys = key_list([*now, *(("next", key) for key in following)])
        return self._in_keys

    def _read_keys(self) -> tuple[list[NestedKey], list[NestedKey]]:
        """The entries the loss reads at the root, and those it reads under ``"next"``."""
        raise NotImplementedError

    def make_value_estimator(self, value_type: ValueEstimators | None = None, **hyperparams: Any) -> BoundLoss:
        """Choose the bootstrapped target: ``make_value_estimator(gamma=0.99)`` for TD(0), or TD(1), TD(λ).

        Raises:
            ConfigError: (a ValueError) if ``gamma`` or ``lmbda`` is not in [0, 1].
        """
        for name in {"gamma", "lmbda"} & hyperparams.keys():
            number(name, hyperparams[name], "[0, 1]")
        value_type, options = self._prepare_value_estimator_kwargs(value_type, **hyperparams)
        if value_type is not None:
            names = ("value", "reward", "done", "terminated")
            dispatch_value_estimator(
                self,
                value_type,
                supported=self.SUPPORTED_VALUE_ESTIMATORS,
                tensor_keys={name: getattr(self.tensor_keys, name) for name in names},
                **{"device": self._default_device, **(options or {})},
            )
        return self

    def _target(self, tensordict: TensorDictBase, next_value: Tensor) -> Tensor:
        """The bootstrapped target ``[*B, 1]`` of V(s') ``[*B]``.

        Ends of episodes may be numbers, as other buffers hold them: torch's ``~`` of a whole number is another one.

        Raises:
            KeyError: if reward or terminated is missing.
            ValueError: if one of them has another shape than the value.
        """
        own: Any = self.tensor_keys
        keys = [("next", key) for key in (own.done, own.terminated)]
        ends = {key: tensordict.get(key, None) for key in keys}  # TD(0) does without done
        ends = {
            key: end for key, end in ends.items() if end is not None or key[1] == own.terminated
        }  # done alone may lack
        reward = {("next", own.reward): tensordict.get(("next", own.reward), None)}
        check_bootstrap({**reward, **ends}, next_value, tensordict)
        numbers = {key: end for key, end in ends.items() if end is not None and end.dtype is not torch.bool}
        if numbers:
            tensordict = tensordict.copy()
            for key, end in numbers.items():
                tensordict.set(key, end.bool())
        target: Tensor = self.value_estimator.value_estimate(tensordict, next_value=next_value.unsqueeze(-1))
        return target

    def _valid(self, tensordict: TensorDictBase, like: Tensor) -> Tensor | None:
        """The mask that the losses are reduced with, in the shape of ``like``: true where a row is no padding.

        It is the conjunction of those that TorchRL looks for (``loss_mask_key``), None where there is none.
        """
        mask: Tensor | None = None
        for key in self._loss_mask_keys():
            found = tensordict.get(key, None)
            if found is not None:
                found = self._expand_loss_mask(found, like)
                mask = found if mask is None else mask & found
        return mask

    def _without_padding(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch with zeros for what padded rows hold: from a NaN in one of them every gradient would be NaN.

        Leaving such rows out of a loss is too late: their gradient is 0, and layers multiply it with what they read.

        Every method of a loss begins here, so coefficients that were changed in place are looked at here, too.

        Raises:
            ValueError: if there are no rows: a mean of none is NaN; or a coefficient is out of its range.
        """
        check_written(self, self._schedulable_buffers, self._check_coefficients)
        if 0 in tensordict.batch_size:
            raise ValueError(
                f"The batch is empty, {list(tensordict.batch_size)}: {type(self).__name__} needs at least one row."
            )
        if all(tensordict.get(key, None) is None for key in self._loss_mask_keys()):
            return tensordict
        own: Any = self.tensor_keys
        mask: Any = self._valid(tensordict, tensordict[own.action][..., 0])
        rows = tensordict.copy()
        for key in self.in_keys:
            value = tensordict.get(key, None)
            if value is not None and value.is_floating_point():
                rows.set(key, torch.where(self._expand_loss_mask(mask, value), value, 0.0))
        return rows

    def _mean(self, tensordict: TensorDictBase, value: Tensor) -> Tensor:
        """The mean of a metric, of each element or one for all, over the rows that are no padding."""
        mask = self._valid(tensordict, value) if value.ndim else None
        return value.mean() if mask is None else torch.where(mask, value, 0.0).sum() / mask.sum().clamp_min(1)

    def _collect_output(
        self, tensordict: TensorDictBase, losses: dict[str, Tensor], metrics: dict[str, Tensor]
    ) -> TensorDict:
        """Losses and ``metrics`` (of each element, or one for all) as the loss's output.

        Without a reduction the metrics are told of each element, too, unless ``scalar_output_mode`` says otherwise, as
        in TorchRL: ``"exclude"`` leaves them out, ``"non_tensor"`` writes their means as non-tensor data.
        """
        if self.reduction != "none":
            return TensorDict({**losses, **{name: self._mean(tensordict, value) for name, value in metrics.items()}})
        if self.scalar_output_mode is None:
            shape = next(iter(losses.values())).shape
            losses = {**losses, **{name: value.expand(shape) for name, value in metrics.items()}}
        output = TensorDict(losses, batch_size=tensordict.batch_size)
        if self.scalar_output_mode == "non_tensor":
            for name, value in metrics.items():
                output.set_non_tensor(name, self._mean(tensordict, value))
        return output

    def _make_vmap(self) -> None:
        """Nothing: there is no vmap to make anew, ``set_vmap_randomness`` has nothing to change."""

    def _reduce(self, loss: Tensor, tensordict: TensorDictBase) -> Tensor:
        """Reduce the elements' losses ``[*B]``, weighted by ``priority_weight`` if the batch has it."""
        keys: Any = self.tensor_keys
        # TorchRL's own look-up of the weights fails for a nested key.
        weights = tensordict.get(keys.priority_weight, None) if self.use_prioritized_weights else None
        if weights is not None:
            weights = weights.reshape(loss.shape)
        reduced: Tensor = self._reduce_loss(loss, tensordict=tensordict, weights=weights)
        return reduced
