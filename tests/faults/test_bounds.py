"""Bounds of actions come from who knows them, numbered as in docs/reliability.md."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torchrl.data import Bounded, Composite
from torchrl.modules import ProbabilisticActor, TanhNormal

from o3f import export
from o3f.errors import ConfigError
from o3f.modules import (
    ActionLimits,
    EnsembleQValue,
    GaussianCandidates,
    GaussianNoiseActor,
    LatentCandidates,
    LatentPolicy,
    MixedCandidates,
    OptimisticActor,
    RandomRank,
    gaussian_policy,
    latent_actor,
    latent_decoder,
)
from o3f.modules.acting import action_bounds
from o3f.objectives import CQLLoss
from o3f.objectives.best_of_n import DistillationLoss

LOW, HIGH = [-2.0, -1.0], [1.0, 3.0]
SPEC = Bounded(torch.tensor(LOW), torch.tensor(HIGH), (2,))


def policy_with_bounds() -> ProbabilisticActor:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), NormalParamExtractor())
    return ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=SPEC,
        distribution_class=TanhNormal,
        distribution_kwargs={"low": SPEC.space.low, "high": SPEC.space.high},
    )


def observations(count: int = 64) -> TensorDict:
    return TensorDict({"observation": torch.randn(count, 3)}, [count])


def extremes(actor: Any) -> tuple[list[float], list[float]]:
    action = actor(observations())["action"]
    return action.amin(0).tolist(), action.amax(0).tolist()


def latent_networks() -> tuple[Any, Any]:
    decoder = latent_decoder(3, 2, 4, (8,))
    with torch.no_grad():
        decoder.module.network[-1].weight.mul_(1e3)
    return latent_actor(3, 4, (8,)), decoder


@pytest.mark.parametrize(
    "sampler",
    [
        None,
        GaussianCandidates(20, 9.0),
        MixedCandidates(20, 9.0),
        ActionLimits(GaussianCandidates(20, 9.0), max_displacement=9.0),
    ],
)
def test_f70_candidates_keep_to_the_policys_own_bounds(sampler: Any) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"sigma": 9.0} if sampler is None else {"sampler": sampler}
    actor = OptimisticActor(policy_with_bounds(), EnsembleQValue(3, 2), scorer=RandomRank(), **options)
    assert extremes(actor) == (LOW, HIGH)
    assert isinstance(actor.spec, Composite)
    assert torch.equal(actor.spec["action"].space.high, torch.tensor(HIGH))


def test_f70_other_actors_keep_to_the_policys_own_bounds() -> None:
    torch.manual_seed(0)
    assert extremes(GaussianNoiseActor(policy_with_bounds(), 9.0)) == (LOW, HIGH)
    policy = LatentPolicy(*latent_networks(), SPEC)
    assert extremes(policy) == (LOW, HIGH)
    sampler = LatentCandidates(policy.decoder, 20, 9.0)
    assert extremes(OptimisticActor(policy, EnsembleQValue(3, 2), sampler=sampler, scorer=RandomRank())) == (LOW, HIGH)


def test_f70_a_leaf_as_the_policys_spec_and_a_spec_given() -> None:
    torch.manual_seed(0)
    policy = TensorDictModule(torch.nn.Linear(3, 2), ["observation"], ["action"])
    policy.spec = SPEC
    critic = EnsembleQValue(3, 2)
    assert extremes(OptimisticActor(policy, critic, sigma=9.0, scorer=RandomRank())) == (LOW, HIGH)
    actor = OptimisticActor(policy, critic, sigma=9.0, scorer=RandomRank(), spec=Bounded(-0.5, 0.25, (2,)))
    assert extremes(actor) == ([-0.5] * 2, [0.25] * 2)


def test_f70_unknown_bounds_are_told_once_and_a_samplers_own_hold() -> None:
    policy = TensorDictModule(torch.nn.Linear(3, 2), ["observation"], ["action"])
    critic = EnsembleQValue(3, 2)
    with pytest.warns(UserWarning, match="bounds of 'action' are not known") as told:
        OptimisticActor(policy, critic)
    assert len(told) == 1
    assert told[0].filename == __file__
    own = GaussianCandidates(20, 9.0, low=-0.25, high=0.5)
    assert extremes(OptimisticActor(policy, critic, sampler=own, scorer=RandomRank())) == ([-0.25] * 2, [0.5] * 2)
    actor = OptimisticActor(policy_with_bounds(), critic, sampler=own, scorer=RandomRank())
    assert extremes(actor) == ([-0.25] * 2, [0.5] * 2)
    wider = GaussianCandidates(20, 9.0, low=[-2.0, -2.0], high=1.0)
    with pytest.raises(ValueError, match=r"draws 'action' from \[-2.0, -2.0\] .* has \[-2.0, -1.0\] to \[1.0, 3.0\]"):
        OptimisticActor(policy_with_bounds(), critic, sampler=wider)


def test_f70_training_terms_keep_to_the_policys_own_bounds() -> None:
    torch.manual_seed(0)
    policy, critic = policy_with_bounds(), EnsembleQValue(3, 2, num_critics=2)
    loss = CQLLoss(policy, critic, num_random=200)
    rows = observations()
    action, density = loss.propose(rows.set("next", rows.clone()))
    uniform = action[:, 400:].flatten(0, 1)
    torch.testing.assert_close(uniform.amin(0), torch.tensor(LOW), atol=0.01, rtol=0)
    torch.testing.assert_close(uniform.amax(0), torch.tensor(HIGH), atol=0.01, rtol=0)
    torch.testing.assert_close(density[:, 400:].exp(), torch.full((64, 200), 1 / 12))
    term = DistillationLoss(policy, OptimisticActor(policy, critic, sigma=9.0), margin=0.01)
    low, high = term._inner_bounds(torch.zeros(1))
    torch.testing.assert_close((low, high), (torch.tensor([-1.985, -0.98]), torch.tensor([0.985, 2.98])))


def test_f70_an_export_of_candidates_beyond_the_agents_units_is_refused() -> None:
    policy = gaussian_policy(3, 2, (8,))
    actor = OptimisticActor(policy, EnsembleQValue(3, 2), spec=SPEC)
    layout: Any = SimpleNamespace(size=3)
    interface = export.Interface(layout, *[torch.ones(2).numpy()] * 4)
    with pytest.raises(ConfigError, match=r"found candidates from .-2.0, -1.0. to .1.0, 3.0., expected .*-1, 1"):
        export.OptimisticProgram(export.plain_policy(policy), interface, actor)


def test_f70_bounds_that_differ_between_the_rows_of_a_batch_are_refused() -> None:
    equal = Bounded(torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 1.0]), (2,)).expand(3, 2)
    bounds = action_bounds(Composite({"action": equal}, shape=(3,)), "action")
    assert bounds is not None
    assert bounds["low"].tolist() == [-2.0, -1.0]
    uneven = Bounded(torch.tensor([[-1.0, -1.0], [-2.0, -1.0]]), torch.ones(2, 2), (2, 2))
    with pytest.raises(ValueError, match=r"The bounds of 'action' differ between the rows of the batch \[2\]"):
        action_bounds(Composite({"action": uneven}, shape=(2,)), "action")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(-0.7, 0.1), (-1.0, 1.0), (0.3, 1 / 3)])
def test_f54_candidates_lie_within_a_spec_of_any_precision(dtype: torch.dtype, bounds: tuple[float, float]) -> None:
    """The bounds are what the spec holds, not what was written: 0.1 is 0.100098 in bfloat16."""
    torch.manual_seed(0)
    low, high = (torch.full((2,), bound, dtype=torch.float64).to(dtype) for bound in bounds)
    spec = Composite({"action": Bounded(low, high, (2,), dtype=dtype)})
    actor = OptimisticActor(
        gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, 2, (8,)), num_candidates=4, sigma=3.0, spec=spec
    )
    action = actor(TensorDict({"observation": torch.randn(64, 3)}, [64]))["action"]
    for chosen in (action.double(), action.to(dtype).double()):
        assert bool(((chosen >= low.double()) & (chosen <= high.double())).all())
    assert action.amin() == pytest.approx(low[0].item(), abs=1e-6)
    assert action.amax() == pytest.approx(high[0].item(), abs=1e-6)
