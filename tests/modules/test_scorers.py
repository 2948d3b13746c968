"""Scorers and selectors: what is chosen among candidates, and how often."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from o3f.modules import (
    ActionLimits,
    Argmax,
    GaussianCandidates,
    MeanScore,
    RandomRank,
    Thompson,
    UpperConfidenceBound,
)

MAX_OF_100 = 2.50759  # expectation of the largest of 100 standard normal numbers


def scored(values: torch.Tensor, scorer: torch.nn.Module) -> torch.Tensor:
    td = TensorDict({"candidate_values": values}, values.shape[:-2])
    return scorer(td)["scores"]


def chosen(scores: torch.Tensor, candidates: torch.Tensor | None = None) -> torch.Tensor:
    """The action chosen; by default candidate i is the one-dimensional action (i,)."""
    if candidates is None:
        candidates = torch.arange(scores.shape[-1], dtype=torch.float32).expand_as(scores).unsqueeze(-1)
    td = TensorDict({"scores": scores, "candidates": candidates}, scores.shape[:-1])
    return Argmax()(td)["action"]


def test_the_bound_uses_the_population_standard_deviation():
    """A scores 1.95 and B 1.789 with divisor m, but B 2.0 with divisor m - 1."""
    root = 2 * math.sqrt(2)
    values = torch.tensor([[1.95] * 5, [-root, 0.0, 0.0, 0.0, root]])
    scores = scored(values, UpperConfidenceBound(1.0))
    assert scores.tolist() == pytest.approx([1.95, math.sqrt(16 / 5)], abs=1e-6)
    picks = {omega: chosen(scored(values, UpperConfidenceBound(omega))).item() for omega in (0.0, 1.0, 1.2)}
    assert picks == {0.0: 0.0, 1.0: 0.0, 1.2: 1.0}


def test_a_negative_omega_is_cautious():
    values = torch.tensor([[1.0, 1.0], [0.0, 3.0]])  # means 1 and 1.5, standard deviations 0 and 1.5
    assert scored(values, UpperConfidenceBound(-0.5)).tolist() == pytest.approx([1.0, 0.75])
    assert chosen(scored(values, UpperConfidenceBound(-0.5))).item() == 0.0
    assert chosen(scored(values, MeanScore())).item() == 1.0


def test_omega_zero_is_the_mean_bit_for_bit_and_can_be_scheduled():
    values = torch.randn(3, 20, 5)
    scorer = UpperConfidenceBound()
    assert torch.equal(scored(values, scorer), scored(values, MeanScore()))
    assert torch.equal(scored(values, MeanScore()), values.mean(-1))
    scorer.omega.fill_(2.0)
    torch.testing.assert_close(
        scored(values, scorer),
        values.mean(-1) + 2 * (values - values.mean(-1, True)).square().mean(-1).sqrt(),
    )


def test_identical_members_make_omega_irrelevant():
    values = torch.randn(20, 1).expand(20, 5)
    assert torch.equal(scored(values, UpperConfidenceBound(100.0)), scored(values, MeanScore()))
    assert torch.equal(scored(torch.ones(4, 1), UpperConfidenceBound(1.0)), torch.ones(4))


@settings(max_examples=50, deadline=None)
@given(
    omega=st.floats(-3, 3),
    shift=st.floats(-10, 10),
    scale=st.floats(0.1, 10),
    seed=st.integers(0, 2**31),
)
def test_shifting_scaling_and_permuting_leave_the_chosen_action(omega, shift, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    candidates = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    scorer = UpperConfidenceBound(omega).double()
    action = chosen(scored(values, scorer), candidates)
    assert torch.equal(chosen(scored(scale * values + shift, scorer), candidates), action)
    members, order = torch.randperm(5, generator=generator), torch.randperm(8, generator=generator)
    assert torch.equal(chosen(scored(values[:, members], scorer), candidates), action)
    assert torch.equal(chosen(scored(values[order], scorer), candidates[order]), action)


def test_more_candidates_never_lower_the_score_chosen():
    scores = torch.randn(50, 40)
    best = torch.stack([chosen(scores[:, :n], scores[:, :n, None])[:, 0] for n in range(1, 41)])
    assert (best.diff(dim=0) >= 0).all()
    assert torch.equal(best[-1], scores.amax(-1))


def test_the_first_of_equal_scores_is_chosen():
    assert chosen(torch.tensor([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]])).flatten().tolist() == [1.0, 0.0]


nan, inf = math.nan, math.inf


@pytest.mark.parametrize(
    ("scores", "index"),
    [
        ([nan, -5.0, -4.0], 2),
        ([0.0, nan], 0),
        ([nan, -inf], 1),
        ([-inf, nan], 0),
        ([nan, inf, 1.0], 1),
        ([-inf, -inf], 0),
    ],
)
def test_a_nan_candidate_is_never_chosen(scores, index):
    assert chosen(torch.tensor(scores)).item() == index


def test_a_critic_with_one_nan_disqualifies_the_candidate_only():
    values = torch.tensor([[9.0, nan], [1.0, 2.0], [0.0, 1.0]])
    for scorer in (MeanScore(), UpperConfidenceBound(1.0)):
        assert chosen(scored(values, scorer)).item() == 1.0


def test_nothing_but_nan_in_one_state_raises():
    with pytest.raises(RuntimeError, match="Check the observation"):
        chosen(torch.tensor([[0.0, 1.0], [nan, nan]]))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_a_batch_is_chosen_row_by_row(batch):
    scores, candidates = torch.randn(*batch, 6), torch.randn(*batch, 6, 2)
    action = chosen(scores, candidates)
    rows = zip(scores.reshape(math.prod(batch), 6), candidates.reshape(math.prod(batch), 6, 2), strict=True)
    expected = [row_candidates[int(row_scores.argmax())] for row_scores, row_candidates in rows]
    assert torch.equal(action, torch.stack(expected).reshape(*batch, 2) if expected else torch.empty(0, 2))


def test_independent_scores_choose_every_index_equally_often():
    scores = torch.randn(50_000, 10, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(chosen(scores).flatten().long(), minlength=10)
    chi_squared = ((counts - 5_000.0) ** 2 / 5_000).sum().item()
    assert chi_squared < 9 + 4 * math.sqrt(18)  # mean and standard deviation with nine degrees of freedom


@pytest.mark.parametrize("m", [1, 5])
def test_winners_curse(m):
    """True values N(0, 1), critic errors N(0, 1): the winner's truth and estimate have known expectations."""
    repeats = 20_000
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(repeats, 100, generator=generator)
    values = truth.unsqueeze(-1) + torch.randn(repeats, 100, m, generator=generator)
    scores = scored(values, MeanScore())
    true_of_chosen, estimate = chosen(scores, torch.stack([truth, scores], -1)).mean(0).tolist()
    spread = math.sqrt(1 + 1 / m)
    assert true_of_chosen == pytest.approx(MAX_OF_100 / spread, abs=4 / math.sqrt(repeats))
    assert estimate == pytest.approx(MAX_OF_100 * spread, abs=4 * 0.43 * spread / math.sqrt(repeats))


