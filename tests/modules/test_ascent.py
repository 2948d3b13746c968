"""Candidates that climb: they reach the maximum that a closed form gives, within all bounds, and never score lower."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.errors import ConfigError
from o3f.modules import (
    ActionLimits,
    CandidateAscent,
    EnsembleQValue,
    GaussianCandidates,
    OptimisticActor,
    Thompson,
    UpperConfidenceBound,
    gaussian_policy,
)
from o3f.training.exploration import make_actor
from tests.support.recipe_runs import TINY, settings

SPEC = Bounded(-1.0, 1.0, (2,))
CURVATURE = torch.tensor([[2.0, 1.0], [1.0, 2.0]])


def still(*action: float) -> TensorDictModule:
    """A policy that always acts so, or (without numbers) at 0."""
    value = torch.tensor(action or (0.0, 0.0))
    policy = TensorDictModule(lambda o: value.expand(*o.shape[:-1], -1), ["observation"], ["action"])
    policy.spec = SPEC
    return policy


def states(*batch: int) -> TensorDict:
    generator = torch.Generator().manual_seed(len(batch))
    return TensorDict({"observation": torch.randn(*batch, 3, generator=generator)}, batch)


def quadratic(peak: tuple[float, float], weights: tuple[float, ...] = (1.0,)) -> TensorDictModule:
    """Critics -w/2 (a - peak)' H (a - peak), one of each weight."""

    def values(action: Tensor) -> Tensor:
        away = action - torch.tensor(peak)
        value = -0.5 * ((away @ CURVATURE) * away).sum(-1, keepdim=True)
        return value * torch.tensor(weights)

    return TensorDictModule(values, ["action"], ["state_action_value"])


@pytest.mark.parametrize(
    ("peak", "best"),
    [
        ((0.3, -0.4), (0.3, -0.4)),  # within
        ((1.5, 0.0), (1.0, 0.25)),  # a_1 at its bound: a_2 = 0 - H_21 / H_22 (1 - 1.5), not 0
        ((-2.0, -2.0), (-1.0, -1.0)),  # both
    ],
)
def test_it_ends_at_the_maximum_within_the_bounds(peak: tuple[float, float], best: tuple[float, float]) -> None:
    ascent = CandidateAscent(top=3, steps=200, rate=0.3)
    actor = OptimisticActor(still(), quadratic(peak, (0.5, 1.5)), 5, 0.2, ascent=ascent)
    found = actor(states(4))["action"]
    torch.testing.assert_close(
        found, torch.tensor(best).expand(4, 2), rtol=0, atol=1e-3
    )  # float32 sees no higher value nearer
    narrow = GaussianCandidates(5, 0.2, low=-0.25, high=0.25)
    nearer = OptimisticActor(still(), quadratic((0.9, 0.9)), sampler=narrow, ascent=ascent)(states(4))["action"]
    torch.testing.assert_close(nearer, torch.full((4, 2), 0.25))


def test_one_step_by_hand() -> None:
    """Slope -H (a - peak) = H (0.5, 0) = (1, 0.5) at 0; a tenth of it, then all of it, which is too far."""
    for rate, expected in ((0.1, (0.1, 0.05)), (2.0, (0.0, 0.0))):
        ascent = CandidateAscent(top=1, steps=1, rate=rate)
        actor = OptimisticActor(still(), quadratic((0.5, 0.0)), 1, 0.0, ascent=ascent, return_candidates=True)
        told = actor(states(2))
        torch.testing.assert_close(told["action"], torch.tensor(expected).expand(2, 2))
        away = told["action"] - torch.tensor((0.5, 0.0))
        torch.testing.assert_close(told["scores"].squeeze(-1), -0.5 * ((away @ CURVATURE) * away).sum(-1))
        torch.testing.assert_close(told["candidate_values"].squeeze(-1), told["scores"])


@pytest.mark.parametrize(("omega", "distance"), [(0.0, 0.0), (0.5, 0.25)])
def test_disagreement_counts_as_it_does_in_the_score(omega: float, distance: float) -> None:
    """Critics -a^2 + a and -a^2 - a: mean -a^2, standard deviation |a|, so the score's peaks are at |a| = omega / 2."""
    critic = TensorDictModule(lambda a: torch.cat([-a.square() + a, -a.square() - a], -1), ["action"], ["q"])
    policy = still(0.1)
    policy.spec = Bounded(-1.0, 1.0, (1,))
    actor = OptimisticActor(policy, critic, 4, 0.3, omega, ascent=CandidateAscent(4, 100, 0.2))
    found = actor(states(6))["action"].abs().flatten()
    assert found.tolist() == pytest.approx([distance] * 6, abs=1e-3)


def networks() -> tuple[Any, EnsembleQValue]:
    torch.manual_seed(0)
    return gaussian_policy(3, 2, (16,)), EnsembleQValue(3, 2, hidden_sizes=(16, 16))


