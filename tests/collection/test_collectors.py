"""The actors inside TorchRL's collectors. Worker processes import nothing from this file."""

import functools

import pytest
import torch
from torchrl.collectors import Collector, MultiSyncCollector
from torchrl.data import Bounded
from torchrl.envs import GymEnv, InitTracker, TransformedEnv

from o3f.modules import (
    EnsembleQValue,
    GaussianCandidates,
    GaussianNoiseActor,
    OptimisticActor,
    RandomRank,
    gaussian_policy,
)

make_env = functools.partial(GymEnv, "Pendulum-v1")  # observation [3], action [1] in [-2, 2]
QUIET = {"auto_register_policy_transforms": False}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def networks() -> tuple:
    return gaussian_policy(3, 1, (16,)), EnsembleQValue(3, 1, hidden_sizes=(16,))


def collect(actor: torch.nn.Module, env: GymEnv | TransformedEnv, frames: int = 20):
    collector = Collector(env, actor, frames_per_batch=frames, total_frames=frames, **QUIET)
    (batch,) = list(collector)
    return batch


def test_the_collector_explores_with_the_optimistic_actor():
    actor = OptimisticActor(*networks(), sigma=1.0, spec=make_env().action_spec, return_candidates=True)
    batch = collect(actor, make_env())
    assert batch["candidates"].shape == (20, 100, 1)
    assert batch["candidates"].abs().max() == 2.0  # the environment's bound
    best = batch["scores"].argmax(-1, keepdim=True)
    assert torch.equal(batch["action"], batch["candidates"][..., 0].gather(-1, best))


def test_only_the_action_is_stored_by_default():
    batch = collect(OptimisticActor(*networks()), make_env())
    stored = set(batch.exclude("next", "collector").keys(True, True))
    assert stored == {"observation", "action", "done", "terminated", "truncated"}


@pytest.mark.parametrize("kind", ["noise", "random rank"])
def test_the_controls_run_in_a_collector(kind):
    policy, critic = networks()
    rank = RandomRank("episode")
    actor = GaussianNoiseActor(policy) if kind == "noise" else OptimisticActor(policy, critic, scorer=rank)
    batch = collect(actor, TransformedEnv(make_env(), InitTracker()))
    assert batch["action"].unique().numel() > 5
    assert batch["action"].abs().max() <= 1


def test_two_workers_draw_different_noise():
    """Candidate 0 shows the policy's sample (global stream), the others the generator's noise around it."""
    policy, critic = networks()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            # The same distribution in every state, too narrow for two samples to be clipped to the same bound.
            parameter.fill_(-2.0 if name.endswith("log_std") else 0.0)
    sampler = GaussianCandidates(4, 0.1, include_base=True, low=-9, high=9, generator=torch.Generator().manual_seed(0))
    wide = Bounded(-9.0, 9.0, (1,))
    actor = OptimisticActor(policy, critic, sampler=sampler, spec=wide, return_candidates=True)
    collector = MultiSyncCollector([make_env, make_env], actor, frames_per_batch=8, total_frames=8, **QUIET)
    try:
        candidates = next(iter(collector))["candidates"].reshape(2, 4, 4)
    finally:
        collector.shutdown()
    base, noise = candidates[..., 0], candidates[..., 1:] - candidates[..., :1]
    assert not torch.isclose(base[0], base[1]).any()
    assert not torch.isclose(noise[0], noise[1]).any()
