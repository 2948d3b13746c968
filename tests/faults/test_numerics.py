"""Faults of numbers, numbered as in docs/reliability.md."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensordict import TensorDict
from torchrl.data import Bounded

from o3f.modules import (
    Argmax,
    EnsembleQValue,
    GaussianCandidates,
    GaussianNoiseActor,
    MeanScore,
    MixedCandidates,
    OptimisticActor,
    RandomRank,
    Softmax,
    Thompson,
    UpperConfidenceBound,
    gaussian_policy,
    tanh_gaussian_policy,
)

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
NAN, INF = math.nan, math.inf
#: Few different numbers, so that ties are common.
score = st.sampled_from([NAN, -INF, INF, -1.0, 0.0, 2.0, 1e30, -1e30])


def chosen(selector: torch.nn.Module, scores: torch.Tensor) -> torch.Tensor:
    """Which candidate is chosen in each row ``[B]`` of scores ``[B, N]``."""
    count = scores.shape[-1]
    candidates = torch.arange(float(count))[:, None].expand(*scores.shape, 1)
    td = TensorDict({"scores": scores, "candidates": candidates}, scores.shape[:-1])
    return selector(td)["action"].squeeze(-1)


def first_best(row: list[float]) -> int:
    """The index that must be chosen, by a plain loop."""
    best = -1
    for index, value in enumerate(row):
        if not math.isnan(value) and (best < 0 or value > row[best]):
            best = index
    return best


@pytest.mark.parametrize(
    ("scores", "index"),
    [
        ([3.0, 1.0, 3.0], 0),
        ([1.0, 3.0, 3.0], 1),
        ([NAN, 1.0, 1.0], 1),
        ([INF, NAN, 2.0], 0),
        ([-INF, -INF], 0),
        ([NAN, -INF], 1),
        ([NAN, -INF, INF, INF], 2),
        ([0.0, -0.0], 0),
        ([NAN, 5.0], 1),
        ([7.0], 0),
    ],
)
def test_f41_the_table(scores: list[float], index: int) -> None:
    assert chosen(Argmax(), torch.tensor([scores])).tolist() == [index]
    assert chosen(Softmax(0.0), torch.tensor([scores])).tolist() == [index]


@PROPERTY
@given(rows=st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(score, min_size=n, max_size=n), max_size=4)))
def test_f41_the_first_of_the_best_is_chosen_and_nan_never(rows: list[list[float]]) -> None:
    expected = [first_best(row) for row in rows]
    scores = torch.tensor(rows).reshape(len(rows), len(rows[0]) if rows else 3)
    if -1 in expected:
        with pytest.raises(RuntimeError, match=r"Every candidate of a state has the score NaN. Check the observation"):
            chosen(Argmax(), scores)
        with pytest.raises(RuntimeError, match="NaN"):
            chosen(Softmax(0.5), scores)
        return
    assert chosen(Argmax(), scores).tolist() == expected
    picked = chosen(Softmax(0.5), scores).long()
    assert not scores.gather(-1, picked[:, None]).isnan().any()


@PROPERTY
@given(
    values=arrays.arrays(
        "float32",
        st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3)),
        elements=st.floats(-4, 4, width=32),
    ),
    bad=st.sets(st.integers(0, 5), max_size=5),
    scorer=st.sampled_from([MeanScore(), UpperConfidenceBound(0.5), Thompson("step")]),
)
def test_f41_a_candidate_with_a_value_of_nan_is_never_chosen(values: Any, bad: set[int], scorer: Any) -> None:
    """All scorers pass NaN on: no critic's NaN is lost in a mean, a spread or a draw."""
    table = torch.from_numpy(values.copy())
    bad = {index for index in bad if index < table.shape[1]}
    table[:, list(bad)] = NAN
    scores = scorer(TensorDict({"candidate_values": table}, [len(table)]))["scores"]
    assert scores.isnan().tolist() == [[index in bad for index in range(table.shape[1])]] * len(table)
    if len(bad) == table.shape[1]:
        with pytest.raises(RuntimeError, match="score NaN"):
            chosen(Argmax(), scores)
    else:
        assert not bad & set(chosen(Argmax(), scores).long().tolist())


def observations(*batch: int) -> TensorDict:
    generator = torch.Generator().manual_seed(0)
    return TensorDict({"observation": torch.randn(*batch, 3, generator=generator)}, batch)


def networks(num_critics: int = 2) -> tuple[Any, Any]:
    torch.manual_seed(0)
    return gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, num_critics, (8,))


@PROPERTY
@given(
    batch=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    count=st.integers(1, 7),
    num_critics=st.integers(1, 3),
    scorer=st.sampled_from([MeanScore(), UpperConfidenceBound(0.5), RandomRank("step"), Thompson("step")]),
    chunk_size=st.sampled_from([1, 2, 5, 1024]),
)
def test_f42_any_number_of_candidates_critics_and_rows(
    batch: tuple[int, ...], count: int, num_critics: int, scorer: Any, chunk_size: int
) -> None:
    """The action is one of the candidates, the first that scores highest; a batch of no rows gives none."""
    policy, critic = networks(num_critics)
    sampler = GaussianCandidates(count, 0.5, generator=torch.Generator().manual_seed(1))
    actor = OptimisticActor(
        policy, critic, sampler=sampler, scorer=scorer, return_candidates=True, chunk_size=chunk_size
    )
    out = actor(observations(*batch))
    assert out["action"].shape == (*batch, 2)
    assert out["scores"].shape == (*batch, count)
    flat = (out["action"].reshape(-1, 2), out["candidates"].reshape(-1, count, 2), out["scores"].reshape(-1, count))
    for action, candidates, scores in zip(*flat, strict=True):
        assert torch.equal(action, candidates[first_best(scores.tolist())])


