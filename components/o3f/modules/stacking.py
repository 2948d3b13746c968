"""From a list of critics to one ensemble with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictParams, dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.modules import MLP, ValueOperator

from o3f.modules.arguments import check_module
from o3f.modules.ensemble import EnsembleQValue
from o3f.modules.keys import key_list
from o3f.modules.mlp import Linear, reset_


def stack_critics(critics: Sequence[TensorDictModule]) -> EnsembleQValue | GenericEnsemble:
    """Copy critics of one architecture into one ensemble, see :meth:`o3f.modules.EnsembleQValue.from_modules`."""
    _check_alike(critics)
    first, layers = critics[0], _plain_layers(critics[0])
    if layers is None:
        return GenericEnsemble(critics)
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    ensemble: EnsembleQValue = EnsembleQValue(
        linears[0].in_features,
        0,  # the first layer's width is all that is known, and all that counts
        len(critics),
        [linear.out_features for linear in linears[:-1]],
        layer_norm=any(isinstance(layer, nn.LayerNorm) for layer in layers),
        in_keys=first.in_keys,
        out_key=first.out_keys[-1],
        generator=torch.Generator(),  # these weights are overwritten: leave the global stream alone
    ).to(linears[0].weight)
    for member, critic in enumerate(critics):
        _copy_(ensemble, member, list(_network(critic)))
    return ensemble


def _check_alike(critics: Sequence[TensorDictModule]) -> None:
    if not isinstance(critics, Sequence):
        raise TypeError(f"critics must be a list of modules, got {type(critics).__name__}: give [critic, ...].")
    if not critics:
        raise ValueError("critics is empty: give at least one critic.")
    for critic in critics:
        check_module("critic", critic)
    if len({id(critic) for critic in critics}) < len(critics):
        raise ValueError("A critic is in the list twice; its copies would always agree. Give distinct modules.")
    own = [{id(parameter) for parameter in critic.parameters()} for critic in critics]
    if sum(map(len, own)) > len(set().union(*own)):
        raise ValueError(
            "Critics in the list share parameters, and copies would not. Give critics of their own each, or one module"
            " that writes the values of all of them."
        )
    signatures = [f"{critic} {_shapes(critic)}" for critic in critics]
    for index, signature in enumerate(signatures):
        if signature != signatures[0]:
            raise ValueError(
                f"All critics must have the same keys, layers and parameter shapes, but critic {index} is\n"
                f"{signature}\nand critic 0 is\n{signatures[0]}."
            )


def _shapes(critic: TensorDictModule) -> dict[str, list[int]]:
    return {name: list(parameter.shape) for name, parameter in critic.named_parameters()}


def _network(critic: TensorDictModule) -> Any:
    return critic.module


def _plain_layers(critic: TensorDictModule) -> list[nn.Module] | None:
    """Return a plain perceptron's layers, ``None`` for anything the stacked form could not reproduce."""
    if type(critic) not in (TensorDictModule, ValueOperator):
        return None
    network = _network(critic)
    if type(network) not in (nn.Sequential, MLP):
        return None
    if type(network) is nn.Sequential and len(critic.in_keys) != 1:
        return None
    if any(module._forward_hooks or module._forward_pre_hooks for module in critic.modules()):
        return None
    layers = list(network)
    return layers if _is_plain(layers) else None


def _is_plain(layers: list[nn.Module]) -> bool:
    normed = len(layers) > 1 and type(layers[1]) is nn.LayerNorm
    block = [nn.Linear, nn.LayerNorm, nn.ReLU] if normed else [nn.Linear, nn.ReLU]
    expected = block * (len(layers) // len(block)) + [nn.Linear]
    if [nn.Linear if type(layer) is Linear else type(layer) for layer in layers] != expected:
        return False
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    norms = [layer for layer in layers if isinstance(layer, nn.LayerNorm)]
    return (
        linears[-1].out_features == 1
        and all(linear.bias is not None for linear in linears)
        and all(norm.bias is not None and norm.eps == nn.LayerNorm(1).eps for norm in norms)
        and all(len(norm.normalized_shape) == 1 for norm in norms)
    )


@torch.no_grad()
def _copy_(ensemble: EnsembleQValue, member: int, layers: list[nn.Module]) -> None:
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    norms = [layer for layer in layers if isinstance(layer, nn.LayerNorm)]
    for index, linear in enumerate(linears):
        ensemble.weights[index][member] = linear.weight.T
        ensemble.biases[index][member, 0] = linear.bias
    for index, norm in enumerate(norms):
        ensemble.norm_weights[index][member, 0] = norm.weight
        ensemble.norm_biases[index][member, 0] = norm.bias


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

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights anew, each critic independently, by the ``reset_parameters`` of its parts."""
        for member in range(self.num_critics):
            fresh = copy.deepcopy(self._critic)
            reset_(fresh)
            for key, value in TensorDict.from_module(fresh).items(True, True):  # pyright: ignore[reportCallIssue] tensordict types no arguments
                if isinstance(value, nn.Parameter):
                    self.params.data.get(cast(NestedKey, key))[member].copy_(value)

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the critics' values of the actions in ``tensordict``."""
        if self._critic.training != self.training:
            self._critic.train(self.training)
        inputs = self._as_trained(tensordict.select(*self.in_keys))
        values = torch.vmap(self._value, (None, 0), randomness="different")(inputs, self.params)
        if values.shape[1:] != (*tensordict.batch_size, 1):
            raise ValueError(
                f"Each critic must write {self.out_keys[0]!r} with shape [*B, 1] = "
                f"{[*tensordict.batch_size, 1]}, got {list(values.shape[1:])}."
            )
        return tensordict.set(self.out_keys[0], values.squeeze(-1).movedim(0, -1))

    def _as_trained(self, inputs: TensorDictBase) -> TensorDictBase:
        """The inputs in the floating type of the weights, which a policy's action need not have."""
        dtype = next((value.dtype for value in self.params.parameters()), None)
        if dtype is None or all(value.dtype == dtype for value in inputs.values(True, True)):
            return inputs
        return inputs.apply(lambda value: value.to(dtype) if value.is_floating_point() else value)

    def _value(self, inputs: TensorDictBase, params: TensorDictBase) -> Tensor:
        with params.to_module(self._critic, preserve_module_state=False):
            value: Tensor = self._critic(inputs.copy()).get(self.out_keys[0])
        return value
