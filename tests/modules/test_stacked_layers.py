"""The stacked layers' own backward pass: values and gradients are those of the plain chain."""

import itertools

import pytest
import torch

from o3f.modules import stacked_layers as module
from o3f.modules.stacked_layers import stacked_layers


def make(networks=3, rows=5, sizes=(4, 6, 7, 1), dtype=torch.float64, learns=True, inputs_learn=True):
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape, grad):
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_(grad)

    pairs = list(itertools.pairwise(sizes))
    weights = [numbers(networks, a, b, grad=learns) for a, b in pairs]
    biases = [numbers(networks, 1, b, grad=learns) for _, b in pairs]
    return numbers(rows, sizes[0], grad=inputs_learn), weights, biases


def chain(inputs, weights, biases):
    outputs = []
    for network in range(len(weights[0])):
        hidden = inputs
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = hidden @ weight[network] + bias[network]
            hidden = hidden.clamp_min(0) if layer < len(weights) - 1 else hidden
        outputs.append(hidden)
    return torch.stack(outputs)


def gradients(function, inputs, weights, biases):
    leaves = [leaf for leaf in (inputs, *weights, *biases) if leaf.requires_grad]
    output = function(inputs, weights, biases)
    return output, torch.autograd.grad((output * torch.arange(output.numel()).reshape(output.shape)).sum(), leaves)


@pytest.fixture(autouse=True)
def blocks_of_four(monkeypatch):
    """So that a few rows are many."""
    monkeypatch.setattr(module, "ROWS", 4)


@pytest.mark.parametrize("rows", [4, 5, 8, 11])
def test_without_gradients_in_blocks_of_rows(rows, monkeypatch):
    seen = []
    plain = module._chain
    monkeypatch.setattr(module, "_chain", lambda inputs, *rest: seen.append(len(inputs)) or plain(inputs, *rest))
    arguments = make(rows=rows)
    with torch.no_grad():
        torch.testing.assert_close(stacked_layers(*arguments), chain(*arguments))
    assert seen == {4: [4], 5: [4, 1], 8: [4, 4], 11: [4, 4, 3]}[rows]


def test_gradcheck():
    inputs, weights, biases = make()
    count = len(weights)
    assert torch.autograd.gradcheck(lambda x, *p: stacked_layers(x, p[:count], p[count:]), (inputs, *weights, *biases))


@pytest.mark.parametrize("rows", [5, 8, 11])
@pytest.mark.parametrize(("learns", "inputs_learn"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("sizes", [(4, 6, 7, 1), (4, 1), (3, 5, 2)])
def test_the_same_as_a_plain_chain(rows, learns, inputs_learn, sizes):
    """Where only the inputs or only the parameters learn, too."""
    arguments = make(rows=rows, sizes=sizes, learns=learns, inputs_learn=inputs_learn)
    ours, our_gradients = gradients(stacked_layers, *arguments)
    theirs, their_gradients = gradients(chain, *arguments)
    assert ours.grad_fn.name() == "_LayersBackward"
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_gradients, their_gradients)


def test_few_rows_are_left_to_autograd():
    arguments = make(rows=4)
    ours, our_gradients = gradients(stacked_layers, *arguments)
    theirs, their_gradients = gradients(chain, *arguments)
    assert ours.grad_fn.name() != "_LayersBackward"
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_gradients, their_gradients)


def test_without_gradients_and_under_transforms_it_is_the_plain_chain():
    inputs, weights, biases = make()
    expected = chain(inputs, weights, biases)
    with torch.no_grad():
        torch.testing.assert_close(stacked_layers(inputs, weights, biases), expected)
    batched = torch.vmap(lambda x: stacked_layers(x, weights, biases))(torch.stack([inputs, 2 * inputs]))
    torch.testing.assert_close(batched[0], expected)
    of_sum = torch.func.grad(lambda x: stacked_layers(x, weights, biases).sum())(inputs.detach())
    torch.testing.assert_close(of_sum, torch.autograd.grad(expected.sum(), inputs)[0])


def test_second_gradients():
    """As of a penalty on the critics' gradient."""
    inputs, weights, biases = make()
    count = len(weights)
    assert torch.autograd.gradgradcheck(
        lambda x, *p: stacked_layers(x, p[:count], p[count:]), (inputs, *weights, *biases)
    )
