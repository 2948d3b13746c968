"""Lanes: several agents updated together are what each would be alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from o3f.algorithms import IQLLearner, Learner, make_learner
from o3f.algorithms.lanes import Lanes
from o3f.errors import ConfigError
from o3f.runs.checkpoint import save
from tests.iql_cases import ACTION_DIM, OBSERVATION_DIM, double_precision, make_batch

KINDS: list[dict[str, Any]] = [
    {"num_critics": 2},
    {"num_critics": 5},
    {"num_critics": 2, "layer_norm": True},
    {"name": "bc", "num_critics": 1},
    {"num_critics": 3, "aggregation": "mean", "actor_decay_steps": 6},
]


def make(seed: int, name: str = "iql", **config: Any) -> Any:
    torch.manual_seed(seed)
    return make_learner(name, OBSERVATION_DIM, ACTION_DIM, {"hidden_sizes": [16, 16], **config})


def batches(lane: int, step: int, count: int = 2) -> list[TensorDict]:
    return [make_batch(32, seed=1000 * lane + 10 * step + index) for index in range(count)]


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All numbers of a nested state, with their names."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from tensors(value, f"{path}/{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from tensors(value, f"{path}/{index}")
    elif isinstance(state, Tensor | int | float):
        yield path, torch.as_tensor(state).double()


def assert_close(left: Any, right: Any, tolerance: float) -> None:
    found, expected = dict(tensors(left)), dict(tensors(right))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def update_both(alone: Sequence[Learner], lanes: Lanes, steps: range, tolerance: float) -> None:
    """Update learners one by one and others as lanes; metrics and states are equal."""
    for step in steps:
        given = [batches(lane, step) for lane in range(len(alone))]
        expected = [learner.update(each) for learner, each in zip(alone, given, strict=True)]
        for found, metrics in zip(lanes.update(given), expected, strict=True):
            assert_close(found, metrics, tolerance)
    for found, learner in zip(lanes.learners, alone, strict=True):
        assert_close(found.state_dict(), learner.state_dict(), tolerance)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_lanes_are_the_learners_one_by_one(config: dict[str, Any]) -> None:
    with double_precision():
        update_both(
            [make(0, **config), make(1, **config)], Lanes([make(0, **config), make(1, **config)]), range(5), 1e-10
        )
    update_both([make(0, **config), make(1, **config)], Lanes([make(0, **config), make(1, **config)]), range(5), 1e-5)


def test_batches_large_enough_for_the_blockwise_layers_are_no_exception() -> None:
    alone, lanes = [make(0), make(1)], Lanes([make(0), make(1)])
    given = [[make_batch(1500, seed=lane)] for lane in range(2)]
    for learner, each, found in zip(alone, given, lanes.update(given), strict=True):
        assert_close(found, learner.update(each), 1e-5)


def test_each_lane_has_its_own_coefficients() -> None:
    alone, joint = [make(0), make(1)], [make(0), make(1)]
    for learner in (alone[1], joint[1]):
        learner.coefficients["expectile"].fill_(0.9)
    lanes = Lanes(joint)
    for learner in (alone[0], joint[0]):
        learner.coefficients["temperature"].fill_(0.5)  # as a schedule does during the run
    update_both(alone, lanes, range(3), 1e-5)


def test_a_lane_does_not_feel_the_others() -> None:
    first, second = Lanes([make(0), make(1)]), Lanes([make(0), make(1)])
    for step in range(3):
        mine = batches(0, step)
        theirs = first.update([mine, batches(1, step)])[0]
        ours = second.update([mine, batches(2, step)])[0]
        assert theirs == ours
    left, right = ([dict(tensors(learner.state_dict())) for learner in lanes.learners] for lanes in (first, second))
    assert all(torch.equal(left[0][name], right[0][name]) for name in left[0])
    assert not all(torch.equal(left[1][name], right[1][name]) for name in left[1])


def test_a_lane_whose_gradients_are_not_finite_leaves_out_its_own_steps_alone() -> None:
    alone, lanes = [make(0), make(1)], Lanes([make(0), make(1)])
    spoilt = batches(0, 0, 1)
    spoilt[0]["next", "reward"].fill_(float("nan"))
    given = [spoilt, batches(1, 0, 1)]
    for learner, each in zip(alone, given, strict=True):
        learner.update(each)
    lanes.update(given)
    update_both(alone, lanes, range(1, 3), 1e-5)


def test_states_go_to_and_from_single_learners() -> None:
    alone, lanes = [make(0), make(1)], Lanes([make(0), make(1)])
    update_both(alone, lanes, range(3), 1e-5)
    moved = make(7)
    moved.load_state_dict(copy.deepcopy(lanes.learners[1].state_dict()))
    moved.update(batches(1, 3))
    alone[1].update(batches(1, 3))
    assert_close(moved.state_dict(), alone[1].state_dict(), 1e-5)
    lanes.learners[1].load_state_dict(copy.deepcopy(alone[1].state_dict()))  # now ahead of the other lane
    update_both(alone, lanes, range(4, 6), 1e-5)


def test_a_lane_may_be_updated_alone_and_leave() -> None:
    alone, joint = [make(seed) for seed in range(3)], [make(seed) for seed in range(3)]
    update_both(alone, Lanes(joint), range(2), 1e-5)
    for learner in (alone[2], joint[2]):
        learner.update(batches(2, 2))
    update_both(alone, Lanes(joint), range(3, 5), 1e-5)
    before = copy.deepcopy(joint[2].state_dict())
    update_both(alone[:2], Lanes(joint[:2]), range(5, 7), 1e-5)
    assert_close(joint[2].state_dict(), before, 0.0)


def test_policies_act_as_after_updates_alone() -> None:
    alone, lanes = [make(0), make(1)], Lanes([make(0), make(1)])
    lanes.update([batches(0, 0), batches(1, 0)])
    observation = torch.randn(5, OBSERVATION_DIM)
    for lane, (learner, joint) in enumerate(zip(alone, lanes.learners, strict=True)):
        before = learner.policy(TensorDict({"observation": observation}, [5]))["loc"].clone()
        learner.update(batches(lane, 0))
        found, expected = (
            each.policy(TensorDict({"observation": observation}, [5]))["loc"] for each in (joint, learner)
        )
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, before)


def test_a_lane_s_checkpoint_is_no_larger(tmp_path: Any) -> None:
    learners = [make(seed, hidden_sizes=[64, 64]) for seed in range(4)]
    for learner in learners:
        learner.update(batches(0, 0))
    alone = save(tmp_path / "alone", 1, {"learner": learners[0]}).stat().st_size
    Lanes(learners).update([batches(lane, 1) for lane in range(4)])
    joint = save(tmp_path / "joint", 1, {"learner": learners[0]}).stat().st_size
    assert joint < 1.05 * alone


def test_without_a_report_there_are_no_metrics() -> None:
    assert Lanes([make(0), make(1)]).update([batches(0, 0), batches(1, 0)], report=False) == [{}, {}]


def with_hook(learner: IQLLearner, name: str) -> IQLLearner:
    setattr(learner, name, lambda batch: torch.zeros(batch.shape))
    return learner


@pytest.mark.parametrize(
    ("learners", "message"),
    [
        (list, "found none"),
        (lambda: [make(0), make(1, "sac")], "found IQLLearner, SACLearner."),
        (lambda: [make(0), make(1, expectile=0.9)], "one configuration"),
        (lambda: [make(0)] * 2, "once"),
        (lambda: [make(seed, actor_dropout=0.1) for seed in (0, 1)], "draw nothing"),
        (lambda: [make(seed, aggregation="subset") for seed in (0, 1)], "draw nothing"),
        (lambda: [make(0), with_hook(make(1), "next_value")], "cannot change the objective"),
        (lambda: [make(0), with_hook(make(1), "actor_term")], "cannot change the objective"),
    ],
)
def test_what_lanes_cannot_do_is_refused(learners: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Lanes(learners())
