"""The layers of stacked perceptrons, with a backward pass of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ROWS = 512
"""Most rows at a time: the activations of so many stay in a CPU's cache between one layer and the next."""


def stacked_layers(inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Linear layers with ReLU between them, for m networks on the same inputs: ``[B, in] -> [m, B, out]``.

    Equal in values and gradients to a chain of ``baddbmm`` and ``relu``. On a CPU, with more rows than
    :data:`ROWS`, the passes go through blocks of rows, with gradients network by network, which moves less memory:
    CQL, with 31 actions in each state, takes an eighth less time for it, scoring 10,000 candidates a third less. With
    fewer rows it does not pay.

    Args:
        inputs: ``[B, in]``.
        weights: of each layer, ``[m, in, out]``.
        biases: of each layer, ``[m, 1, out]``.
    """
    tensors = [inputs, *weights, *biases]
    if torch.compiler.is_compiling() or len(inputs) <= ROWS or not _plain_on_cpu(tensors):
        return _chain(inputs, weights, biases)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        result: Tensor = _Layers.apply(*tensors)  # type: ignore[no-untyped-call]
        return result
    return torch.cat([_chain(rows, weights, biases) for rows in torch.split(inputs, ROWS)], 1)


def _chain(inputs: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    hidden = inputs.expand(weights[0].shape[0], -1, -1)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = torch.baddbmm(bias, hidden, weight)
        if layer < len(weights) - 1:
            hidden = hidden.relu_()
    return hidden


def _plain_on_cpu(tensors: Sequence[Tensor]) -> bool:
    """Whether these are tensors on a CPU, and neither a compiler nor autocast nor functorch looks at them."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    wrapped: Any = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore[reportAttributeAccessIssue]
    return all(tensor.device.type == "cpu" and not wrapped(tensor) for tensor in tensors)


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, *parameters: Tensor) -> Tensor:
        count = len(parameters) // 2
        weights, biases = parameters[:count], parameters[count:]
        networks, rows = len(weights[0]), len(inputs)
        hidden = [inputs.new_empty(networks, rows, weight.shape[-1]) for weight in weights]
        # One network's weights and a few rows stay in the processor's cache through all of its layers.
        for network in range(networks):
            for start in range(0, rows, ROWS):
                current = inputs[start : start + ROWS]
                for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                    written = hidden[layer][network, start : start + ROWS]
                    torch.addmm(bias[network], current, weight[network], out=written)
                    current = written.relu_() if layer < count - 1 else written
        # The ReLU's outputs are enough for its gradient: what was below 0 is 0. The last layer has none.
        ctx.save_for_backward(inputs, *parameters, *hidden[:-1])
        return hidden[-1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        count = len(ctx.saved_tensors) // 3  # saved: the inputs, L weights, L biases, L - 1 hidden layers
        inputs, *parameters = ctx.saved_tensors[: 2 * count + 1]
        weights, hidden = parameters[:count], ctx.saved_tensors[2 * count + 1 :]
        if torch.is_grad_enabled():  # create_graph=True: this gradient will be differentiated, too
            return _again(ctx.needs_input_grad, inputs, parameters, gradient)
        of_inputs = torch.zeros_like(inputs) if ctx.needs_input_grad[0] else None
        learns = any(ctx.needs_input_grad[1:])  # an actor's loss only wants the gradient of its action
        of_weights = [torch.zeros_like(weight) for weight in weights]
        of_biases = [weight.new_zeros(len(weight), 1, weight.shape[-1]) for weight in weights]
        for network in range(len(weights[0])):
            for start in range(0, len(inputs), ROWS):
                rows = slice(start, start + ROWS)
                current = gradient[network, rows]
                for layer in reversed(range(count)):
                    below = hidden[layer - 1][network, rows] if layer else inputs[rows]
                    if learns:
                        of_weights[layer][network].addmm_(below.t(), current)
                        of_biases[layer][network] += current.sum(0)
                    if layer:
                        current = _through(current, weights[layer][network], below)
                if of_inputs is not None:
                    of_inputs[rows].addmm_(current, weights[0][network].t())
        return (of_inputs, *of_weights, *of_biases) if learns else (of_inputs, *[None] * (2 * count))


def _through(gradient: Tensor, weight: Tensor, below: Tensor) -> Tensor:
    """The gradient ``[B, in]`` below a linear layer and the ReLU that gave ``below`` ``[B, in]``."""
    # A product with one column is a multiplication, which is faster; the mask of the ReLU is applied in place.
    result = gradient * weight.t() if weight.shape[-1] == 1 else gradient @ weight.t()
    torch.ops.aten.threshold_backward.grad_input(result, below, 0, grad_input=result)
    return result


def _again(
    needed: Sequence[bool], inputs: Tensor, parameters: Sequence[Tensor], gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients by way of the plain chain, which can be differentiated any number of times."""
    leaves = [inputs, *parameters]
    count = len(parameters) // 2
    wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
    found = iter(
        torch.autograd.grad(_chain(inputs, parameters[:count], parameters[count:]), wanted, gradient, create_graph=True)
    )
    return tuple(next(found) if need else None for need in needed)
