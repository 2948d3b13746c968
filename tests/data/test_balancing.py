"""Balanced replay: the ratio it learns, how often rows are drawn by it, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from o3f.cli.signals import StopSignals
from o3f.data import ROW_KEYS, BalancedSampler, DensityRatio, make_buffer, online_rows, restore_online
from o3f.errors import ConfigError
from o3f.training.checks import check_online
from tests.support import recipe_runs as runs


def rows(observation: Tensor) -> TensorDict:
    """Rows whose observation is given, ``[B]``; the action says nothing."""
    count = len(observation)
    flag = torch.zeros(count, 1, dtype=torch.bool)
    flags = {"done": flag, "terminated": flag.clone(), "truncated": flag.clone()}
    seen = observation.unsqueeze(-1)
    following = {"observation": seen.clone(), "reward": seen.clone(), **flags}
    return TensorDict({"observation": seen, "action": torch.zeros(count, 1), "next": following}, [count])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_ratio_of_two_gaussians() -> None:
    """Online N(1, 1), offline N(0, 1): log w = x - 1/2."""
    generator = seeded(0)
    ratio = DensityRatio(rows(torch.randn(10_000, generator=generator)), hidden_sizes=(32, 32), rate=3e-3)
    for _ in range(500):
        online, offline = (rows(torch.randn(256, generator=generator) + mean) for mean in (1.0, 0.0))
        ratio.learn(online, offline)
    at = torch.linspace(-1.0, 2.0, 13)
    with torch.no_grad():
        torch.testing.assert_close(ratio(rows(at)), at - 0.5, rtol=0, atol=0.25)


def balanced(num_offline: int = 40, capacity: int = 20, fraction: float | None = None) -> tuple[Any, Any]:
    buffer = make_buffer(
        rows(torch.arange(float(num_offline))),
        online_capacity=capacity,
        online_fraction=fraction,
        balanced=True,
        batch_size=16,
        generator=seeded(1),
    )
    return buffer, buffer.sampler


@pytest.mark.parametrize("fraction", [0.25, 0.5])
def test_the_first_thousand_online_rows_have_the_share_asked_for(fraction: float) -> None:
    buffer, sampler = balanced(3_000, 1_000, fraction)
    buffer.extend(rows(torch.arange(1_000.0)))
    drawn = sampler.weights / sampler.weights.sum()
    assert drawn[3_000:].sum().item() == pytest.approx(fraction)
    assert sampler.weights[:3_000].eq(1).all()


def test_without_online_rows_the_dataset_is_drawn_from_alike() -> None:
    buffer, sampler = balanced()
    count, share = 40_000, 1 / sampler.num_offline
    index, _ = sampler.sample(buffer.storage, count)
    found = torch.bincount(index, minlength=sampler.num_offline).double()
    assert len(found) == sampler.num_offline
    assert ((found - count * share).abs() <= 4.5 * (count * share * (1 - share)) ** 0.5).all()


def test_rows_are_drawn_as_often_as_they_weigh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights held still: counts within four standard errors, and none of the rows that are not there yet."""
    buffer, sampler = balanced()
    buffer.extend(rows(torch.arange(10.0)))
    sampler.weights[:50] = torch.arange(50.0, dtype=torch.float64).remainder(7)
    monkeypatch.setattr(DensityRatio, "learn", lambda *args: None)
    monkeypatch.setattr(BalancedSampler, "_weigh", lambda *args: None)
    count = 40_000
    index, _ = sampler.sample(buffer.storage, count)
    found = torch.bincount(index, minlength=60).double()
    expected = torch.zeros(60, dtype=torch.float64)
    expected[:50] = count * sampler.weights[:50] / sampler.weights[:50].sum()
    error = 4 * (expected * (1 - expected / count)).sqrt()
    assert ((found - expected).abs() <= error).all()
    share = sampler.weights[40:50].sum() / sampler.weights[:50].sum()
    assert sampler.metrics()["replay/online_share"] == pytest.approx(share.item())


