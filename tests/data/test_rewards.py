"""Reward rules are affine, typed, and refuse what makes no sense."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from o3f.data import RewardRule, return_range_scale


def test_rule_scales_then_shifts() -> None:
    rule = RewardRule(scale=0.2, shift=-1.0)
    assert rule(10.0) == 1.0
    assert np.array_equal(rule(np.array([0.0, 5.0])), [-1.0, 0.0])
    torch.testing.assert_close(rule(torch.tensor([[0.0], [-5.0]])), torch.tensor([[-1.0], [-2.0]]))


def test_default_rule_changes_nothing_bit_for_bit() -> None:
    rewards = torch.randn(1000)
    assert torch.equal(RewardRule()(rewards), rewards)


def test_float32_stays_float32() -> None:
    assert RewardRule(2.0, 1.0)(torch.ones(3)).dtype == torch.float32
    assert RewardRule(2.0, 1.0)(np.ones(3, dtype=np.float32)).dtype == np.float32


def test_return_range_scale_by_hand() -> None:
    assert return_range_scale([-100.0, 300.0, 150.0]) == 1000.0 / 400.0


@pytest.mark.parametrize("returns", [[], [3.0], [2.0, 2.0], [1.0, math.nan], [1.0, math.inf]])
def test_return_range_needs_a_range(returns: list[float]) -> None:
    with pytest.raises(ValueError, match="Give the reward rule a scale"):
        return_range_scale(returns)


def test_return_range_is_resolved_once_with_the_dataset() -> None:
    rule = RewardRule(scale="return_range", shift=-1.0)
    with pytest.raises(ValueError, match="resolve"):
        rule(1.0)
    assert rule.resolve([0.0, 250.0], 2.0) == RewardRule(scale=4.0, shift=-1.0)
    assert RewardRule("largest_reward", shift=0.5).resolve([0.0, 250.0], 2.0) == RewardRule(scale=0.5, shift=0.5)
    assert RewardRule(3.0).resolve([0.0, 250.0], 2.0) == RewardRule(3.0)


@pytest.mark.parametrize("largest", [0.0, -1.0, math.nan, math.inf])
def test_the_largest_reward_must_be_one_to_divide_by(largest: float) -> None:
    with pytest.raises(ValueError, match=r"expected a positive one\. Give task.reward.scale"):
        RewardRule("largest_reward").resolve([0.0, 1.0], largest)


def test_a_running_sum_is_of_the_episode_played_and_not_of_a_dataset() -> None:
    rule = RewardRule(scale=0.25, shift=-1.0, running_sum=True)
    raw = torch.tensor([0.0, 1.0, 0.0, 2.0, 1.0])
    expected = torch.tensor([-1.0, -0.75, -0.75, -0.25, 0.0])
    assert torch.equal(rule.of_episode(raw), expected)
    stepwise = [rule.online(raw[step : step + 1], float(raw[:step].sum())) for step in range(5)]
    assert torch.equal(torch.cat(stepwise), expected)
    assert torch.equal(rule(raw), 0.25 * raw - 1.0)
    plain = RewardRule(scale=0.25, shift=-1.0)
    assert torch.equal(plain.of_episode(raw), plain(raw))
    assert plain.online(1.0, before=5.0) == -0.75


@pytest.mark.parametrize(
    ("scale", "shift"),
    [(0.0, 1.0), (math.nan, 0.0), (1.0, math.inf), ("range", 0.0), ("return_range", math.nan), (1.0, "1")],
)
def test_meaningless_rules_are_refused(scale: Any, shift: Any) -> None:
    with pytest.raises(ValueError, match="expected finite numbers"):
        RewardRule(scale, shift)
