"""Reading a state dict of someone else's networks: every name is used, or named in an error."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from o3f.errors import ConfigError, require


class Linear(NamedTuple):
    """One layer: ``weight`` ``[out, in]`` and ``bias`` ``[out]``, as in :class:`torch.nn.Linear`."""

    weight: Tensor
    bias: Tensor


class Statistics(NamedTuple):
    """What a peer subtracts from observations, ``loc`` ``[O]``, and divides them by, ``scale`` ``[O]``."""

    loc: Tensor
    scale: Tensor


def flat(state: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested state dicts by dotted name; modules count as their state dict.

    Optimisers and what is no tensor or number are left out.

    Examples:
        >>> flat({"actor": nn.Linear(1, 1), "actor_optimizer": {"state": {}}}).keys()
        dict_keys(['actor.weight', 'actor.bias'])
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, nn.Module):
            value = value.state_dict()
        if re.search(r"optim|lr_schedule|total_it", name):
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif value is not None and not isinstance(value, str):
            found[name] = torch.as_tensor(value).detach()
    return found


class Tensors:
    """The tensors of an agent, taken one by one.

    Args:
        tensors: by dotted name.
        origin: what messages call them.
    """

    def __init__(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        self._left = dict(tensors)
        self.origin = origin

    def take(self, name: str, *shape: int) -> Tensor:
        """Remove a tensor and return it as floats, which must have this shape.

        Raises:
            ConfigError: there is no such tensor, or it has another shape or a number that is not finite.
        """
        if name not in self._left:
            raise ConfigError(f"{self.origin}: there is no tensor {name!r}. Left are: {self._names()}.")
        tensor = self._left.pop(name)
        require(
            tuple(tensor.shape) == shape,
            f"{self.origin}: {name} has shape {list(tensor.shape)}, expected {list(shape)}.",
        )
        tensor = tensor.float()  # first: a double can be beyond a float's range
        require(bool(torch.isfinite(tensor).all()), f"{self.origin}: {name} holds numbers that are not finite.")
        return tensor

    def take_number(self, *names: str) -> float | None:
        """Remove the first of these that is there, which must hold one number; None where there is none."""
        name = next((name for name in names if name in self._left), None)
        if name is None:
            return None
        return self.take(name, *self._left[name].shape).reshape(1).item()

    def take_linear(self, name: str) -> Linear:
        """Remove ``name.weight`` ``[out, in]`` and ``name.bias`` ``[out]``."""
        shape = self.shape(f"{name}.weight")
        require(
            len(shape) == 2,
            f"{self.origin}: {name}.weight has shape {list(shape)}, expected a matrix: only linear layers with ReLU"
            " between them can be read. Give other networks as modules (pretrained=package.module:function).",
        )
        return Linear(self.take(f"{name}.weight", *shape), self.take(f"{name}.bias", shape[0]))

    def take_layers(self, prefix: str) -> list[Linear]:
        """Remove the linear layers ``{prefix}{i}`` of a sequence, in the order of ``i``, which must fit together."""
        layers = [self.take_linear(f"{prefix}{index}") for index in self.indices(prefix)]
        require(bool(layers), f"{self.origin}: there are no layers {prefix}0.weight, ... Left are: {self._names()}.")
        return self.chain(layers, prefix)

    def chain(self, layers: list[Linear], name: str) -> list[Linear]:
        """Return the layers if each takes what the one before gives."""
        widths = [(layer.weight.shape[1], layer.weight.shape[0]) for layer in layers]
        fits = all(before[1] == after[0] for before, after in itertools.pairwise(widths))
        require(fits, f"{self.origin}: the layers of {name} do not fit together (inputs, outputs): {widths}.")
        return layers

    def take_statistics(self, mean: str, std: str, dim: int) -> Statistics | None:
        """Remove mean and standard deviation of the observations; None where there are none."""
        if not self.has(mean) and not self.has(std):
            return None
        statistics = Statistics(self.take(mean, dim), self.take(std, dim))
        require(bool((statistics.scale > 0).all()), f"{self.origin}: {std} must be positive.")
        return statistics

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor that is still there."""
        if name not in self._left:
            raise ConfigError(f"{self.origin}: there is no tensor {name!r}. Left are: {self._names()}.")
        return tuple(self._left[name].shape)

    def has(self, prefix: str) -> bool:
        """Whether a name with this beginning is left."""
        return any(name.startswith(prefix) for name in self._left)

    def indices(self, prefix: str) -> list[int]:
        """Return the numbers that follow ``prefix`` in the names left, in order."""
        return sorted(set(self._numbers(prefix)))

    def drop(self, *prefixes: str) -> None:
        """Forget what is known and not needed: copies of networks that are targets, above all."""
        self._left = {name: tensor for name, tensor in self._left.items() if not name.startswith(prefixes)}

    def finish(self) -> None:
        """Check that everything was taken.

        Raises:
            ConfigError: names are left that nothing here knows.
        """
        require(not self._left, f"{self.origin}: these tensors are not known: {self._names()}.")

    def _numbers(self, prefix: str) -> Iterator[int]:
        for name in self._left:
            if name.startswith(prefix) and (first := name[len(prefix) :].split(".")[0]).isdecimal():
                yield int(first)

    def _names(self) -> str:
        names = [f"{name} {list(tensor.shape)}" for name, tensor in self._left.items()]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return ", ".join(names[:8]) + more if names else "none"
