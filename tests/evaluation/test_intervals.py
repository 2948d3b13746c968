"""Intervals and the words said about them."""

import math

import pytest

from o3f.evaluation.intervals import Interval, interquartile_mean, sign_flip_test, t_interval, verdict


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


def test_sign_flips_by_hand() -> None:
    # All of one sign: only the two constant vectors are as extreme, 2 / 2^n.
    assert sign_flip_test([1.0] * 8) == 2 / 256
    assert sign_flip_test([-3.0, -0.1, -2.0]) == 2 / 8
    # |sum| = 2 of {3, -1}: signs give 2, -2, 4, -4, all at least 2; of {5, 3, -1} 7: 7 and 9 of each sign.
    assert sign_flip_test([3.0, -1.0]) == 1.0
    assert sign_flip_test([5.0, 3.0, -1.0]) == 4 / 8
    assert sign_flip_test([0.0, 0.0]) == 1.0


def test_drawn_sign_flips_are_near_the_exact_ones_and_always_the_same() -> None:
    differences = [0.5, 1.0, -0.3, 0.8, 0.2, -0.6, 0.9, 0.4, 1.1, -0.2]
    exact, drawn = sign_flip_test(differences), sign_flip_test(differences, draws=1_000)
    assert 0.01 < exact < 0.1
    assert drawn == pytest.approx(exact, abs=0.025)  # 4 standard errors
    assert drawn == sign_flip_test(differences, draws=1_000) != exact
    assert sign_flip_test([1.0] * 100) > 0.0  # the observed signs are among the draws


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([9.0, 1.0, 2.0, 3.0, 4.0, -50.0, 5.0, 90.0]) == 3.5  # of 2, 3, 4, 5
    assert interquartile_mean([0.0, 4.0, 10.0, 20.0, 1000.0]) == pytest.approx((0.75 * 4 + 10 + 0.75 * 20) / 2.5)
    assert interquartile_mean([7.0]) == 7.0
    with pytest.raises(ValueError, match="at least one"):
        interquartile_mean([])
    with pytest.raises(ValueError, match="at least one"):
        sign_flip_test([])
