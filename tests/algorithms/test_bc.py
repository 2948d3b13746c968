"""Behaviour cloning is maximum likelihood, and its critics are still trained."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.algorithms import BCConfig, IQLLearner, make_learner
from o3f.errors import ConfigError
from o3f.modules import OptimisticActor
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, double_precision, make_batch
from tests.support.iql_oracle import Adam, Network, backward, forward, zeros_like
from tests.support.oracle_cases import assert_networks_equal, numpy_layers, rows


def make(**config: Any) -> IQLLearner:
    torch.manual_seed(0)
    learner = make_learner("bc", OBSERVATION_DIM, ACTION_DIM, {"hidden_sizes": [8, 8], **config})
    assert isinstance(learner, IQLLearner)
    return learner


def likelihood_step(
    policy: Network, log_std: np.ndarray, batch: list[dict[str, Any]], adams: tuple[Adam, Adam]
) -> tuple[float, np.ndarray]:
    """One step of Adam on the mean negative log-likelihood of the actions."""
    gradient, slope, loss, std = zeros_like(policy), np.zeros_like(log_std), 0.0, np.exp(log_std)
    for row in batch:
        output, tape = forward(policy, row["s"])
        score = (row["a"] - np.tanh(output)) / std
        loss += float(np.sum(0.5 * score**2 + log_std + 0.5 * np.log(2 * np.pi))) / len(batch)
        backward(policy, tape, -score / std * (1 - np.tanh(output) ** 2) / len(batch), gradient)
        slope += (1 - score**2) / len(batch)
    adams[0].step(policy, gradient)
    wrapped = [{"log_std": log_std}]
    adams[1].step(wrapped, [{"log_std": slope}])
    return loss, wrapped[0]["log_std"]


def test_is_maximum_likelihood() -> None:
    with double_precision():
        learner = make(learning_rate=1e-3)
        gaussian = learner.policy[0].module
        policy, log_std = numpy_layers(gaussian.mean), gaussian.log_std.detach().numpy().copy()
        adams = Adam(1e-3), Adam(1e-3)
        for seed in range(6):
            batch = make_batch(9, seed=seed)
            batch["next", "reward"] *= 50.0  # advantages that would matter
            figures = learner.update([batch])
            loss, log_std = likelihood_step(policy, log_std, rows(batch), adams)
            assert figures["loss/actor"].item() == pytest.approx(loss, rel=1e-8)
            assert figures["advantage/mean"].abs() > 1e-3
            assert_networks_equal(numpy_layers(gaussian.mean), policy)
            np.testing.assert_allclose(gaussian.log_std.detach(), log_std, rtol=1e-8)


def test_rewards_reach_the_critics_and_not_the_policy() -> None:
    first, second = make(), make()
    for seed in range(3):
        batch = make_batch(16, seed=seed)
        first.update([batch])
        richer = batch.clone()
        richer["next", "reward"] += 10.0
        second.update([richer])
    torch.testing.assert_close(first.policy.state_dict(), second.policy.state_dict(), rtol=0, atol=0)
    differ = [
        not torch.equal(*pair) for pair in zip(first.critic.parameters(), second.critic.parameters(), strict=True)
    ]
    assert all(differ)


def test_explores_with_its_critics() -> None:
    learner = make()
    actor = OptimisticActor(learner.policy, learner.critic, num_candidates=8)
    with set_exploration_type(ExplorationType.RANDOM):
        assert actor(make_batch(4).select("observation"))["action"].shape == (4, ACTION_DIM)


def test_equals_iql_at_temperature_zero() -> None:
    torch.manual_seed(0)
    twin = make_learner("iql", OBSERVATION_DIM, ACTION_DIM, {"hidden_sizes": [8, 8], "temperature": 0.0})
    learner, batch = make(), make_batch(8)
    torch.testing.assert_close(learner.update([batch]), twin.update([copy.deepcopy(batch)]), rtol=0, atol=0)


def test_temperature_is_fixed() -> None:
    assert BCConfig().temperature == 0
    with pytest.raises(ConfigError, match=r"temperature must be 0 in behaviour cloning, found 3\.0"):
        make(temperature=3.0)
    with pytest.raises(ConfigError, match="expectile must be"):
        make(expectile=2.0)
