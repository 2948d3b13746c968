"""Saturated advantage weights are told once, with values that mend it."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

from o3f.algorithms import make_learner
from o3f.data.rewards import return_range_scale
from o3f.objectives.functional import weight_metrics
from o3f.training.weight_watch import WeightWatch
from tests.support import recipe_runs


class Trained:
    """As much of a learner as is looked at."""

    def __init__(self, coefficients: dict[str, torch.Tensor], updates: int = 1000) -> None:
        self.coefficients = coefficients
        self.updates = updates


def watching(**coefficients: float) -> WeightWatch:
    learner: Any = Trained({name: torch.tensor(value) for name, value in coefficients.items()})
    return WeightWatch(learner)


def metrics(advantage: torch.Tensor, beta: float) -> dict[str, torch.Tensor]:
    return weight_metrics(advantage, beta)


def test_what_it_says_mends_it() -> None:
    advantage = torch.linspace(0.0, 4.0, 401)  # exp(3 A) > 100 above 1.535: 61 % of them
    watch = watching(temperature=3.0)
    watch.check(1000, metrics(advantage, 3.0))  # one batch may be an accident
    with pytest.warns(
        UserWarning, match=r"Step 2000: 62% of .* algorithm.temperature=1.2, or .*scale times 0.39"
    ) as told:
        watch.check(2000, metrics(advantage, 3.0))
    assert len(told) == 1
    mended = math.log(100) / (0.99 * 4.0)
    assert mended == pytest.approx(1.2, abs=0.05)
    assert float(metrics(advantage, mended)["advantage/clipped_share"]) == pytest.approx(0.01, abs=0.003)
    assert float(metrics(advantage * mended / 3.0, 3.0)["advantage/clipped_share"]) == pytest.approx(0.01, abs=0.003)


def test_it_says_it_once_and_not_for_one_batch() -> None:
    high, low = metrics(torch.full((10,), 9.0), 3.0), metrics(torch.zeros(10), 3.0)
    watch = watching(temperature=3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step, each in enumerate([high, low, high, low]):
            watch.check(step, each)
        watching().check(0, {})  # CQL has no such weights
        young: Any = Trained({}, updates=100)
        for step in (90, 100):
            WeightWatch(young).check(step, high)
    watch.check(5, high)
    with pytest.warns(UserWarning, match="Step 6"):
        watch.check(6, high)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.check(7, high)


def test_awac_is_told_in_its_own_terms() -> None:
    learner = make_learner(
        "awac", 3, 2, {"hidden_sizes": [8], "actor_hidden_sizes": [8], "weighting": "exp", "lam": 0.1}
    )
    learner.updates = 1000
    watch = WeightWatch(learner)
    high = metrics(torch.linspace(0.0, 1.0, 101), 1 / 0.1)  # exp(10 A) > 100 above 0.46
    watch.check(1, high)
    with pytest.warns(UserWarning, match=r"algorithm.lam=(\S+), or task") as told:
        watch.check(2, high)
    lam = float(str(told[0].message).partition("lam=")[2].partition(",")[0])
    assert lam == pytest.approx(0.99 / math.log(100), rel=0.05)
    assert float(metrics(torch.linspace(0.0, 1.0, 101), 1 / lam)["advantage/clipped_share"]) <= 0.05


def test_a_run_says_it(place: Any) -> None:
    overrides = [
        *recipe_runs.TINY,
        "task.reward={scale: 1.0e+3, shift: 0.0}",
        "algorithm.temperature=1.0e+4",
        "offline.steps=220",
        "algorithm.expectile=0.1",
    ]
    with pytest.warns(UserWarning, match="of the advantage weights are at their cap"):
        recipe_runs.run("pretrain", *overrides)


def test_narrow_returns_are_told_when_their_range_is_taken() -> None:
    with pytest.warns(UserWarning, match=r"3346 to 3898.* scale 1.81 .*7.1 times as high.* task.reward.scale=0.26"):
        assert return_range_scale([3346.0, 3600.0, 3898.0]) == pytest.approx(1000 / 552)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert return_range_scale([-310.0, 5309.0]) == pytest.approx(0.178, abs=1e-3)
