"""The IQL learner takes the original's steps, exactly."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.algorithms import IQLConfig, IQLLearner, make_learner
from o3f.errors import ConfigError
from o3f.modules import EnsembleQValue, OptimisticActor
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, double_precision, make_batch
from tests.support.iql_oracle import Network, Oracle
from tests.support.oracle_cases import numpy_critics, numpy_layers, rows

SIZES = {"observation_dim": OBSERVATION_DIM, "action_dim": ACTION_DIM}


def make(**config: Any) -> IQLLearner:
    torch.manual_seed(0)
    learner = make_learner("iql", OBSERVATION_DIM, ACTION_DIM, {"hidden_sizes": [8, 8], **config})
    assert isinstance(learner, IQLLearner)
    return learner


def oracle_of(learner: IQLLearner) -> Oracle:
    config = learner.config
    gaussian = learner.policy[0].module
    assert isinstance(learner.critic, EnsembleQValue)
    return Oracle(
        value=numpy_layers(learner.loss.value_network.module),
        policy=numpy_layers(gaussian.mean),
        log_std=gaussian.log_std.detach().numpy().copy(),
        critics=numpy_critics(learner.critic),
        expectile=config.expectile,
        temperature=config.temperature,
        discount=config.discount,
        tau=config.tau,
        rate=config.learning_rate,
        actor_decay_steps=config.actor_decay_steps,
    )


def all_layers(oracle: Oracle) -> Network:
    networks = [oracle.value, oracle.policy, *oracle.critics, *oracle.targets]
    return [layer for network in networks for layer in network]


def assert_networks_agree(learner: IQLLearner, oracle: Oracle) -> None:
    twin = oracle_of(learner)
    twin.targets = numpy_critics(learner.loss.target_qvalue_network)
    for found, expected in zip(all_layers(twin), all_layers(oracle), strict=True):
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(twin.log_std, oracle.log_std, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "config",
    [
        {"num_critics": 2},
        {"num_critics": 5, "layer_norm": True, "expectile": 0.9, "temperature": 10.0},
        {"num_critics": 5, "discount": 0.95, "tau": 0.1, "learning_rate": 3e-3, "actor_decay_steps": 4},
        {"num_critics": 2, "layer_norm": True, "temperature": 0.5, "init": "default", "learning_rate": 1e-2},
    ],
)
def test_equals_an_independent_implementation(config: dict[str, Any]) -> None:
    with double_precision():
        learner = make(**config)
        with torch.no_grad():  # one dimension inside the clip of log_std, one beyond it
            learner.policy[0].module.log_std.copy_(torch.tensor([-0.5, 2.3]))
        oracle = oracle_of(learner)
        for seed in range(6):
            batch = make_batch(7, seed=seed)
            batch["next", "reward"] *= 20.0  # some weights reach their cap
            figures = learner.update([batch])
            expected = oracle.update(rows(batch))
            for name, value in expected.items():
                assert figures[name].item() == pytest.approx(value, rel=1e-8, abs=1e-10), (seed, name)
            assert_networks_agree(learner, oracle)
        assert oracle.updates == learner.updates == 6


def test_float32_stays_close_to_the_independent_implementation() -> None:
    learner = make(num_critics=5)
    oracle = oracle_of(learner)
    for seed in range(5):
        batch = make_batch(16, seed=seed)
        figures, expected = learner.update([batch]), oracle.update(rows(batch))
        for name in expected:
            assert figures[name].item() == pytest.approx(expected[name], rel=1e-4, abs=1e-5)


def test_one_step_per_batch_and_figures_of_the_last() -> None:
    batches = [make_batch(8, seed=seed) for seed in range(3)]
    together, apart = make(), make()
    figures = together.update(batches)
    for batch in batches:
        expected = apart.update([batch])
    torch.testing.assert_close(figures, expected, rtol=0, atol=0)
    torch.testing.assert_close(together.state_dict()["loss"], apart.state_dict()["loss"], rtol=0, atol=0)
    assert together.updates == 3


def test_target_critics_are_evaluated_once_per_step() -> None:
    learner, calls = make(), []
    learner.loss.target_qvalue_network.register_forward_hook(lambda *_: calls.append("target"))
    learner.critic.register_forward_hook(lambda *_: calls.append("critic"))
    learner.update([make_batch(8)])
    assert calls == ["target", "critic"]


@pytest.mark.parametrize(("flag", "differs"), [("truncated", False), ("done", False), ("terminated", True)])
def test_only_termination_stops_the_bootstrap(flag: str, differs: bool) -> None:
    quiet, flagged = make_batch(8), make_batch(8)
    for batch in (quiet, flagged):
        for name in ("terminated", "truncated", "done"):
            batch["next", name] = torch.zeros(8, 1, dtype=torch.bool)
    flagged["next", flag] = torch.ones(8, 1, dtype=torch.bool)
    results = [make().update([batch])["loss/critic"].item() for batch in (quiet, flagged)]
    assert (results[0] != results[1]) == differs


def test_actor_rate_follows_half_a_cosine() -> None:
    learner = make(actor_decay_steps=4, learning_rate=1e-3)
    rates = []
    for _ in range(6):
        learner.update([make_batch(4)])
        rates.append([group["lr"] for group in learner.optimisers["rest"].param_groups])
    assert [actor for actor, _ in rates] == pytest.approx(
        [1e-3, 8.535534e-4, 5e-4, 1.464466e-4, 0.0, 0.0], rel=1e-6, abs=1e-12
    )
    assert {critic for _, critic in rates} == {1e-3}


def test_dropout_is_for_training_alone() -> None:
    learner = make(actor_dropout=0.5)
    assert not learner.policy.training
    losses = {learner.loss.actor_loss(make_batch(8))[0].item() for _ in range(3)}
    assert len(losses) == 1
    states = []
    for seed in (1, 1, 2):
        twin = copy.deepcopy(learner.state_dict())
        other = make(actor_dropout=0.5)
        other.load_state_dict(twin)
        torch.manual_seed(seed)
        states.append(other.update([make_batch(8)])["loss/actor"].item())
        assert not other.policy.training
    assert states[0] == states[1] != states[2]


# ---------------------------------------------------------------------------------------------------- acting


def test_acting_sees_the_newest_critics_and_policy() -> None:
    learner = make()
    actor = OptimisticActor(learner.policy, learner.critic, num_candidates=4)
    td, candidates = make_batch(3).select("observation"), torch.rand(3, 4, ACTION_DIM) * 2 - 1
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        before = actor.score(td.clone(), candidates), learner.policy(td.clone())["action"]
        learner.update([make_batch(32)])
        after = actor.score(td.clone(), candidates), learner.policy(td.clone())["action"]
    assert all((old - new).abs().min() > 0 for old, new in zip(before, after, strict=True))


# -------------------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"expectle": 0.8}, r"'expectle' is not known\. Did you mean expectile"),
        ({"expectile": 1.0}, r"expectile must be a number in \(0, 1\), found 1.0"),
        ({"num_critics": 0}, "num_critics must be a whole number"),
        ({"discount": 1.1}, "discount must be"),
        ({"actor_decay_steps": 0}, "actor_decay_steps must be"),
        ({"subset_size": 9, "aggregation": "subset"}, "subset_size is 9; expected 1 to 5"),
    ],
)
def test_wrong_configurations_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**config)


def test_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'iqll' is not known\. Did you mean iql"):
        make_learner("iqll", 3, 2, {})


def test_configuration_reaches_the_networks() -> None:
    learner = IQLLearner(**SIZES, config=IQLConfig(hidden_sizes=(4, 6, 7), num_critics=3, layer_norm=True))
    assert isinstance(learner.critic, EnsembleQValue)
    assert [tuple(w.shape) for w in learner.critic.weights] == [(3, 5, 4), (3, 4, 6), (3, 6, 7), (3, 7, 1)]
    assert len(learner.critic.norm_weights) == 3
    assert not any(isinstance(part, nn.LayerNorm) for part in learner.loss.value_network.modules())
    gram = learner.critic.weights[1][0] @ learner.critic.weights[1][0].T
    torch.testing.assert_close(gram, 2 * torch.eye(4), atol=1e-5, rtol=1e-5)
    assert learner.loss.critic is learner.critic
