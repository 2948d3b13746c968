"""LatentCandidates: where candidates lie, and that an optimistic actor chooses among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.modules import EnsembleQValue, LatentCandidates, LatentPolicy, OptimisticActor, latent_policy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_policy(seed: int = 0) -> LatentPolicy:
    torch.manual_seed(seed)
    return latent_policy(3, 2, hidden_sizes=(8,))


def states(*batch: int) -> TensorDict:
    return TensorDict({"observation": torch.randn(*batch, 3, generator=seeded(1))}, batch)


def test_candidates_are_decoded_from_the_clipped_sum_of_latent_and_noise() -> None:
    policy, td = make_policy(), states(5)
    policy.actor.module.network[-1].bias.data.copy_(torch.tensor([9.0, -9.0, 0.0, 0.0]))  # two latents at the bounds
    policy(td)
    noise = torch.randn(5, 7, 4, generator=seeded(3))
    candidates = LatentCandidates(policy.decoder, 7, 0.5, generator=seeded(3))(td)["candidates"]
    assert candidates.shape == (5, 7, 2)
    for row in range(5):
        for i in range(7):
            latent = (td["latent"][row] + 0.5 * noise[row, i]).clamp(-2, 2)
            expected = policy.decoder.module(td["observation"][row], latent).clamp(-1, 1)
            torch.testing.assert_close(candidates[row, i], expected)
    torch.manual_seed(3)
    again = LatentCandidates(policy.decoder, 7, 0.5)(td)["candidates"]
    assert torch.equal(again, candidates)


def test_latents_of_candidates_keep_to_their_bounds() -> None:
    policy, td, seen = make_policy(), states(50), []
    policy.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]["latent"]))
    policy(td)
    LatentCandidates(policy.decoder, 20, 5.0, max_latent=1.25)(td)
    assert seen[-1].shape == (50, 20, 4)
    assert seen[-1].abs().max() == 1.25


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_without_noise_every_candidate_is_the_policys_action(batch: tuple[int, ...]) -> None:
    policy, td = make_policy(), states(*batch)
    policy(td)
    candidates = LatentCandidates(policy.decoder, 4, 0.0)(td)["candidates"]
    torch.testing.assert_close(candidates, td["action"].unsqueeze(-2).expand(*batch, 4, 2))


def test_include_base_puts_the_policys_action_first() -> None:
    policy, td = make_policy(), states(5)
    policy(td)
    candidates = LatentCandidates(policy.decoder, 4, 0.5, include_base=True)(td)["candidates"]
    torch.testing.assert_close(candidates[:, 0], td["action"])
    assert (candidates[:, 1:] - td["action"].unsqueeze(1)).abs().amin() > 0


def test_action_bounds_and_margin() -> None:
    policy, td = make_policy(), states(50)
    policy.decoder.module.action_normaliser.scale.fill_(100.0)
    policy(td)
    sampler = LatentCandidates(policy.decoder, 20, 1.0, low=[-0.5, -1.0], high=[0.25, 1.0], clip_margin=0.1)
    candidates = sampler(td)["candidates"]
    assert candidates.amin((0, 1)).tolist() == pytest.approx([-0.4, -0.9])
    assert candidates.amax((0, 1)).tolist() == pytest.approx([0.15, 0.9])


def test_sigma_per_dimension_can_be_scheduled_and_the_generator_is_saved() -> None:
    policy, td = make_policy(), states(3)
    policy(td)
    sampler = LatentCandidates(policy.decoder, 6, [0.0, 0.0, 0.0, 0.0], generator=seeded())
    assert sampler(td)["candidates"].std(1).max() < 1e-6
    sampler.sigma.fill_(0.3)
    other = LatentCandidates(policy.decoder, 6, [0.3] * 4, generator=seeded(1))
    other.load_state_dict(sampler.state_dict())
    assert torch.equal(other(td)["candidates"], sampler(td)["candidates"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_candidates": 0}, "num_candidates must be a whole number of at least 1"),
        ({"num_candidates": 2.0}, "num_candidates must be a whole number of at least 1"),
        ({"sigma": -0.1}, "sigma must be finite and not negative"),
        ({"max_latent": 0.0}, "max_latent must be a number in"),
        ({"latent_key": "z"}, "must read 'z'"),
        ({"low": 1.0, "high": 1.0}, "No action lies between"),
        ({"clip_margin": -0.1}, "clip_margin"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentCandidates(make_policy().decoder, **arguments)


def test_an_optimistic_actor_chooses_the_best_decoded_candidate() -> None:
    policy, td = make_policy(), states(6)
    critic = EnsembleQValue(3, 2, 5, (8,))
    sampler = LatentCandidates(policy.decoder, 10, 0.5, generator=seeded(4))
    actor = OptimisticActor(policy, critic, sampler=sampler)
    assert actor.in_keys == ["observation"]
    with set_exploration_type(ExplorationType.RANDOM):
        chosen = actor(td.clone())
    candidates = LatentCandidates(policy.decoder, 10, 0.5, generator=seeded(4))(policy(td.clone()))["candidates"]
    rows = TensorDict({"observation": td["observation"].unsqueeze(1).expand(6, 10, 3), "action": candidates}, [6, 10])
    best = critic(rows)["state_action_value"].mean(-1).argmax(-1)
    torch.testing.assert_close(chosen["action"], candidates[torch.arange(6), best])
    assert set(chosen.keys()) == {"observation", "action"}
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(actor(td.clone())["action"], policy(td.clone())["action"])