def test_f42_one_candidate_is_the_proposal() -> None:
    policy, critic = networks()
    td, actions = observations(4), []
    for actor in (OptimisticActor(policy, critic, 1, 0.3), GaussianNoiseActor(policy, 0.3)):
        torch.manual_seed(1)
        actions.append(actor(td.clone())["action"])
    assert torch.equal(*actions)


def test_f42_one_critic_has_no_spread() -> None:
    values = torch.randn(5, 7, 1)
    scores = UpperConfidenceBound(100.0)(TensorDict({"candidate_values": values}, [5]))["scores"]
    assert torch.equal(scores, values.squeeze(-1))


@pytest.mark.parametrize("kind", ["mixed", "softmax"])
def test_f42_an_empty_batch_is_an_empty_batch(kind: str) -> None:
    policy, critic = networks()
    parts: Any = {"sampler": MixedCandidates(6)} if kind == "mixed" else {"selector": Softmax(1.0)}
    assert OptimisticActor(policy, critic, **parts)(observations(0))["action"].shape == (0, 2)
    assert GaussianNoiseActor(policy, 0.2)(observations(0))["action"].shape == (0, 2)


@pytest.mark.parametrize("selector", [Argmax(), Softmax(0.0)])
def test_f77_choosing_neither_waits_for_a_device_nor_breaks_a_graph(selector: torch.nn.Module) -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0], [NAN, -INF, NAN], [NAN, NAN, NAN]])
    candidates = torch.arange(3.0)[:, None].expand(3, 3, 1)
    compiled = torch.compile(
        lambda scores: selector(TensorDict({"scores": scores, "candidates": candidates}, [3]))["action"],
        fullgraph=True,
        backend="eager",
    )
    torch.testing.assert_close(compiled(scores), torch.tensor([[1.0], [1.0], [NAN]]), equal_nan=True)
    with pytest.raises(RuntimeError, match="Every candidate of a state has the score NaN"):
        chosen(selector, scores)


@pytest.mark.parametrize("make", [gaussian_policy, tanh_gaussian_policy])
@pytest.mark.parametrize("sigma", [0.3, [0.3, 0.1]])
def test_f78_bfloat16_networks_act_and_are_ranked(make: Any, sigma: Any) -> None:
    torch.manual_seed(0)
    policy, critic = make(3, 2), EnsembleQValue(3, 2)
    for network in (policy, critic):
        network.to(torch.bfloat16)  # the specs stay float32
    actor = OptimisticActor(policy, critic, 20, sigma, return_candidates=True)
    td = TensorDict({"observation": torch.randn(50, 3, dtype=torch.bfloat16)}, [50])
    actor(td)
    values = td["candidate_values"].float().mean(-1)
    torch.testing.assert_close(td["scores"].float(), values, atol=0.05, rtol=0.05)
    best = td["candidates"].take_along_dim(td["scores"].argmax(-1)[:, None, None], -2).squeeze(-2)
    assert torch.equal(td["action"], best)
    assert td["action"].abs().max() <= 1
    assert td["candidates"].std(1).float().mean(0).tolist() == pytest.approx(
        [0.3, 0.3] if sigma == 0.3 else [0.3, 0.1], rel=0.5
    )
    assert GaussianNoiseActor(policy, sigma)(td.select("observation"))["action"].isfinite().all()


def test_f79_loading_a_state_leaves_the_settings_of_an_actor() -> None:
    policy, critic = gaussian_policy(3, 2), EnsembleQValue(3, 2)
    saved = OptimisticActor(policy, critic, 7, 0.3, 1.0, selector=Softmax(0.5), spec=Bounded(-0.5, 0.5, (2,)))
    parts = gaussian_policy(3, 2), EnsembleQValue(3, 2)
    actor = OptimisticActor(*parts, 7, 0.05, -1.0, selector=Softmax(2.0), spec=Bounded(-0.25, 0.75, (2,)))
    actor.load_state_dict(saved.state_dict())
    settings = [actor.sampler.sigma, actor.scorer.omega, actor.selector.temperature]
    assert [round(float(each), 6) for each in settings] == [0.05, -1.0, 2.0]
    assert (actor.sampler.low.tolist(), actor.sampler.high.tolist()) == ([-0.25] * 2, [0.75] * 2)
    assert all(torch.equal(p, q) for p, q in zip(parts[1].parameters(), critic.parameters(), strict=True))
    held = {key for key in TensorDict.from_module(actor).keys(True, True) if isinstance(key, tuple)}
    assert {("sampler", "sigma"), ("scorer", "omega")} <= held  # what collectors send to their workers
