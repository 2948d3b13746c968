"""The paper's claim as a test: where O3F is off, going online changes nothing in what an update does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict

from o3f.algorithms import Learner
from o3f.data import make_buffer
from o3f.data.rows import ROW_KEYS
from o3f.training import build
from o3f.training.exploration import make_actor
from tests.support import learners
from tests.support.learners import NAMES, OPTIONS

ONLINE = {"distil_weight": 0.0, "target_candidates": 0}


def batches(count: int) -> list[TensorDict]:
    generator = torch.Generator().manual_seed(7)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    found = []
    for _ in range(count):
        flags = {key: numbers(16, 1) > 0.8 for key in ("done", "terminated", "truncated")}
        following = {"observation": numbers(16, 3), "reward": numbers(16, 1), **flags}
        found.append(TensorDict({"observation": numbers(16, 3), "action": numbers(16, 2), "next": following}, [16]))
    return found


def make(name: str) -> Learner:
    """With settings that draw random numbers."""
    return learners.make(name, **OPTIONS.get(name, {}))


def go_online(learner: Learner, name: str) -> Learner:
    """What the recipe does at the switch: a new learner with the state of the old one, an actor, a schedule."""
    online = make(name)
    online.load_state_dict(copy.deepcopy(learner.state_dict()))
    actor = make_actor(online.policy, online.critic, {"kind": "policy"}, online.policy.spec["action"])
    config = OmegaConf.create(
        {
            "schedule": {"kind": "same", "steps": 3, "to": {"algorithm": {}, "exploration": {}}},
            "online": ONLINE,
            "exploration": {"kind": "policy"},
            "task": {"sigma": 0.2},
        }
    )
    build.change_objective(online, actor, config)
    schedule = build.schedule(config, online, actor)
    schedule.step(0)
    actor(TensorDict({"observation": torch.zeros(1, 3)}, [1]))
    return online


@pytest.mark.parametrize("name", NAMES)
def test_the_update_is_the_same_function_before_and_after_the_switch(name: str) -> None:
    stream = batches(6)
    straight, switched = make(name), make(name)
    for learner in (straight, switched):
        torch.manual_seed(1)
        for batch in stream[:3]:
            learner.update([batch.clone()])
    switched = go_online(switched, name)
    figures = []
    for learner in (straight, switched):
        torch.manual_seed(2)
        figures.append([learner.update([batch.clone()]) for batch in stream[3:]])
    for before, after in zip(*figures, strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    torch.testing.assert_close(straight.state_dict(), switched.state_dict(), rtol=0, atol=0)
    assert straight.updates == switched.updates == 6


def test_what_the_targets_choose_with_follows_the_schedule() -> None:
    learner = make("iql")
    exploration = {"kind": "optimistic", "candidates": "gaussian", "num_candidates": 10, "sigma": 0.2, "omega": 0.0}
    exploration |= {"centre": "sample", "include_base": False, "clip_margin": 0.0}
    exploration |= {"max_displacement": None, "max_change": None, "veto": None}
    to = {"algorithm": {}, "exploration": {"sigma": 0.01, "omega": 0.5}}
    config = OmegaConf.create(
        {
            "schedule": {"kind": "abrupt", "steps": 3, "to": to},
            "online": {"distil_weight": 0.0, "target_candidates": 4},
            "exploration": exploration,
        }
    )
    actor: Any = make_actor(learner.policy, learner.critic, config.exploration, learner.policy.spec["action"])
    schedule = build.schedule(config, learner, actor)
    build.change_objective(learner, actor, config)
    schedule.step(1)
    targets: Any = learner.next_value
    for each in (actor, targets.actor):
        assert (float(each.sampler.sigma), float(each.scorer.omega)) == pytest.approx((0.01, 0.5))
    assert (actor.sampler.num_candidates, targets.actor.sampler.num_candidates) == (10, 4)


def test_the_update_sees_nothing_but_the_rows() -> None:
    """A batch from the buffer, online rows among them, is a batch: what else a collector wrote is dropped."""
    rows = torch.cat(batches(3))
    buffer = make_buffer(rows[:32], online_capacity=16, batch_size=8)
    buffer.extend(rows[32:].clone().set("loc", torch.zeros(16, 2)))
    assert set(buffer.sample().keys(True, True)) == set(ROW_KEYS)


@pytest.mark.parametrize("name", NAMES)
def test_twenty_batches_are_twenty_steps_of_the_critics(name: str) -> None:
    learner = make(name)
    learner.update(batches(20))
    assert learner.updates == 20