def acted(ascent: CandidateAscent | None, batch: tuple[int, ...] = (6,), **options: Any) -> TensorDict:
    """The same draws every time."""
    policy, critic = networks()
    torch.manual_seed(3)
    options = {"num_candidates": 20, "sigma": 0.2, **options}
    return OptimisticActor(policy, critic, ascent=ascent, return_candidates=True, **options)(states(*batch))


def test_no_steps_is_without_bit_for_bit() -> None:
    plain, none = acted(None), acted(CandidateAscent(steps=0))
    assert all(torch.equal(plain[key], none[key]) for key in plain.keys(True, True))
    after = torch.rand(())
    acted(CandidateAscent(10, 5, 0.1))
    assert torch.equal(torch.rand(()), after)  # nothing is drawn for it


def test_only_the_best_climb_and_none_scores_lower() -> None:
    plain = acted(None)
    for rate in (0.01, 1.0, 100.0):
        told = acted(CandidateAscent(4, 5, rate))
        assert (told["scores"] >= plain["scores"]).all()
        moved = (told["candidates"] != plain["candidates"]).any(-1)
        best = torch.zeros_like(moved).scatter(-1, plain["scores"].topk(4, -1).indices, True)
        assert not (moved & ~best).any()
        assert told["candidates"].abs().max() <= 1
    assert (acted(CandidateAscent(4, 5, 0.01))["candidates"] != plain["candidates"]).any(-1).sum() >= 20
    everything = acted(CandidateAscent(1000, 5, 0.01))
    assert (everything["scores"] > plain["scores"]).float().mean() > 0.9


def test_what_is_told_of_candidates_is_of_where_they_are_now() -> None:
    told = acted(CandidateAscent(4, 5, 0.05), omega=0.5)
    policy, critic = networks()
    actor = OptimisticActor(policy, critic, omega=0.5)
    torch.testing.assert_close(actor.score(told, told["candidates"]), told["scores"])
    values = told["candidate_values"]
    torch.testing.assert_close(values.mean(-1) + 0.5 * values.std(-1, correction=0), told["scores"])
    chosen = told["candidates"][torch.arange(6), told["scores"].argmax(-1)]
    assert torch.equal(told["action"], chosen)


