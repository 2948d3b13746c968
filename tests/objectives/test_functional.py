"""The equations of the objectives give the published numbers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from o3f.objectives import advantage_weights, aggregate_critics, expectile_loss

EXPECTILES = (0.5, 0.7, 0.8, 0.85, 0.9, 0.99)
LEVELS = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
# Quantiles at even levels; their expectiles by closed form or quadrature; what cutting the tails costs.
MINIMISERS = {
    "uniform": (LEVELS, (0.5, 0.604356, 0.666667, 0.704184, 0.75, 0.908675), 2e-6),
    "normal": (
        math.sqrt(2) * torch.erfinv(2 * LEVELS - 1),
        (0.0, 0.337120, 0.549156, 0.684476, 0.861592, 1.717437),
        1e-3,
    ),
    "exponential": (-torch.log1p(-LEVELS), (1.0, 1.346771, 1.603546, 1.783908, 2.040113, 3.621298), 1e-3),
    "bernoulli": (
        torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64),
        (0.25, 0.4375, 0.571429, 0.653846, 0.75, 0.970588),
        2e-6,
    ),
    "four values": (
        torch.arange(4, dtype=torch.float64),
        (1.5, 1.9, 2.142857, 2.307692, 2.5, 2.941176),
        2e-6,
    ),
}


def minimiser(samples: torch.Tensor, expectile: float) -> float:
    """The constant with the smallest mean loss, by ternary search: only values of the loss are used."""
    low, high = samples.min().item(), samples.max().item()
    for _ in range(50):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if expectile_loss(samples - left, expectile).mean() < expectile_loss(samples - right, expectile).mean():
            high = right
        else:
            low = left
    return (low + high) / 2


@pytest.mark.parametrize("name", MINIMISERS)
def test_minimiser_is_the_expectile(name: str) -> None:
    samples, expected, tolerance = MINIMISERS[name]
    for expectile, value in zip(EXPECTILES, expected, strict=True):
        assert minimiser(samples, expectile) == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize("name", MINIMISERS)
def test_gradient_vanishes_at_the_expectile(name: str) -> None:
    samples, expected, tolerance = MINIMISERS[name]
    for expectile, value in zip(EXPECTILES, expected, strict=True):
        guess = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(expectile_loss(samples - guess, expectile).mean(), guess)
        assert slope.item() == pytest.approx(0.0, abs=2 * tolerance)


def test_loss_values_by_hand() -> None:
    diff = torch.tensor([[2.0, -2.0], [0.5, 0.0]])
    expected = torch.tensor([[0.7 * 4, 0.3 * 4], [0.7 * 0.25, 0.0]])
    torch.testing.assert_close(expectile_loss(diff, 0.7), expected)
    torch.testing.assert_close(expectile_loss(diff, torch.tensor(0.7)), expected)


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.floats(-100, 100), min_size=2, max_size=8),
    expectile=st.floats(0.01, 0.99),
    shift=st.floats(-10, 10),
    scale=st.floats(0.1, 10),
)
def test_loss_shifts_and_scales_with_its_samples(
    values: list[float], expectile: float, shift: float, scale: float
) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    guess = x.mean() + 0.3
    loss = expectile_loss(x - guess, expectile)
    torch.testing.assert_close(
        expectile_loss((scale * x + shift) - (scale * guess + shift), expectile),
        scale**2 * loss,
        atol=1e-6,
        rtol=1e-6,
    )
    mirrored = expectile_loss(guess - x, 1 - expectile)
    torch.testing.assert_close(mirrored, loss)


def test_weights_by_hand() -> None:
    torch.testing.assert_close(advantage_weights(torch.tensor([0.4]), 10.0), torch.tensor([54.598150]))
    weights = advantage_weights(torch.tensor([2.0, 0.0, -1.0]), 3.0)
    torch.testing.assert_close(weights, torch.tensor([100.0, 1.0, math.exp(-3)]))
    torch.testing.assert_close(advantage_weights(torch.tensor([2.0]), 3.0, max_weight=1e6), torch.tensor([403.428793]))


def test_weights_and_their_gradients_stay_finite() -> None:
    advantage = torch.tensor([1e30, 200.0, -1e30], requires_grad=True)
    weights = advantage_weights(advantage, torch.tensor(10.0))
    weights.sum().backward()
    assert weights[:2].tolist() == pytest.approx([100.0, 100.0], rel=1e-6)
    assert weights.max().item() <= 100.0
    assert weights[2].item() == 0.0
    assert advantage.grad is not None
    assert advantage.grad.tolist() == [0.0, 0.0, 0.0]


def test_aggregations_by_hand() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0, 6.0], [0.0, -4.0, 8.0, 0.0]])
    assert aggregate_critics(values).tolist() == [1.0, -4.0]
    assert aggregate_critics(values, "mean").tolist() == [3.0, 1.0]
    assert aggregate_critics(values, "subset", 4).tolist() == [1.0, -4.0]


def test_subset_draws_every_pair_equally_often() -> None:
    # With members 0..4 in order the minimum is k for (4 - k) of the 10 pairs.
    generator = torch.Generator().manual_seed(0)
    values = torch.arange(5.0)
    draws = torch.stack([aggregate_critics(values, "subset", 2, generator) for _ in range(4000)])
    frequencies = [(draws == k).float().mean().item() for k in range(5)]
    expected = [sum(min(pair) == k for pair in itertools.combinations(range(5), 2)) / 10 for k in range(5)]
    assert frequencies == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000))
    assert frequencies[4] == 0.0


def test_subset_of_one_has_the_mean_as_its_expectation() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.tensor([0.0, 1.0, 5.0])
    draws = torch.stack([aggregate_critics(values, "subset", 1, generator) for _ in range(4000)])
    assert draws.mean().item() == pytest.approx(2.0, abs=4 * 2.16 / math.sqrt(4000))


def test_subset_is_shared_over_the_batch_and_follows_its_generator() -> None:
    values = torch.arange(5.0).expand(7, 3, 5)
    one = aggregate_critics(values, "subset", 2, torch.Generator().manual_seed(3))
    assert one.shape == (7, 3)
    assert one.unique().numel() == 1
    first, second = (
        [aggregate_critics(values[0], "subset", 2, g)[0].item() for _ in range(10)]
        for g in (torch.Generator().manual_seed(4), torch.Generator().manual_seed(4))
    )
    assert first == second
    assert len(set(first)) > 1


@pytest.mark.parametrize("size", [0, 6])
def test_impossible_subset_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"subset_size is {size}; expected 1 to 5"):
        aggregate_critics(torch.zeros(5), "subset", size)


def test_unknown_aggregation_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'min', 'mean' or 'subset'"):
        aggregate_critics(torch.zeros(5), "median")  # type: ignore[arg-type]
