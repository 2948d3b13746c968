"""What TorchRL asks of any loss, kept out of the files that hold the algorithms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase, TensorDictParams
from torch import Tensor
from torchrl.objectives import LossModule, ValueEstimators
from torchrl.objectives.utils import dispatch_value_estimator

from o3f.errors import number
from o3f.modules.keys import key_list
from o3f.modules.watched import check_written
from o3f.objectives.bound_networks import BoundNetworks
from o3f.objectives.critics import Critics
from o3f.objectives.loss_arguments import check_bootstrap, refuse_mappings
from o3f.objectives.ranges import RANGES, check_ranges


def stack_states(tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> dict[NestedKey, Tensor]:
    """Entries of state and next state, ``[2, *B, n]`` each.

    Raises:
        KeyError: if one is missing.
        ValueError: if the two have not the same shape.
    """
    pairs = {}
    next_state: Any = tensordict["next"]
    for key in keys:
        now, following = tensordict[key], next_state[key]
        if now.shape != following.shape:
            raise ValueError(f"{key!r} is {list(now.shape)} and in the next state {list(following.shape)}.")
        pairs[key] = torch.stack([now, following])
    return pairs


class BoundLoss(BoundNetworks):
    """The base of all losses, which have critics: what they read, check, bootstrap from, reduce and report."""

    @dataclass
    class _AcceptedKeys(LossModule._AcceptedKeys):
        value: NestedKey = "state_value"
        action: NestedKey = "action"
        priority: NestedKey = "td_error"
        priority_weight: NestedKey = "priority_weight"
        state_action_value: NestedKey = "state_action_value"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"

    tensor_keys: _AcceptedKeys  # pyright: ignore[reportIncompatibleMethodOverride]
    default_keys = _AcceptedKeys

    qvalue_network: Critics
    qvalue_network_params: TensorDictParams
    target_qvalue_network: Critics
    target_qvalue_network_params: TensorDictParams

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

    @property
    def critic(self) -> Critics:
        """The ensemble that is trained: it holds the Parameters that an optimiser on this loss changes."""
        return self.qvalue_network

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
        reward, done, terminated = (("next", key) for key in (own.reward, own.done, own.terminated))
        ends = {key: tensordict.get(key, None) for key in (done, terminated)}
        if ends[done] is None:  # TD(0) does without
            ends = {terminated: ends[terminated]}
        check_bootstrap({reward: tensordict.get(reward, None), **ends}, next_value, tensordict)
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

    def _prepared(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch as a method of a loss takes it: every one begins here, and coefficients are looked at here, too.

        What padded rows hold becomes zero: from a NaN in one of them every gradient would be NaN. To leave such rows
        out of the loss is too late, for their gradient is 0, and layers multiply it with what they read.

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
        action = tensordict.get(own.action, None)  # a next state by itself has none
        mask: Any = self._valid(tensordict, torch.empty(tensordict.batch_size) if action is None else action[..., 0])
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