def ranked(scorer: RandomRank, candidates: torch.Tensor, is_init: torch.Tensor | None = None) -> torch.Tensor:
    td = TensorDict({"candidates": candidates}, candidates.shape[:-2])
    return scorer(td if is_init is None else td.set("is_init", is_init))["scores"]


def test_random_rank_is_a_projection_on_one_gaussian_direction_per_state():
    candidates = torch.randn(4, 10, 3)
    direction = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    scores = ranked(RandomRank(generator=torch.Generator().manual_seed(2)), candidates)
    torch.testing.assert_close(scores, torch.einsum("bna,ba->bn", candidates, direction))


def test_random_rank_redraws_at_every_step():
    scorer, candidates = RandomRank(), torch.randn(4, 10, 3)
    assert not torch.allclose(ranked(scorer, candidates), ranked(scorer, candidates))


def test_random_rank_keeps_its_direction_for_an_episode():
    scorer, candidates = RandomRank(per="episode"), torch.randn(2, 10, 3)
    begin, go_on = torch.tensor([[True], [True]]), torch.tensor([[False], [False]])
    first = ranked(scorer, candidates, begin)
    assert torch.equal(ranked(scorer, candidates, go_on), first)
    second = ranked(scorer, candidates, torch.tensor([[False], [True]]))
    assert torch.equal(second[0], first[0])
    assert not torch.allclose(second[1], first[1])
    assert torch.equal(ranked(scorer, candidates, go_on), second)


def test_random_rank_says_what_it_misses():
    with pytest.raises(KeyError, match="InitTracker"):
        ranked(RandomRank(per="episode"), torch.randn(2, 10, 3))
    with pytest.raises(ValueError, match="per must be"):
        RandomRank(per="run")


@pytest.mark.parametrize("scorer", [RandomRank(per="episode"), Thompson()])
def test_rows_of_another_number_begin_an_episode_or_are_refused(scorer):
    def scored(rows, begins):
        values = torch.arange(4.0).expand(rows, 5, 4)
        td = {"candidates": torch.ones(rows, 5, 2), "candidate_values": values}
        return scorer(TensorDict({**td, "is_init": torch.full((rows, 1), begins)}, [rows]))["scores"]

    first = scored(3, True)
    assert torch.equal(scored(3, False), first)
    with pytest.raises(RuntimeError, match=r"\[2\] rows came in the middle of episodes, after \[3\].*deepcopy"):
        scored(2, False)
    assert torch.equal(scored(3, False), first)
    assert torch.equal(scored(2, True), scored(2, False))


def test_marks_of_another_shape_are_refused_and_not_widened():
    # Two rows, two components: marks [2] would begin the episode in a component of both rows.
    rows = TensorDict({"candidates": torch.ones(2, 5, 2), "is_init": torch.tensor([True, False])}, [2])
    with pytest.raises(ValueError, match=r"'is_init' is \[2\], expected \[2, 1\]"):
        RandomRank("episode")(rows)
    limits = ActionLimits(GaussianCandidates(5, 0.1), max_change=0.1)
    with pytest.raises(ValueError, match=r"'is_init' is \[2\], expected \[2, 1\]"):
        limits(rows.set("action", torch.zeros(2, 2)))
