"""ValueClamp: values stay within what the rewards allow, and the range follows them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from o3f.objectives import ValueClamp
from tests.support.iql_cases import make_batch
from tests.support.lapo_cases import make_loss

DISCOUNT = torch.tensor(0.9)
WIDE = torch.tensor([-1e4, -15.0, 0.0, 15.0, 1e4])


def clamped(clamp: ValueClamp) -> list[float]:
    return [round(value, 3) for value in clamp(WIDE, DISCOUNT).tolist()]


def test_running_range_follows_rewards_and_holds_zero() -> None:
    clamp = ValueClamp()
    assert clamped(clamp) == [0.0] * 5
    clamp.observe(torch.tensor([[1.0], [0.5]]))  # [0, 1] / (1 - 0.9)
    assert clamped(clamp) == [0.0, 0.0, 0.0, 10.0, 10.0]
    clamp.observe(torch.tensor([-2.0, 0.1]))
    assert clamped(clamp) == [-20.0, -15.0, 0.0, 10.0, 10.0]
    clamp.observe(torch.zeros(3))  # a range does not shrink
    assert clamped(clamp) == [-20.0, -15.0, 0.0, 10.0, 10.0]
    clamp.fit(torch.tensor([3.0]))
    assert clamped(clamp) == [-20.0, -15.0, 0.0, 15.0, 30.0]


def test_fixed_range_is_that_of_the_dataset() -> None:
    clamp = ValueClamp("fixed")
    clamp.observe(torch.tensor([1.0]))
    assert clamped(clamp) == WIDE.tolist()
    clamp.fit(torch.tensor([0.5, 1.0]))
    assert clamped(clamp) == [5.0, 5.0, 5.0, 10.0, 10.0]
    clamp.observe(torch.tensor([100.0, -100.0]))
    assert clamped(clamp) == [5.0, 5.0, 5.0, 10.0, 10.0]


def test_fixed_bounds_are_of_the_values() -> None:
    clamp = ValueClamp("fixed", (-3, 20))
    clamp.fit(torch.tensor([1000.0]))
    assert clamped(clamp) == [-3.0, -3.0, 0.0, 15.0, 20.0]


def test_known_bounds_hold_whatever_is_observed() -> None:
    """AntMaze, rewards of 100 at the goal: no discounted sum is larger, though 100 / (1 - discount) is."""
    clamp = ValueClamp("running", (0, 100))
    clamp.observe(torch.tensor([100.0, 0.0]))
    assert clamped(clamp) == [0.0, 0.0, 0.0, 15.0, 100.0]


def test_none_clips_nothing() -> None:
    clamp = ValueClamp("none")
    clamp.fit(torch.tensor([1.0]))
    assert clamp(WIDE, DISCOUNT) is WIDE


def test_without_discount_a_range_of_zeros_stays_finite() -> None:
    clamp = ValueClamp()
    clamp.observe(torch.tensor([-1.0]))
    found = clamp(WIDE, torch.tensor(1.0))
    torch.testing.assert_close(found, torch.tensor([-1e4, -15.0, 0.0, 0.0, 0.0]))


def test_the_range_is_saved() -> None:
    clamp, other = ValueClamp(), ValueClamp()
    clamp.observe(torch.tensor([-2.0, 1.0]))
    other.load_state_dict(clamp.state_dict())
    assert clamped(other) == [-20.0, -15.0, 0.0, 10.0, 10.0]


@pytest.mark.parametrize("arguments", [("soft",), ("none", (0, 1)), ("fixed", (1, 0)), ("fixed", (0,))])
def test_bad_arguments(arguments: Any) -> None:
    with pytest.raises(ValueError, match="value_clamp"):
        ValueClamp(*arguments)


# ----------------------------------------------------------------------------------------------- in the loss


def large_targets(value: float, **arguments: Any) -> Any:
    """A loss whose target critics say ``value``."""
    loss = make_loss(**arguments)
    with torch.no_grad():
        for target in loss.target_qvalue_network_params["weights"].values():
            target.zero_()
        for target in loss.target_qvalue_network_params["biases"].values():
            target.fill_(0.0 if target.shape[-1] > 1 else value)
    return loss


def rewarded(reward: float) -> Any:
    batch = make_batch(4)
    batch["next", "reward"] = torch.tensor([[0.0], [reward], [0.0], [0.0]])
    return batch


def targets(loss: Any, reward: float) -> tuple[Tensor, Tensor]:
    info = loss.value_loss(rewarded(reward))[1]
    return info["target_value"], info["clamped"]


def test_better_rewards_online_raise_the_bound() -> None:
    loss = large_targets(500.0)
    for reward, bound in ((1.0, 100.0), (0.5, 100.0), (3.0, 300.0), (0.0, 300.0), (9.0, 500.0)):
        found, clipped = targets(loss, reward)
        torch.testing.assert_close(found, torch.full((4,), bound), rtol=1e-5, atol=0)
        assert clipped.tolist() == [bound < 500.0] * 4


def test_a_fixed_bound_does_not_move() -> None:
    loss = large_targets(500.0, value_clamp="fixed")
    assert targets(loss, 1.0)[0].tolist() == [500.0] * 4
    loss.value_clamp.fit(torch.tensor([0.0, 1.0]))
    for reward in (1.0, 9.0):
        torch.testing.assert_close(targets(loss, reward)[0], torch.full((4,), 100.0), rtol=1e-5, atol=0)


def test_the_bound_follows_the_discount() -> None:
    loss = large_targets(1e6)
    loss.make_value_estimator(gamma=0.5)
    assert targets(loss, 3.0)[0].tolist() == [6.0] * 4
