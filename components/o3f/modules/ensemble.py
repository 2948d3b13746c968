"""An ensemble of Q-functions as one module with stacked weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, dispatch
from torch import Tensor, nn
from torchrl.data import Composite, TensorSpec

from o3f.modules.arguments import check_switches, layer_sizes, whole_number
from o3f.modules.keys import key_list
from o3f.modules.mlp import Init, initialise_
from o3f.modules.normalisation import Normaliser
from o3f.modules.stacked_layers import stacked_layers

if TYPE_CHECKING:
    from o3f.modules.stacking import GenericEnsemble


class EnsembleQValue(TensorDictModuleBase):
    r"""``m`` critics Q_1..Q_m of the same shape, evaluated by one batched call.

    Every critic is a multi-layer perceptron on the concatenated inputs (Linear, LayerNorm if asked for, ReLU,
    a linear output of width one). Weights are stacked over the critics, so a layer of all of them is one
    batched matrix product: several times faster than a loop or ``vmap`` over modules, for the same numbers.

    Reads ``in_keys`` (``[*B, O]`` and ``[*B, A]``), writes ``out_key`` (``[*B, m]``), for any batch shape.

    The parameters are ``weights.{i}`` ``[m, in, out]`` and ``biases.{i}`` ``[m, 1, out]`` of layer ``i``, and
    with LayerNorm ``norm_weights.{i}`` and ``norm_biases.{i}`` ``[m, 1, width]`` of hidden layer ``i``. With
    ``normalise`` there are the buffers ``normaliser.loc`` and ``normaliser.scale`` ``[O + A]``.

    Args:
        observation_dim: O.
        action_dim: A.
        num_critics: m. The default is O3F's (5, for all its base algorithms).
        hidden_sizes: widths of the hidden layers. The default is IQL's.
        layer_norm: normalise before every ReLU. Off, as in IQL.
        init: ``"orthogonal"`` (IQL's own: gain sqrt(2) on every layer, zero biases) or ``"default"``
            (that of :class:`torch.nn.Linear`). Members are drawn independently in both cases.
        normalise: put a :class:`~o3f.modules.Normaliser` (the identity until it is fitted) before the first
            layer, so that all critics see z-scores.
        in_keys: entries to concatenate, in this order.
        out_key: entry to write.
        device: where the parameters live.
        generator: source of the initial weights (on ``device``), ``None`` for torch's global stream.

    Raises:
        ValueError: if a size is not positive or no whole number; at the call, if the inputs have another width.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> critic = EnsembleQValue(observation_dim=3, action_dim=2, num_critics=5)
        >>> td = TensorDict({"observation": torch.zeros(4, 3), "action": torch.zeros(4, 2)}, [4])
        >>> critic(td)["state_action_value"].shape
        torch.Size([4, 5])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        num_critics: int = 5,
        hidden_sizes: Sequence[int] = (256, 256),
        *,
        layer_norm: bool = False,
        init: Init = "orthogonal",
        normalise: bool = False,
        in_keys: Sequence[NestedKey] = ("observation", "action"),
        out_key: NestedKey = "state_action_value",
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_switches(layer_norm=layer_norm, normalise=normalise)
        widths = {"observation_dim": observation_dim, "action_dim": action_dim}
        inputs = sum(whole_number(name, width, least=0) for name, width in widths.items())
        sizes = layer_sizes(inputs, hidden_sizes, 1)
        self.in_keys = key_list(in_keys)
        if not self.in_keys:
            raise ValueError("in_keys is empty: name what the critics read.")
        self.out_keys = key_list([out_key])
        self.num_critics = num_critics = whole_number("num_critics", num_critics)
        self.init: Init = init
        self.normaliser = Normaliser(sizes[0], self.in_keys, device) if normalise else None
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.norm_weights = nn.ParameterList()
        self.norm_biases = nn.ParameterList()
        for fan_in, width in itertools.pairwise(sizes):
            self.weights.append(torch.empty(num_critics, fan_in, width, device=device))
            self.biases.append(torch.empty(num_critics, 1, width, device=device))
        for width in sizes[1:-1] if layer_norm else ():
            self.norm_weights.append(torch.empty(num_critics, 1, width, device=device))
            self.norm_biases.append(torch.empty(num_critics, 1, width, device=device))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew, each critic independently."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            for member in range(self.num_critics):
                initialise_(weight[member], bias[member], weight.shape[1], self.init, generator)
        for weight, bias in zip(self.norm_weights, self.norm_biases, strict=True):
            weight.fill_(1.0)
            bias.zero_()

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the critics' values of the actions in ``tensordict``."""
        return tensordict.set(self.out_keys[0], self.values(join_inputs(tensordict, self.in_keys)))

    def values(self, inputs: Tensor, members: Tensor | None = None) -> Tensor:
        """Values ``[*B, k]`` of the concatenated inputs ``[*B, O + A]``.

        Args:
            inputs: observations and actions, in the order of ``in_keys``.
            members: indices ``[k]`` of the critics to evaluate, the others cost nothing; None is all (k = m).

        Raises:
            ValueError: if the inputs are of another width than the critics were built for.
        """
        if inputs.shape[-1] != self.weights[0].shape[-2]:
            raise ValueError(
                f"The critics were built for {self.weights[0].shape[-2]} numbers of {self.in_keys} together and are"
                f" given {inputs.shape[-1]}. Build them for the observation and action of this task and policy."
            )
        inputs = inputs.to(self.weights[0].dtype)  # a policy with a float32 spec writes float32 whatever its own type
        if self.normaliser is not None:
            inputs = self.normaliser(inputs)
        batch = inputs.shape[:-1]
        flat = inputs.reshape(math.prod(batch), inputs.shape[-1])
        weights, biases = ([_of(value, members) for value in stack] for stack in (self.weights, self.biases))
        if len(self.norm_weights):
            values = self._normed(flat, weights, biases, members)
        else:
            values = stacked_layers(flat, weights, biases)
        return values.squeeze(-1).T.reshape(*batch, len(weights[0]))

    def _normed(
        self, inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], members: Tensor | None
    ) -> Tensor:
        """The layers with LayerNorm before every ReLU: ``[B, in] -> [k, B, 1]``."""
        hidden = inputs.expand(len(weights[0]), -1, -1)
        for layer, (gain, offset) in enumerate(zip(self.norm_weights, self.norm_biases, strict=True)):
            hidden = torch.baddbmm(biases[layer], hidden, weights[layer])
            hidden = F.layer_norm(hidden, hidden.shape[-1:]) * _of(gain, members) + _of(offset, members)
            hidden = hidden.relu_()
        return torch.baddbmm(biases[-1], hidden, weights[-1])

    @classmethod
    def from_specs(cls, observation_spec: TensorSpec, action_spec: TensorSpec, **kwargs: Any) -> EnsembleQValue:
        """Build the ensemble for the flat observation ``[*B, O]`` and action ``[*B, A]`` of two specs.

        Args:
            observation_spec: the observation's spec, or a composite holding it under the first ``in_keys``.
            action_spec: the action's spec, or a composite holding it under the second ``in_keys``.
            **kwargs: the other arguments of :class:`EnsembleQValue`.

        Raises:
            ValueError: if a spec does not describe vectors of floats.
        """
        observation_key, action_key = kwargs.get("in_keys", ("observation", "action"))
        return cls(_width(observation_spec, observation_key), _width(action_spec, action_key), **kwargs)

    @classmethod
    def from_modules(cls, critics: Sequence[TensorDictModule]) -> EnsembleQValue | GenericEnsemble:
        """Build the ensemble of existing critics, copying their weights exactly.

        Perceptrons of Linear, ReLU and LayerNorm (an ``nn.Sequential`` or a TorchRL ``MLP`` on concatenated
        inputs) are stacked; critics of any other architecture give a
        :class:`~o3f.modules.GenericEnsemble`, which keeps the same contract under ``vmap``.

        Args:
            critics: modules of one architecture, each writing one value ``[*B, 1]``.

        Raises:
            ValueError: if there are no critics, one is given twice, or they differ in architecture or keys.
        """
        from o3f.modules.stacking import stack_critics

        return stack_critics(critics)


