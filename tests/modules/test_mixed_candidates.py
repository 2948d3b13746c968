"""Candidates from several sources, and samplers that read what the policy writes beside the action."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase

from o3f.modules import EnsembleQValue, MeanScore, MixedCandidates, OptimisticActor, gaussian_policy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_what_the_candidates_are():
    samples = torch.randn(4000, 9, 1, generator=seeded(1))
    samples[:, 0] = 0.3
    sampler = MixedCandidates(9, sigma=0.1, low=-1.0, high=1.0, generator=seeded())
    found = sampler(TensorDict({"action": samples}, [4000]))["candidates"]
    assert found.shape == (4000, 9, 1)
    assert torch.equal(found[:, :5], samples[:, :5].clamp(-1, 1))  # the action itself first, then other samples
    local = found[:, 5:]
    assert local.mean().item() == pytest.approx(0.3, abs=0.005)
    assert local.std().item() == pytest.approx(0.1, rel=0.05)


def test_the_actor_draws_the_samples_and_never_scores_lower_than_its_policy():
    torch.manual_seed(0)
    policy, critic = gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, 5, (8,))
    actor = OptimisticActor(
        policy, critic, sampler=MixedCandidates(20, 0.2), scorer=MeanScore(), return_candidates=True
    )
    td = actor(TensorDict({"observation": torch.randn(500, 3)}, [500]))
    own = td["candidates"][:, :10]
    assert own.std(1).mean() > 0.5  # the policy's standard deviation is 1 before clipping
    values = critic(td.select("observation", "action"))["state_action_value"].mean(-1)
    assert (values >= td["scores"][:, 0] - 1e-5).all()
    torch.testing.assert_close(values, td["scores"].amax(-1))


def test_errors():
    with pytest.raises(ValueError, match="at least 2"):
        MixedCandidates(1)
    with pytest.raises(ValueError, match="negative"):
        MixedCandidates(4, sigma=-1.0)
    for number in (2.5, 10.0, float("nan"), "10"):
        with pytest.raises(ValueError, match="num_candidates must be a whole number of at least 2"):
            MixedCandidates(number)


class AroundLatent(TensorDictModuleBase):
    """Candidates made from what the policy writes beside the action."""

    def __init__(self):
        super().__init__()
        self.in_keys, self.out_keys = ["latent", "observation"], ["candidates"]

    def forward(self, tensordict):
        latent = tensordict["latent"]
        return tensordict.set("candidates", torch.stack([latent, latent + 1.0], -2))


def test_a_sampler_may_read_what_the_policy_writes():
    policy = TensorDictModule(lambda x: (2 * x, x), ["observation"], ["latent", "action"])
    critic = TensorDictModule(lambda a: a, ["action"], ["state_action_value"])
    actor = OptimisticActor(policy, critic, sampler=AroundLatent())
    assert actor.in_keys == ["observation"]
    td = actor(TensorDict({"observation": torch.tensor([[0.25]])}, [1]))
    assert td["action"].item() == 1.5
    assert set(td.keys()) == {"observation", "action"}