def test_the_weights_of_what_was_drawn_are_the_normalised_ratio() -> None:
    buffer, sampler = balanced()
    buffer.extend(rows(torch.arange(100.0, 110.0)))
    before, asked = sampler.weights.clone(), []
    get = buffer.storage.get
    buffer.storage.get = lambda index: asked.append(index) or get(index)
    index, _ = sampler.sample(buffer.storage, 16)
    offline, online, again = asked
    assert offline.max() < 40 <= online.min()
    assert torch.equal(again, index)
    with torch.no_grad():
        usual = sampler.ratio(buffer[offline]).exp().double().pow(1 / 5).mean()
        expected = (sampler.ratio(buffer[index]).exp().double().pow(1 / 5) / usual).clamp(1e-3, 1e3)
    torch.testing.assert_close(sampler.weights[index], expected, rtol=1e-5, atol=0)
    rest = torch.ones(60, dtype=torch.bool).scatter(0, index, False)
    assert torch.equal(sampler.weights[rest], before[rest])


def test_rows_near_to_what_is_collected_are_drawn_more_often() -> None:
    """Half of the dataset is where the online rows are."""
    torch.manual_seed(0)
    seen = torch.cat([torch.randn(200) - 3, torch.randn(200) + 3])
    buffer = make_buffer(rows(seen), online_capacity=100, balanced=True, batch_size=64, generator=seeded(2))
    assert set(buffer.sample().keys(True, True)) == set(ROW_KEYS)
    assert buffer.sampler.metrics() == {"replay/online_share": 0.0, "replay/effective_share": 1.0}
    buffer.extend(rows(torch.randn(100) + 3))
    for _ in range(150):
        assert set(buffer.sample().keys(True, True)) == set(ROW_KEYS)
    weights = buffer.sampler.weights[:400]
    assert weights[200:].mean() > 2 * weights[:200].mean()
    assert 0.5 < buffer.sampler.metrics()["replay/effective_share"] < 0.9


def test_a_saved_buffer_goes_on_with_the_same_draws() -> None:
    buffer, sampler = balanced()
    again, _ = balanced()
    buffer.extend(rows(torch.arange(30.0)))  # more than fit: the ring has gone round
    for _ in range(3):
        buffer.sample()
    restore_online(again, online_rows(buffer))
    for _ in range(3):
        assert torch.equal(buffer.sample()["observation"], again.sample()["observation"])
    assert torch.equal(sampler.weights, again.sampler.weights)


def test_the_global_stream_is_left_alone_by_building_it() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    balanced()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("wrong", [{"online_fraction": 1.0}, {"online_fraction": 0.0}])
def test_what_cannot_be_balanced_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Balanced replay needs a dataset, a share"):
        make_buffer(rows(torch.arange(5.0)), online_capacity=5, balanced=True, **wrong)
    with pytest.raises(ValueError, match="weighs a dataset's rows"):
        make_buffer(None, online_capacity=5, balanced=True)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["online.replay=weighted"], "must be null or balanced, found 'weighted'"),
        (["online.replay=balanced", "dataset=none"], "found dataset.id=none"),
        (["online.replay=balanced", "online.online_fraction=1"], "online.online_fraction=1"),
    ],
)
def test_a_run_that_cannot_be_balanced_is_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_online(runs.settings("finetune", *runs.TINY, *overrides))


def test_a_run_says_what_it_draws_and_goes_on_exactly(place: Path) -> None:
    overrides = [*runs.SHORT, "online.replay=balanced"]
    folder = runs.run("finetune", *overrides)
    for name in ("online_share", "effective_share"):
        values = [value for _, _, value in runs.rows(folder, f"train/replay/{name}")]
        assert values
        assert all(0 < value <= 1 for value in values)
    runs.run_stopped(StopSignals, "check", 83, *overrides, "runs=again")
    runs.assert_same_run(folder, runs.run("finetune", *overrides, "runs=again"))
