"""Intervals and the words said about them."""

import math

import pytest

from o3f.statistics import Interval, t_interval, verdict


def test_t_interval_by_hand() -> None:
    # s = 1, t(0.975, 2) = 4.302653 from the printed tables.
    interval = t_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.half_width == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    # t(0.95, 3) = 2.353363 at 90 %; s^2 = 20/3.
    assert t_interval([1.0, 3.0, 5.0, 7.0], 0.9).half_width == pytest.approx(2.353363 * math.sqrt(20 / 3) / 2, abs=1e-5)


def test_one_seed_has_no_interval_and_no_claim() -> None:
    interval = t_interval([4.0])
    assert interval.mean == 4.0
    assert math.isnan(interval.half_width)
    assert verdict(interval) == "no clear improvement"


def test_verdict_needs_the_whole_interval() -> None:
    assert verdict(Interval(2.0, 1.0)) == "improved"
    assert verdict(Interval(1.0, 1.0)) == "no clear improvement"
    assert verdict(Interval(-1.0, 2.0)) == "no clear improvement"
    assert verdict(Interval(-3.0, 1.0)) == "got worse"


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least one"):
        t_interval([])
    with pytest.raises(ValueError, match="confidence"):
        t_interval([1.0, 2.0], 1.0)
