"""Schedules: the paper's values at the start, the middle and the end, in place, and errors that help."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from o3f.errors import ConfigError
from o3f.modules import EnsembleQValue, gaussian_policy, value_network
from o3f.objectives import IQLLoss
from o3f.training.schedules import Schedule

STEPS = 250
# start, end and the value half way; of the paper's third figure
PAPER = {"expectile": (0.7, 0.85, 0.775), "lam": (1.0, 0.1, 0.55), "conservative_weight": (5.0, 0.5, 2.75)}


def course(kind: str, start: float, end: float) -> list[float]:
    coefficient = torch.tensor(start)
    schedule = Schedule(kind, {"x": end}, STEPS, {"x": coefficient})
    values = []
    for step in (0, STEPS // 2, STEPS, 2 * STEPS):
        schedule.step(step)
        values.append(coefficient.item())
    return values


@pytest.mark.parametrize(("start", "end", "middle"), PAPER.values(), ids=PAPER)
def test_the_papers_courses(start: float, end: float, middle: float) -> None:
    assert course("same", start, end) == pytest.approx([start] * 4)
    assert course("abrupt", start, end) == pytest.approx([end] * 4)
    assert course("linear", start, end) == pytest.approx([start, middle, end, end])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["same", "abrupt", "linear"]),
    start=st.floats(-1e3, 1e3, width=32),
    end=st.floats(-1e3, 1e3, width=32),
    total=st.integers(1, 1000),
    steps=st.lists(st.integers(0, 2000), min_size=1, max_size=6),
)
def test_any_course_stays_between_its_ends(kind: Any, start: float, end: float, total: int, steps: list[int]) -> None:
    """In whatever order it is stepped: the value depends on the step alone, keeps to its range, never turns back."""
    coefficient = torch.tensor(start)
    schedule = Schedule(kind, {"x": end}, total, {"x": coefficient})
    seen = {}
    for step in [*steps, *sorted(steps), 0, total]:
        schedule.step(step)
        assert seen.setdefault(step, coefficient.item()) == coefficient.item()
        assert min(start, end) <= coefficient.item() <= max(start, end)
    course = [seen[step] for step in sorted(seen)]
    assert course == sorted(course, reverse=start > end)
    assert seen[0] == (end if kind == "abrupt" else start)
    assert seen[total] == (start if kind == "same" else end)


def test_a_schedule_may_be_stepped_in_any_order() -> None:
    """A resumed run starts in the middle: the value depends on the step alone."""
    coefficient = torch.tensor(1.0)
    schedule = Schedule("linear", {"x": 0.0}, 10, {"x": coefficient})
    schedule.step(9)
    schedule.step(3)
    assert coefficient.item() == pytest.approx(0.7)


def test_a_coefficient_with_one_number_per_dimension() -> None:
    sigma = torch.tensor([0.2, 0.4])
    Schedule("linear", {"sigma": 0.0}, 4, {"sigma": sigma}).step(1)
    assert sigma.tolist() == pytest.approx([0.15, 0.3])


def test_the_loss_follows() -> None:
    loss = IQLLoss(gaussian_policy(3, 2, (4,)), EnsembleQValue(3, 2, 2, (4,)), value_network(3, (4,)))
    coefficients = {"expectile": loss.expectile, "temperature": loss.temperature}
    Schedule("abrupt", {"expectile": 0.9}, 1, coefficients).step(0)
    assert loss.expectile.item() == pytest.approx(0.9)
    assert loss.state_dict()["expectile"].item() == pytest.approx(0.9)
    assert loss.temperature.item() == 3.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slow", {"expectile": 1.0}, 5), "schedule.kind: 'slow' is not known"),
        (("linear", {"expectle": 1.0}, 5), "schedule.to: 'expectle' is not known. Did you mean expectile?"),
        (("linear", {"expectile": 1.0}, 0), r"schedule.steps must be a whole number in \[1, inf\), found 0"),
        (("linear", {"expectile": 1.85}, 5), r"schedule.to.expectile must be a number in \(0, 1\), found 1.85"),
        (("linear", {"expectile": "high"}, 5), r"schedule.to.expectile must be a number"),
        (("abrupt", {}, 5), r"changes nothing.*schedule.to.expectile=VALUE"),
    ],
)
def test_errors(arguments, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(*arguments, {"expectile": torch.tensor(0.7)})


def test_the_range_belongs_to_the_last_part_of_a_name() -> None:
    with pytest.raises(ConfigError, match=r"schedule.to.exploration.sigma must be a number in \[0, inf\), found -1"):
        Schedule("abrupt", {"exploration.sigma": -1}, 5, {"exploration.sigma": torch.tensor(0.2)})
