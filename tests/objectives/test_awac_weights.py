"""AWAC's weights are the published numbers, do not overflow and lead to behaviour cloning as λ grows."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from o3f.objectives import awac_weights

ADVANTAGE = torch.tensor([-1.0, 0.0, 1.0, 2.0, 6.0], dtype=torch.float64)
advantages = st.lists(st.floats(-50, 50), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("weighting", "lam", "expected"),
    [
        ("softmax", 1.0, (0.004433, 0.012051, 0.032758, 0.089045, 4.861712)),
        ("exp", 1.0, (0.367879, 1.0, 2.718282, 7.389056, 100.0)),
        ("softmax", 0.1, (0.0, 0.0, 0.0, 0.0, 5.0)),
        ("exp", 0.1, (4.53999e-5, 1.0, 100.0, 100.0, 100.0)),
    ],
)
def test_published_numbers(weighting: str, lam: float, expected: tuple[float, ...]) -> None:
    target = torch.tensor(expected, dtype=torch.float64)
    for given_lam in (lam, torch.tensor(lam, dtype=torch.float64)):
        found = awac_weights(ADVANTAGE, given_lam, weighting)  # type: ignore[arg-type]
        torch.testing.assert_close(found, target, atol=6e-7, rtol=0)


@given(advantages, st.floats(0.1, 10), st.floats(-100, 100))
@settings(max_examples=50, deadline=None)
def test_softmax_weights_sum_to_the_batch_and_ignore_a_constant(values: list[float], lam: float, shift: float) -> None:
    advantage = torch.tensor(values, dtype=torch.float64)
    weights = awac_weights(advantage, lam)
    assert weights.sum().item() == pytest.approx(len(values))
    torch.testing.assert_close(awac_weights(advantage + shift, lam), weights, atol=1e-9, rtol=1e-9)


def test_exponential_weights_follow_a_constant() -> None:
    found = awac_weights(ADVANTAGE[:2] + 0.5, 1.0, "exp") / awac_weights(ADVANTAGE[:2], 1.0, "exp")
    torch.testing.assert_close(found, torch.full((2,), math.exp(0.5), dtype=torch.float64))


@pytest.mark.parametrize("weighting", ["softmax", "exp"])
def test_a_large_lam_is_behaviour_cloning(weighting: str) -> None:
    weights = awac_weights(ADVANTAGE, 1e9, weighting)  # type: ignore[arg-type]
    torch.testing.assert_close(weights, torch.ones(5, dtype=torch.float64), atol=1e-7, rtol=0)


def test_huge_advantages_stay_finite() -> None:
    huge = torch.tensor([1e6, -1e6, 0.0])
    assert awac_weights(huge, 0.01).tolist() == [3.0, 0.0, 0.0]
    assert awac_weights(huge, 0.01, "exp").tolist() == [100.0, 0.0, 1.0]


def test_batch_shapes_share_one_softmax() -> None:
    folded = awac_weights(ADVANTAGE[:4].reshape(2, 2), 1.0)
    torch.testing.assert_close(folded.flatten(), awac_weights(ADVANTAGE[:4], 1.0))
    assert folded.shape == (2, 2)
