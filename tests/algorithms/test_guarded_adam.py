"""GuardedAdam is torch's Adam, but for the steps with gradients that are not finite."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from o3f.algorithms.guarded_adam import GuardedAdam, minimise


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)).to(dtype)


def groups(net: nn.Sequential) -> list[dict[str, object]]:
    return [{"params": list(net[0].parameters()), "lr": 0.3}, {"params": list(net[2].parameters())}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchs_adam_bit_for_bit(dtype: torch.dtype) -> None:
    ours, theirs = network(dtype), network(dtype)
    guarded = GuardedAdam(groups(ours), lr=0.01, weight_decay=0.1)
    plain = torch.optim.Adam(groups(theirs), lr=0.01, weight_decay=0.1, fused=True)
    inputs = torch.randn(5, 3, dtype=dtype)
    for _ in range(4):
        left_out = minimise(ours(inputs).square().mean(), guarded)
        plain.zero_grad()
        theirs(inputs).square().mean().backward()
        plain.step()
        assert left_out.item() == 0.0
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    mine, reference = guarded.state_dict(), plain.state_dict()
    assert mine["param_groups"] == reference["param_groups"]
    for index, state in reference["state"].items():
        assert all(torch.equal(mine["state"][index][name], value) for name, value in state.items())
        assert all(mine["state"][index][name].dtype == value.dtype for name, value in state.items())


def test_goes_on_from_a_state_of_torchs_adam() -> None:
    ours = network()
    plain = torch.optim.Adam(groups(ours), lr=0.01, fused=True)
    ours(torch.ones(1, 3)).sum().backward()
    plain.step()
    theirs = copy.deepcopy(ours)
    reference = torch.optim.Adam(groups(theirs), lr=0.01, fused=True)
    reference.load_state_dict(copy.deepcopy(plain.state_dict()))
    guarded = GuardedAdam(groups(ours), lr=0.01)
    guarded.load_state_dict(copy.deepcopy(plain.state_dict()))
    minimise(ours(torch.ones(1, 3)).square().sum(), guarded)
    reference.zero_grad()
    theirs(torch.ones(1, 3)).square().sum().backward()
    reference.step()
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e20])  # the last one's square is infinite
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    nets = network(), network()
    optimisers = [GuardedAdam(net.parameters(), lr=0.1) for net in nets]
    undisturbed = network()
    reference = GuardedAdam(undisturbed.parameters(), lr=0.1)
    inputs = torch.ones(2, 3)
    for factor in (1.0, bad, 1.0):
        # One gradient of the first network alone is bad; the second one's step is left out with it.
        loss = sum(net(inputs).square().sum() for net in nets) + nets[0][2].bias.sum() * (factor - 1.0)
        assert minimise(loss, *optimisers).item() == float(factor != 1.0)
    for _ in range(2):
        minimise(undisturbed(inputs).square().sum(), reference)
    for net, optimiser in zip(nets, optimisers, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(net.parameters(), undisturbed.parameters(), strict=True))
        assert {int(state["step"]) for state in optimiser.state.values()} == {2}


def test_a_parameter_the_loss_does_not_use_is_an_error() -> None:
    net = network()
    with pytest.raises(RuntimeError, match="not have been used"):
        minimise(net[0](torch.ones(1, 3)).sum(), GuardedAdam(net.parameters(), lr=0.1))
