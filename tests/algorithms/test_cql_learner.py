"""The CQL learner takes d3rlpy's steps, exactly."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from o3f.algorithms import CQLLearner, make_learner
from o3f.modules import EnsembleQValue
from tests.support.actor_critic_oracle import CQLOracle, Draws
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, double_precision, make_batch
from tests.support.oracle_cases import assert_networks_equal, normal, numpy_critics, numpy_layers, rows

SIZE = 5


def make(**config: Any) -> CQLLearner:
    torch.manual_seed(0)
    learner = make_learner("cql", OBSERVATION_DIM, ACTION_DIM, {"hidden_sizes": [7, 6], "num_random": 2, **config})
    assert isinstance(learner, CQLLearner)
    return learner


def draws_of(learner: CQLLearner) -> Draws:
    """What the next update of one batch draws, in its order."""
    n = learner.config.num_random
    return Draws(
        action=normal(SIZE, ACTION_DIM),
        proposals=normal(n, 2, SIZE, ACTION_DIM),
        uniform=2 * torch.rand(SIZE, n, ACTION_DIM).numpy() - 1,
        next_action=normal(SIZE, ACTION_DIM) if learner.config.backup == "sample" else None,
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"lagrange": "weighted_gap", "num_random": 3, "lagrange_learning_rate": 0.1},
        {
            "lagrange": "weighted_excess",
            "lagrange_threshold": 0.5,
            "gap_reduction": "sum",
            "num_critics": 3,
            "lagrange_learning_rate": 0.1,
        },
        {
            "backup": "sample",
            "entropy_backup": True,
            "aggregation": "mean",
            "actor_aggregation": "mean",
            "num_critics": 3,
            "temperature_learning_rate": 0.1,
            "conservative_weight": 0.7,
        },
        {"layer_norm": True, "discount": 0.9, "tau": 0.1, "actor_learning_rate": 3e-3, "critic_learning_rate": 1e-2},
    ],
)
def test_equals_an_independent_implementation(config: dict[str, Any]) -> None:
    with double_precision():
        learner = make(**config)
        network = learner.policy[0].module.network
        with torch.no_grad():  # one standard deviation beyond its bounds in some states
            network[-1].bias[-1] = -5.0
        assert isinstance(learner.critic, EnsembleQValue)
        oracle = CQLOracle(numpy_layers(network), numpy_critics(learner.critic), learner.config)
        for seed in range(4):
            batch = make_batch(SIZE, seed=seed)
            torch.manual_seed(seed)
            draws = draws_of(learner)
            torch.manual_seed(seed)
            figures = learner.update([batch])
            expected = oracle.update(rows(batch), draws)
            assert figures.keys() - expected.keys() == {"critic/mean", "critic/std"}
            for name, number in expected.items():
                assert figures[name].item() == pytest.approx(number, rel=1e-8, abs=1e-10), (seed, name)
            assert_networks_equal(numpy_layers(network), oracle.policy)
            for found, other in (
                (learner.critic, oracle.critics),
                (learner.loss.target_qvalue_network, oracle.targets),
            ):
                for one, twin in zip(numpy_critics(found), other, strict=True):
                    assert_networks_equal(one, twin)
            assert learner.loss.log_alpha.item() == pytest.approx(oracle.scalars["alpha"], rel=1e-8)
            if learner.config.lagrange:
                assert learner.loss.log_multiplier.item() == pytest.approx(oracle.scalars["multiplier"], rel=1e-8)


def test_defaults_are_d3rlpys() -> None:
    learner = make_learner("cql", OBSERVATION_DIM, ACTION_DIM, {})
    assert isinstance(learner, CQLLearner)
    rates = {name: optimiser.param_groups[0]["lr"] for name, optimiser in learner.optimisers.items()}
    assert rates == {"critic": 3e-4, "actor": 1e-4, "temperature": 1e-4}
    assert make(lagrange="weighted_gap").optimisers["lagrange"].param_groups[0]["lr"] == 1e-4
    loss = learner.loss
    assert (loss.conservative_weight.item(), loss.lagrange_threshold.item(), loss.num_random) == (5, 10, 10)
    assert (loss.lagrange, loss.gap_reduction, loss.backup, loss.entropy_backup) == (
        None,
        "mean",
        "deterministic",
        False,
    )
    assert loss.target_entropy.item() == -ACTION_DIM
    assert learner.coefficients.keys() == {"conservative_weight", "target_entropy"}
    assert make(lagrange="weighted_gap").coefficients.keys() == {*learner.coefficients, "lagrange_threshold"}
    assert isinstance(learner.critic, EnsembleQValue)
    assert [tuple(w.shape) for w in learner.critic.weights] == [(2, 5, 256), (2, 256, 256), (2, 256, 256), (2, 256, 1)]


def test_several_batches_serve_the_critics_and_the_last_one_all() -> None:
    batches = [make_batch(8, seed=seed) for seed in range(3)]
    learner = make(lagrange="weighted_gap")
    policy, temperature = copy.deepcopy(learner.policy.state_dict()), learner.loss.log_alpha.item()
    learner.update(batches)
    assert {name: int(next(iter(o.state.values()))["step"]) for name, o in learner.optimisers.items()} == {
        "critic": 3,
        "lagrange": 3,
        "actor": 1,
        "temperature": 1,
    }
    assert learner.updates == 3
    assert learner.loss.log_alpha.item() != temperature
    changed = [not torch.equal(policy[name], value) for name, value in learner.policy.state_dict().items()]
    assert any(changed)


def test_one_evaluation_of_the_critics_serves_proposals_and_data() -> None:
    learner, calls = make(lagrange="weighted_gap"), []
    learner.critic.register_forward_hook(lambda _, __, output: calls.append(tuple(output["action"].shape)))
    learner.update([make_batch(8)])
    assert calls == [(8, 7, ACTION_DIM), (8, ACTION_DIM)]  # critics, then the policy's own action


@pytest.mark.parametrize(
    ("threshold", "direction"),
    [(1e3, -1), (-1e3, 1)],  # far above and far below any gap
)
@pytest.mark.parametrize("form", ["weighted_gap", "weighted_excess"])
def test_the_multiplier_grows_while_the_gap_exceeds_its_threshold(form: str, threshold: float, direction: int) -> None:
    learner = make(lagrange=form, lagrange_threshold=threshold)
    learner.update([make_batch(16)])
    assert math.copysign(1, learner.loss.log_multiplier.item()) == direction


@pytest.mark.parametrize(("form", "thresholds"), [("weighted_gap", (40.0, 5.0)), ("weighted_excess", (8.0, 1.0))])
def test_a_lower_threshold_is_more_conservative(form: str, thresholds: tuple[float, float]) -> None:
    """Lowering the threshold raises the multiplier and closes the gap: the opposite of relaxing."""
    found = []
    for threshold in thresholds:
        rates = {"lagrange_learning_rate": 0.05, "critic_learning_rate": 0.01}
        learner = make(lagrange=form, lagrange_threshold=threshold, hidden_sizes=[32, 32], **rates)
        for seed in range(60):
            batch = make_batch(32, seed=seed)
            batch["action"].mul_(0.1)  # data that a critic can tell from proposals
            figures = learner.update([batch])
        found.append((figures["cql/multiplier"].item(), figures["cql/gap"].item()))
    (loose_multiplier, loose_gap), (tight_multiplier, tight_gap) = found
    assert tight_multiplier > 2 * loose_multiplier
    assert tight_gap < loose_gap - 0.3


def test_hooks() -> None:
    batch = make_batch(16)
    plain, hooked = make(conservative_weight=0.0), make(conservative_weight=0.0)
    hooked.next_value = lambda rows: torch.full(rows.shape, 1e3)
    hooked.actor_term = lambda rows: 7.0 + 0.0 * next(hooked.policy.parameters()).sum()
    results = []
    for learner in (plain, hooked):
        torch.manual_seed(0)
        results.append(learner.update([batch]))
    alive = (~batch["next", "terminated"]).float().mean()
    torch.testing.assert_close(results[1]["loss/critic"], 2 * (0.99 * 1e3) ** 2 * alive, rtol=0.02, atol=0)
    assert results[1]["loss/actor"] - results[0]["loss/actor"] == pytest.approx(7.0, abs=0.1)


def test_entropy_weight_is_that_of_the_targets() -> None:
    assert make().entropy_weight is None
    learner = make(backup="sample", entropy_backup=True)
    with torch.no_grad():
        learner.loss.log_alpha.fill_(math.log(0.25))
    assert learner.entropy_weight == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"alpha": 5.0}, "'alpha' is not known"),
        ({"conservative_weight": -1.0}, r"conservative_weight must be a number in \[0, inf\), found -1.0"),
        ({"num_random": 0}, "num_random must be a whole number"),
        ({"lagrange_learning_rate": 0.0}, "lagrange_learning_rate must be"),
        ({"lagrange": "gap"}, "lagrange is 'gap'"),
        ({"entropy_backup": True}, "entropy_backup needs backup='sample'"),
    ],
)
def test_wrong_configurations_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**config)
