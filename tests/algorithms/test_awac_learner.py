"""The AWAC learner takes d3rlpy's steps, but for the entropy in 2.8's target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.algorithms import AWACLearner, make_learner
from o3f.collection.behaviours.from_actor import gaussian_mlp_from_actor
from o3f.modules import EnsembleQValue
from tests.support.actor_critic_oracle import AWACOracle
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, double_precision, make_batch
from tests.support.oracle_cases import assert_networks_equal, normal, numpy_critics, numpy_layers, rows


def make(**config: Any) -> AWACLearner:
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 8], "actor_hidden_sizes": [6, 7, 6]}
    learner = make_learner("awac", OBSERVATION_DIM, ACTION_DIM, {**sizes, **config})
    assert isinstance(learner, AWACLearner)
    return learner


def oracle_of(learner: AWACLearner) -> AWACOracle:
    config, gaussian = learner.config, learner.policy[0].module
    return AWACOracle(
        policy=numpy_layers(gaussian.mean),
        log_std=gaussian.log_std.detach().numpy().copy(),
        critics=numpy_critics(learner.critic),
        lam=config.lam,
        weighting=config.weighting,
        discount=config.discount,
        tau=config.tau,
        rate=config.learning_rate,
        weight_decay=config.weight_decay,
        aggregation=config.aggregation,
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"weighting": "exp", "lam": 0.1, "num_critics": 3, "weight_decay": 0.0},
        {"aggregation": "mean", "num_critics": 5, "layer_norm": True, "weight_decay": 0.1, "learning_rate": 3e-3},
        {"lam": 0.3, "discount": 0.9, "tau": 0.1, "init": "orthogonal", "learning_rate": 1e-2},
    ],
)
def test_equals_an_independent_implementation(config: dict[str, Any]) -> None:
    with double_precision():
        learner = make(**config)
        with torch.no_grad():  # spreads wide enough for some samples to be clipped
            learner.policy[0].module.log_std.copy_(torch.tensor([2.0, -0.5]))
        oracle = oracle_of(learner)
        for seed in range(5):
            batch = make_batch(7, seed=seed)
            batch["next", "reward"] *= 20.0
            torch.manual_seed(seed)
            draws = [normal(7, ACTION_DIM) for _ in range(2)]
            torch.manual_seed(seed)
            figures = learner.update([batch])
            expected = oracle.update(rows(batch), *draws)
            for name, number in expected.items():
                assert figures[name].item() == pytest.approx(number, rel=1e-8, abs=1e-10), (seed, name)
            assert_networks_equal(numpy_layers(learner.policy[0].module.mean), oracle.policy)
            np.testing.assert_allclose(learner.policy[0].module.log_std.detach(), oracle.log_std, rtol=1e-8)
            for found, other in (
                (learner.critic, oracle.critics),
                (learner.loss.target_qvalue_network, oracle.targets),
            ):
                for network, twin in zip(numpy_critics(found), other, strict=True):
                    assert_networks_equal(network, twin)


def test_defaults_are_d3rlpys() -> None:
    learner = make_learner("awac", OBSERVATION_DIM, ACTION_DIM, {})
    assert isinstance(learner, AWACLearner)
    assert isinstance(learner.critic, EnsembleQValue)
    assert [layer["W"].shape for layer in numpy_layers(learner.policy[0].module.mean)] == [
        (OBSERVATION_DIM, 256),
        *[(256, 256)] * 3,
        (256, ACTION_DIM),
    ]
    assert [tuple(w.shape) for w in learner.critic.weights] == [(2, 5, 256), (2, 256, 256), (2, 256, 1)]
    scale = learner.policy.get_dist(make_batch(2)).base_dist.scale
    torch.testing.assert_close(scale, torch.full((2, ACTION_DIM), np.exp(-3.0)).float())
    groups = {name: optimiser.param_groups[0] for name, optimiser in learner.optimisers.items()}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "critic": (3e-4, 0),
        "actor": (3e-4, 1e-4),
    }
    assert (learner.loss.lam.item(), learner.loss.weighting) == (1.0, "softmax")
    assert learner.coefficients.keys() == {"lam"}
    assert learner.policy.spec["action"].is_in(torch.ones(ACTION_DIM))


def test_policy_samples_within_the_bounds_and_is_deterministic_in_evaluation() -> None:
    learner, batch = make(), make_batch(200)
    with torch.no_grad():
        learner.policy[0].module.log_std.fill_(3.0)
    assert learner.policy(batch.clone())["action"].abs().max() == 1
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        found = learner.policy(batch.clone())
    torch.testing.assert_close(found["action"], found["loc"])


def test_prefers_the_better_of_two_actions() -> None:
    """Half of the data goes left, half right; right pays 1 and left nothing."""
    torch.manual_seed(0)
    learner = make(learning_rate=1e-2, lam=0.1, weight_decay=0.0)
    for seed in range(60):
        batch = make_batch(64, seed=seed)
        side = torch.where(torch.arange(64).unsqueeze(-1) % 2 == 0, 0.5, -0.5)
        batch["action"] = side.expand(64, ACTION_DIM).clone()
        batch["next", "reward"] = (side > 0).float()
        batch["next", "terminated"] = torch.ones(64, 1, dtype=torch.bool)
        learner.update([batch])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        action = learner.policy(make_batch(64, seed=99))["action"]
    torch.testing.assert_close(action.mean(), torch.tensor(0.5), atol=0.15, rtol=0)


def test_one_step_per_batch_and_figures_of_the_last() -> None:
    batches = [make_batch(8, seed=seed) for seed in range(3)]
    together, apart = make(), make()
    torch.manual_seed(1)
    figures = together.update(batches)
    torch.manual_seed(1)
    for batch in batches:
        expected = apart.update([batch])
    torch.testing.assert_close(figures, expected, rtol=0, atol=0)
    torch.testing.assert_close(together.state_dict()["loss"], apart.state_dict()["loss"], rtol=0, atol=0)
    assert together.updates == 3


def test_critics_are_evaluated_as_often_as_needed() -> None:
    learner, calls = make(), []
    learner.loss.target_qvalue_network.register_forward_hook(lambda *_: calls.append("target"))
    learner.critic.register_forward_hook(lambda *_: calls.append("critic"))
    learner.update([make_batch(8)])
    assert calls == ["critic", "target", "critic"]


def test_hooks() -> None:
    """A replaced V(s') reaches the critics, a further term the policy, at the scale of the mean loss."""
    batch = make_batch(16)
    batch["next", "reward"].zero_()
    plain, hooked = make(discount=1.0, weight_decay=0.0), make(discount=1.0, weight_decay=0.0)
    hooked.next_value = lambda rows: torch.full(rows.shape, 100.0)
    hooked.actor_term = lambda rows: 7.0 + 0.0 * hooked.policy[0].module.log_std.sum()
    torch.manual_seed(0)
    before = plain.update([batch])
    torch.manual_seed(0)
    after = hooked.update([batch])
    alive = (~batch["next", "terminated"]).float().mean()
    torch.testing.assert_close(after["loss/critic"], 2 * 1e4 * alive, rtol=0.05, atol=0)
    again = make(discount=1.0, weight_decay=0.0)
    again.next_value = hooked.next_value
    torch.manual_seed(0)
    torch.testing.assert_close(after["loss/actor"], again.update([batch])["loss/actor"] + 7)
    assert before["loss/critic"] < 1e3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lambda": 1.0}, "'lambda' is not known"),
        ({"lam": 0.0}, r"lam must be a number in \(0, inf\), found 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"weighting": "max"}, "weighting is 'max'"),
        ({"num_critics": 0}, "num_critics must be a whole number"),
    ],
)
def test_wrong_configurations_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**config)


def test_policy_can_be_exported() -> None:
    learner = make()
    exported = gaussian_mlp_from_actor(learner.policy)  # compares itself with the policy
    std = exported.distribution(np.zeros((1, OBSERVATION_DIM), dtype=np.float32))[1]
    np.testing.assert_allclose(std, np.exp(-3.0), rtol=1e-5)