@pytest.mark.parametrize("chunk_size", [1, 5, 11, 10_000])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_chunks_change_nothing(batch: tuple[int, ...], chunk_size: int) -> None:
    whole, parts = (acted(CandidateAscent(5, 4, 0.05), batch, chunk_size=size) for size in (2**10, chunk_size))
    torch.testing.assert_close(parts["candidates"], whole["candidates"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts["action"], whole["action"], rtol=1e-4, atol=1e-5)


def test_gradients_are_of_so_many_pairs_at_a_time() -> None:
    policy, critic = networks()
    pairs: list[int] = []
    critic.register_forward_hook(
        lambda *told: pairs.append(told[2].batch_size.numel()) if torch.is_grad_enabled() else None
    )
    OptimisticActor(policy, critic, 20, chunk_size=11, ascent=CandidateAscent(5, 3, 0.05))(states(6))
    assert set(pairs) == {10}
    assert len(pairs) == 3 * 3  # three steps of two states each


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_it_leaves_no_gradients_and_no_graph(mode: Any) -> None:
    policy, critic = networks()
    critic.train()
    actor = OptimisticActor(policy, critic, 20, 0.2, ascent=CandidateAscent(5, 3, 0.05))
    before = copy.deepcopy(critic.state_dict())
    with mode():
        action = actor(states(4))["action"]
    assert not action.requires_grad
    assert all(parameter.grad is None and parameter.requires_grad for parameter in actor.parameters())
    assert all(torch.equal(value, before[key]) for key, value in critic.state_dict().items())
    assert critic.training


def test_a_plain_policy_where_nothing_is_explored() -> None:
    policy, critic = networks()
    actor = OptimisticActor(policy, critic, ascent=CandidateAscent(5, 3, 0.05))
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(actor(states(4))["action"], policy(states(4))["action"])


# --- limits for hardware ------------------------------------------------------------------------------------


def limited(critic: Any, **limits: Any) -> OptimisticActor:
    within = ActionLimits(GaussianCandidates(8, 0.1), **limits)
    ascent = CandidateAscent(8, 100, 0.3)
    return OptimisticActor(still(), critic, sampler=within, selector=within.choice(), ascent=ascent)


def test_it_keeps_to_the_limits_for_hardware() -> None:
    critic = quadratic((0.9, 0.9))
    first = states(3).set("is_init", torch.ones(3, 1, dtype=torch.bool))
    later = states(3).set("is_init", torch.zeros(3, 1, dtype=torch.bool))
    near = limited(critic, max_displacement=[0.3, 0.5])
    torch.testing.assert_close(near(first.clone())["action"], torch.tensor((0.3, 0.5)).expand(3, 2))
    slow = limited(critic, max_change=0.125)
    free = slow(first.clone())["action"]
    torch.testing.assert_close(free, torch.full((3, 2), 0.9), rtol=0, atol=1e-3)
    slow.critic = quadratic((-0.9, 0.9))
    torch.testing.assert_close(slow(later.clone())["action"][:, 0], free[:, 0] - 0.125)


def test_it_does_not_step_where_a_veto_forbids() -> None:
    """Forbidden is a_1 > 0.2: without the check, all would end at 0.9."""
    critic = quadratic((0.9, 0.0))
    actor = limited(critic, veto=lambda td: td["candidates"][..., 0] > 0.2)
    found = actor(states(5))["action"][:, 0]
    assert (found <= 0.2).all()
    free = limited(critic, veto=lambda td: torch.zeros(td["candidates"].shape[:-1], dtype=torch.bool))
    assert (free(states(5))["action"][:, 0] > 0.85).all()


# --- what it does not go with -------------------------------------------------------------------------------


def test_it_refuses_what_it_cannot_climb() -> None:
    policy, critic = networks()
    with pytest.raises(ValueError, match="Thompson draws at every call"):
        OptimisticActor(policy, critic, scorer=Thompson("step"), ascent=CandidateAscent())
    boundless = TensorDictModule(lambda a: a.unsqueeze(-2), ["action"], ["candidates"])
    with pytest.raises(ValueError, match=r"no bounds low and high.*ActionLimits"):
        OptimisticActor(policy, critic, sampler=boundless, ascent=CandidateAscent())
    OptimisticActor(policy, critic, sampler=ActionLimits(boundless), ascent=CandidateAscent())(states(2))
    deaf = TensorDictModule(lambda a: a.detach().sum(-1, keepdim=True), ["action"], ["state_action_value"])
    with pytest.raises(RuntimeError, match="no gradient with respect to the candidates"):
        OptimisticActor(policy, deaf, ascent=CandidateAscent())(states(2))
    for name, wrong in [
        ("top", 0),
        ("top", 2.5),
        ("steps", -1),
        ("steps", 2.5),
        ("rate", math.nan),
        ("rate", math.inf),
    ]:
        with pytest.raises(ValueError, match=f"{name} must be"):
            CandidateAscent(**{name: wrong})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile
def test_compiled_it_climbs_as_without() -> None:
    policy, critic = networks()
    ascent, candidates = CandidateAscent(4, 3, 0.05), torch.rand(5, 9, 2)
    actor = OptimisticActor(policy, critic, ascent=ascent)

    def climb(scored: TensorDict, candidates: Tensor) -> Tensor:
        told = ascent(actor._score(scored, candidates), actor._score_copy, actor.sampler)
        return told["candidates"]

    torch.compiler.reset()
    with torch.no_grad(), torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = torch.compile(climb, fullgraph=True, backend="aot_eager")(states(5), candidates)
        expected = climb(states(5), candidates)
    torch.testing.assert_close(compiled, expected)
    assert not torch.equal(expected, candidates)


# --- as the recipes build it --------------------------------------------------------------------------------


def test_the_kind_of_exploration_is_this() -> None:
    policy, critic = networks()
    options = settings(
        "finetune", *TINY, "exploration=ascent", "exploration.refine_top=3", "exploration.omega=2"
    ).exploration
    actor: Any = make_actor(policy, critic, options, SPEC)
    assert (actor.ascent.top, actor.ascent.steps, actor.ascent.rate) == (3, 10, 3e-4)
    assert isinstance(actor.scorer, UpperConfidenceBound)
    assert actor.scorer.omega == 2
    with pytest.raises(ConfigError, match="refine_top"):
        make_actor(policy, critic, {**options, "refine_top": 0}, SPEC)


def test_policy_agnostic_rl_has_its_constants() -> None:
    """arXiv 2412.06685: 32 samples, the ten best take ten steps of 3e-4; its agent is the recommended one."""
    config, recommended = (settings("finetune", f"experiment={name}") for name in ("parl_like", "recommended"))
    assert {key: config.exploration[key] for key in ("num_candidates", "sigma", "centre")} == {
        "num_candidates": 32,
        "sigma": 0.0,
        "centre": "sample_per_candidate",
    }
    refining = {key: config.exploration[key] for key in config.exploration if key.startswith("refine_")}
    assert refining == {"refine_top": 10, "refine_steps": 10, "refine_rate": 3e-4}
    assert (config.online.target_candidates, config.online.distil_weight) == (32, 1.0)
    assert config.algorithm == recommended.algorithm
    assert config.task == recommended.task
