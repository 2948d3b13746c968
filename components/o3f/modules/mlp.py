"""Multi-layer perceptrons and their initialisation, shared by policies, values and critics."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from o3f.errors import number
from o3f.modules.arguments import check_switches, whole_number

Init = Literal["orthogonal", "default"]


@torch.no_grad()
def initialise_(
    weight: Tensor, bias: Tensor, fan_in: int, init: Init, generator: torch.Generator | None = None
) -> None:
    """Draw the weight and bias of one linear layer in place.

    Args:
        weight: matrix of either orientation.
        bias: the layer's bias, of any shape.
        fan_in: number of inputs of the layer.
        init: ``"orthogonal"`` is the initialisation of IQL's authors: gain sqrt(2), zero bias, on every
            layer (output layers included). ``"default"`` is that of :class:`torch.nn.Linear`:
            weight and bias uniform in ``+-1 / sqrt(fan_in)``.
        generator: source of randomness, ``None`` for torch's global stream.

    Raises:
        ValueError: if ``init`` is neither of the two.
    """
    if init == "orthogonal":
        nn.init.orthogonal_(weight, gain=math.sqrt(2.0), generator=generator)
        bias.zero_()
    elif init == "default":
        bound = 1.0 / math.sqrt(fan_in)
        weight.uniform_(-bound, bound, generator=generator)
        bias.uniform_(-bound, bound, generator=generator)
    else:
        raise ValueError(f"init must be 'orthogonal' or 'default', got {init!r}.")


def mlp(
    sizes: Sequence[int],
    *,
    init: Init = "orthogonal",
    layer_norm: bool = False,
    dropout: float = 0.0,
    normaliser: nn.Module | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Linear layers with ReLU between them: ``[*B, sizes[0]] -> [*B, sizes[-1]]``.

    Each hidden layer is Linear, then LayerNorm (if asked for), ReLU and dropout (if not 0). A normaliser, if there is
    one, comes before all of them, and is the sequence's entry 0.

    Args:
        sizes: widths from input to output, at least two.
        init: see :func:`initialise_`.
        layer_norm: normalise before every ReLU.
        dropout: probability of dropping a hidden unit, in [0, 1).
        normaliser: of the inputs, ``[*B, sizes[0]] -> [*B, sizes[0]]``.
        device: where the parameters live.

    Raises:
        ValueError: if there are fewer than two sizes, one is no whole number of at least 1, or ``dropout`` is not in
            [0, 1).
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes must hold an input and an output width, got {list(sizes)}.")
    sizes = [whole_number("each of sizes", size) for size in sizes]
    dropout = number("dropout", dropout, "[0, 1)")
    check_switches(layer_norm=layer_norm)
    layers: list[nn.Module] = [] if normaliser is None else [normaliser]
    for fan_in, width in itertools.pairwise(sizes[:-1]):
        layers.append(_linear(fan_in, width, init, device))
        if layer_norm:
            layers.append(nn.LayerNorm(width, device=device))
        layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, _linear(sizes[-2], sizes[-1], init, device))


class Linear(nn.Linear):
    """A linear layer that is drawn anew as it was drawn first: ``init``, see :func:`initialise_`.

    Raises:
        ValueError: at the call, if the input has another width or number type than the weight.
    """

    init: Init = "default"

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input`` ``[*B, in]`` times the weight, plus the bias, ``[*B, out]``."""
        if input.shape[-1:] != (self.in_features,) or input.dtype != self.weight.dtype:
            self._check(input)
        return super().forward(input)

    def _check(self, given: Tensor) -> None:
        if given.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"A network that was built for inputs [*B, {self.in_features}] is given {list(given.shape)}. Give what"
                " it was built for, observations [*B, O] for example, or build it for this width."
            )
        if not torch.is_autocast_enabled(given.device.type):
            raise ValueError(
                f"A network with weights of {self.weight.dtype} is given {given.dtype}. Convert the observations, for"
                " example with torchrl.envs.DTypeCastTransform, or the network with .to()."
            )

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        if self.init == "default":
            super().reset_parameters()
        else:
            initialise_(self.weight, self.bias, self.in_features, self.init)


def reset_(module: nn.Module) -> None:
    """Draw all weights of a module anew, in place, by the ``reset_parameters`` of its parts.

    Inner parts come first, so that what a network says of its own layers holds.

    Warns:
        UserWarning: of Parameters that no part draws; they stay as they are.
    """
    drawn: set[int] = set()
    for part in reversed(list(module.modules())):
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
            drawn.update(id(parameter) for parameter in part.parameters())
    kept = [name for name, parameter in module.named_parameters() if id(parameter) not in drawn]
    if kept:
        warnings.warn(
            f"The parameters {kept} of {type(module).__name__} cannot be drawn anew and stay as they are: give the"
            " module that holds them a reset_parameters().",
            stacklevel=3,
        )


def _linear(fan_in: int, width: int, init: Init, device: torch.device | str | None) -> Linear:
    linear = Linear(fan_in, width, device=device)
    linear.init = init
    initialise_(linear.weight, linear.bias, fan_in, init)
    return linear