def join_inputs(entries: Any, keys: Sequence[NestedKey]) -> Tensor:
    """Concatenate entries ``[*B, n]`` to what critics read, ``[*B, O + A]``.

    Args:
        entries: a TensorDict, or a mapping with tensors.
        keys: which, in this order.

    Raises:
        KeyError: if one is missing.
        ValueError: if they are not vectors of the same batch.
    """
    parts = [entries[key] for key in keys]
    first = parts[0].shape
    if not first or any(part.shape[:-1] != first[:-1] for part in parts):
        found = ", ".join(f"{key!r} {list(part.shape)}" for key, part in zip(keys, parts, strict=True))
        raise ValueError(f"The critics read vectors of the same batch, [*B, n] each, and are given {found}.")
    return torch.cat(parts, -1)


def _of(stack: Tensor, members: Tensor | None) -> Tensor:
    """The entries of ``members`` in a parameter stacked over the critics."""
    return stack if members is None else stack.index_select(0, members)


def _width(spec: TensorSpec, key: NestedKey) -> int:
    """Length of the flat float vector that ``spec``, or its entry ``key``, describes."""
    leaf: Any = spec.get(key, None) if isinstance(spec, Composite) else spec
    if not isinstance(leaf, TensorSpec):
        raise ValueError(f"Expected the spec of {key!r}, or a composite that holds it, got {spec!r}.")
    if not leaf.dtype.is_floating_point or not leaf.shape:
        raise ValueError(
            f"The spec of {key!r} must describe a vector of floats, got {leaf}. Flatten dictionaries and "
            "images first; discrete actions are not supported."
        )
    return int(leaf.shape[-1])
