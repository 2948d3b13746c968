"""The figures that are read off a run, computed by hand."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import pytest

from o3f.figures.quantities import Series, dip, early, quantities, read_series
from o3f.runs.logger import RunLogger

RUN = Series({0: 40.0, 10: 30.0, 50: 60.0, 100: 90.0}, {30: 35.0, 60: 50.0, 90: 20.0}, steps=100)
POLICY = Series({0: 40.0, 10: 38.0, 50: 41.0, 100: 42.0}, {40: 40.0, 80: 40.0}, steps=100)


def test_all_of_them_by_hand() -> None:
    assert quantities(RUN, POLICY) == {
        "offline": 40.0,
        "gain": 20.0,  # 60 - 40
        "auc": 60.0,  # (30 + 60 + 90) / 3: step 0 does not count
        "final": 90.0,
        "collecting": 35.0,
        "collecting_episodes": 35.0,
        "dip": -8.0,  # 30 - 38, the only evaluations in the first ten steps
        "regret": pytest.approx(25.0 / 3),  # (5 + 0 + 20) / 3
        "regret_steps": pytest.approx(25.0 / 3),  # all three episodes have 30 steps
    }


def test_early_falls_count_by_their_steps_or_as_episodes() -> None:
    run = Series({0: 40.0, 100: 50.0}, {5: 10.0, 10: 10.0, 90: 50.0}, steps=100)  # 5, 5 and 80 steps
    values = quantities(run, None)
    assert values["collecting_episodes"] == pytest.approx(70.0 / 3)
    assert values["collecting"] == pytest.approx((10 * 10.0 + 80 * 50.0) / 90)
    assert values["regret"] == pytest.approx(60.0 / 3)  # 30, 30 and 0
    assert values["regret_steps"] == pytest.approx(10 * 30.0 / 90)


def test_the_first_tenth_includes_its_end_and_no_more() -> None:
    assert early(Series({0: 1.0, 5: 2.0, 10: 4.0, 11: 100.0}, {}, steps=100)) == 3.0
    assert isnan(early(Series({0: 1.0, 20: 2.0}, {}, steps=100)))


def test_what_is_not_there_is_nan() -> None:
    assert isnan(dip(RUN, None))
    values = quantities(Series({10: 1.0, 20: 3.0}, {}, steps=20), None)
    assert {name for name, value in values.items() if isnan(value)} == {
        "offline",
        "gain",
        "collecting",
        "collecting_episodes",
        "dip",
        "regret",
        "regret_steps",
    }
    assert (values["auc"], values["final"]) == (2.0, 3.0)


def test_series_are_scores_where_the_task_has_them(tmp_path: Path) -> None:
    with RunLogger(tmp_path) as logger:
        logger.log(0, {"eval/return": 300.0, "eval/score": 50.0})
        logger.log(7, {"rollout/return": 200.0})
    assert read_series(tmp_path, 10, (100.0, 500.0)) == Series({0: 50.0}, {7: 25.0}, 10)
    assert read_series(tmp_path, 10, None) == Series({0: 300.0}, {7: 200.0}, 10)
