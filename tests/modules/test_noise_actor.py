"""GaussianNoiseActor, and the noise that moves as far as the optimistic choice."""

import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.data import Bounded, Unbounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.modules import EnsembleQValue, GaussianNoiseActor, OptimisticActor, gaussian_policy, matched_sigma

# E[max(z_1..z_N)^2] of standard normal numbers. 1, 2: exact. The others: by an independent quadrature.
SECOND_MOMENTS = {1: 1.0, 2: 1.0, 5: 1.80002, 10: 2.71210, 32: 4.52515, 100: 6.47243, 1000: 10.63036}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def zero_policy(action_dim: int) -> TensorDictModule:
    policy = TensorDictModule(lambda x: torch.zeros(*x.shape[:-1], action_dim), ["observation"], ["action"])
    policy.spec = Bounded(-1.0, 1.0, (action_dim,))
    return policy


def observations(*batch: int) -> TensorDict:
    return TensorDict({"observation": torch.zeros(*batch, 3)}, batch)


@pytest.mark.parametrize(("count", "moment"), SECOND_MOMENTS.items())
def test_matched_sigma_in_one_dimension_is_the_root_of_the_second_moment(count, moment):
    assert matched_sigma(0.2, count, 1) == pytest.approx(0.2 * math.sqrt(moment), abs=1e-5)


@pytest.mark.parametrize(("dim", "factor"), [(3, 1.68), (6, 1.38), (8, 1.30), (9, 1.27)])
def test_matched_sigma_at_a_hundred_candidates(dim, factor):
    assert matched_sigma(1.0, 100, dim) == pytest.approx(factor, abs=0.005)


@pytest.mark.parametrize("count_and_dim", [(0, 3), (100, 0)])
def test_matched_sigma_needs_positive_sizes(count_and_dim):
    with pytest.raises(ValueError, match="at least 1"):
        matched_sigma(0.2, *count_and_dim)


def test_moments_of_the_noise():
    actor = GaussianNoiseActor(zero_policy(2), [0.1, 0.05], generator=seeded())
    actions = actor(observations(100_000))["action"]
    assert (actions.mean(0).abs() < 4 * torch.tensor([0.1, 0.05]) / 100_000**0.5).all()
    assert actions.std(0).tolist() == pytest.approx([0.1, 0.05], rel=4 / math.sqrt(200_000))


def test_actions_stay_within_the_bounds():
    assert GaussianNoiseActor(zero_policy(2), 5.0)(observations(100))["action"].abs().max() == 1.0
    margin = GaussianNoiseActor(zero_policy(2), 5.0, clip_margin=0.1)(observations(100))["action"]
    assert margin.abs().max().item() == pytest.approx(0.9)
    actor = GaussianNoiseActor(zero_policy(2), 5.0, spec=Bounded(-0.25, 0.5, (2,)))
    actions = actor(observations(100))["action"]
    assert (actions.min(), actions.max()) == (-0.25, 0.5)
    assert actor.spec["action"].shape == (2,)
    assert GaussianNoiseActor(zero_policy(2)).spec["action"].space.high.tolist() == [1.0, 1.0]
    unknown = zero_policy(2)
    unknown.spec = None
    with pytest.warns(UserWarning, match="-1 and 1 are assumed"):
        assert GaussianNoiseActor(unknown).spec is None
    with pytest.raises(ValueError, match="bounded vector"):
        GaussianNoiseActor(zero_policy(2), spec=Unbounded((2,)))


@pytest.mark.parametrize("sigma", [[0.1, 0.2, 0.3], torch.full((100, 1), 0.1)])
def test_a_spread_of_another_width_is_refused(sigma):
    for action_dim in (1, 2):
        with pytest.raises(ValueError, match="sigma must be one number or"):
            GaussianNoiseActor(gaussian_policy(3, action_dim), sigma)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_equals_optimistic_selection_among_one_candidate_bit_for_bit(batch):
    policy, critic = gaussian_policy(3, 2), EnsembleQValue(3, 2)
    noise = GaussianNoiseActor(policy, 0.3, generator=seeded(4))
    optimistic = OptimisticActor(policy, critic, 1, 0.3, generator=seeded(4))
    for seed in range(3):
        torch.manual_seed(seed)
        expected = noise(observations(*batch))["action"]
        torch.manual_seed(seed)
        assert torch.equal(optimistic(observations(*batch))["action"], expected)


def test_is_the_plain_policy_where_torchrl_does_not_explore():
    policy = gaussian_policy(3, 2)
    actor = GaussianNoiseActor(policy, 0.3)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        expected = policy(observations(4))["action"]
        assert torch.equal(actor(observations(4))["action"], expected)
    with set_exploration_type(ExplorationType.RANDOM):
        assert not torch.equal(actor(observations(4))["action"], expected)


def test_noise_around_the_mean():
    policy = gaussian_policy(3, 2)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        expected = policy(observations(4))["action"]
    assert torch.equal(GaussianNoiseActor(policy, 0.0, centre="mean")(observations(4))["action"], expected)


def test_writes_the_action_alone_under_any_key():
    policy = gaussian_policy(3, 2, in_key=("agent", "obs"), action_key=("agent", "act"))
    td = TensorDict({"agent": {"obs": torch.zeros(4, 3)}, "other": torch.ones(4)}, [4])
    GaussianNoiseActor(policy, action_key=("agent", "act"))(td)
    assert set(td.keys(True, True)) == {("agent", "obs"), ("agent", "act"), "other"}
    with pytest.raises(ValueError, match="policy must write 'action'"):
        GaussianNoiseActor(policy)


def test_matched_noise_moves_as_far_as_optimistic_selection_on_a_linear_critic():
    """Both mean squared displacements are sigma^2 (E2 + d - 1), here 0.0225 * 11.47243 in six dimensions."""
    repeats, dim, sigma = 20_000, 6, 0.15
    slope = torch.randn(dim, generator=seeded(1))
    critic = TensorDictModule(lambda a: (a @ slope).unsqueeze(-1), ["action"], ["state_action_value"])
    wide = Bounded(-9, 9, (dim,))
    policy = zero_policy(dim)
    actors = [
        OptimisticActor(policy, critic, 100, sigma, spec=wide, generator=seeded(2)),
        GaussianNoiseActor.matched(policy, 100, sigma, dim, spec=wide, generator=seeded(3)),
    ]
    expected = sigma**2 * (6.47243 + dim - 1)
    for actor in actors:
        squares = actor(observations(repeats))["action"].square().sum(-1)
        assert squares.mean().item() == pytest.approx(expected, abs=4 * squares.std().item() / repeats**0.5)
