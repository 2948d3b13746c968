"""The SAC learner minimises the published losses, tunes its temperature and learns."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torchrl.objectives
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import SoftUpdate

from o3f.algorithms import CQLLearner, SACLearner, make_learner
from o3f.algorithms.guarded_adam import minimise
from o3f.errors import ConfigError
from o3f.modules import EnsembleQValue
from o3f.objectives import SACLoss
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, double_precision, make_batch, separate_critics


def make(**config: Any) -> SACLearner:
    torch.manual_seed(0)
    learner = make_learner("sac", OBSERVATION_DIM, ACTION_DIM, {"hidden_sizes": [8, 8], **config})
    assert isinstance(learner, SACLearner)
    return learner


def sample(learner: SACLearner, observation: Tensor) -> tuple[Tensor, Tensor]:
    """Action and log-density of the squashed Gaussian, written out; draws what SACLoss draws."""
    output = learner.policy[0].module.network(observation)
    loc, std = output[:, :ACTION_DIM], output[:, ACTION_DIM:].clamp(-5, 2).exp()
    noise = torch.normal(torch.zeros_like(loc), torch.ones_like(std))
    before = loc + std * noise
    density = -0.5 * noise**2 - std.log() - 0.5 * math.log(2 * math.pi)
    return before.tanh(), (density - torch.log(1 - before.tanh() ** 2)).sum(-1)


def smallest(critic: Any, observation: Tensor, action: Tensor) -> Tensor:
    td = TensorDict({"observation": observation, "action": action}, observation.shape[:1])
    return critic(td)["state_action_value"].min(-1).values


@pytest.mark.parametrize("num_critics", [2, 3])
def test_losses_of_one_step(num_critics: int) -> None:
    with double_precision(), torch.no_grad():
        learner, batch = make(num_critics=num_critics, discount=0.9), make_batch(32)
        target = copy.deepcopy(learner.critic)
        alpha = 0.3
        learner.loss.log_alpha.fill_(math.log(alpha))
        torch.manual_seed(5)
        next_observation = batch["next", "observation"]
        next_action, next_log_prob = sample(learner, next_observation)
        bootstrap = smallest(target, next_observation, next_action) - alpha * next_log_prob
        alive = (~batch["next", "terminated"]).squeeze(-1).double()
        y = batch["next", "reward"].squeeze(-1) + 0.9 * alive * bootstrap
        q = learner.critic(batch.clone())["state_action_value"]
        loss_critic = ((q - y.unsqueeze(-1)) ** 2).sum(-1).mean()
        action, log_prob = sample(learner, batch["observation"])
        loss_alpha = (-math.log(alpha) * (log_prob - ACTION_DIM)).mean()
        torch.manual_seed(5)
        with torch.enable_grad():
            figures = learner.update([batch])
        # The policy's step comes after the critics', and sees the new ones.
        loss_actor = (alpha * log_prob - smallest(learner.critic, batch["observation"], action)).mean()
        expected = {"loss/critic": loss_critic, "loss/actor": loss_actor, "loss/temperature": loss_alpha}
        expected |= {"temperature": torch.tensor(alpha), "entropy": -log_prob.mean()}
        expected |= {"critic/mean": q.mean(), "critic/std": q.std(-1, correction=0).mean()}
        torch.testing.assert_close(figures, expected, rtol=1e-6, atol=1e-8)


def test_gradients_equal_torchrl() -> None:
    with double_precision():
        learner, batch = make(num_critics=3), make_batch(16)
        assert isinstance(learner.critic, EnsembleQValue)
        critics = separate_critics(learner.critic)
        twin = torchrl.objectives.SACLoss(
            learner.policy, critics, num_qvalue_nets=3, loss_function="l2", target_entropy=-2.0
        )
        for loss in (twin, learner.loss):
            SoftUpdate(loss, tau=0.005)
        weights = learner.critic.weights[0], twin.qvalue_network_params["module", "0", "weight"]
        found = []
        for loss, weight in zip((learner.loss, twin), weights, strict=True):
            torch.manual_seed(1)
            output = loss(batch.clone())
            total = output["loss_qvalue"] + output["loss_actor"] + output["loss_alpha"]
            found.append(torch.autograd.grad(total, [*learner.policy.parameters(), loss.log_alpha, weight]))
        torch.testing.assert_close(found[0][:-1], found[1][:-1])
        torch.testing.assert_close(found[0][-1], found[1][-1].mT)


@pytest.mark.parametrize(
    ("log_std", "target", "direction"),
    [(-4.0, None, 1), (1.0, None, -1), (-4.0, -100.0, -1), (-1.0, 1.0, 1)],  # None is -A = -2
)
def test_temperature_seeks_the_target_entropy(log_std: float, target: float | None, direction: int) -> None:
    learner = make(target_entropy=target)
    with torch.no_grad():  # a policy far below or above the entropy of -A, whatever the observation
        last = learner.policy[0].module.network[-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0] * ACTION_DIM + [log_std] * ACTION_DIM))
    before = learner.update([make_batch(64)])
    after = learner.update([make_batch(64)])
    assert (before["entropy"] < (-ACTION_DIM if target is None else target)) == (direction == 1)
    assert math.copysign(1, after["temperature"].item() - before["temperature"].item()) == direction


def test_targets_follow_by_tau() -> None:
    learner = make(tau=0.1)
    learner.loss.update_targets(0.0)  # says that the targets are taken care of
    before = {name: value.clone() for name, value in learner.loss.target_qvalue_network_params.items(True, True)}
    learner.update([make_batch(8)])
    for name, value in learner.loss.target_qvalue_network_params.items(True, True):
        trained = learner.loss.qvalue_network_params[name]
        torch.testing.assert_close(value, before[name] + 0.1 * (trained - before[name]))


def test_critic_is_the_trained_one() -> None:
    learner, batch = make(num_critics=3), make_batch(8)
    before = learner.critic(batch.clone())["state_action_value"]
    assert before.shape == (8, 3)
    learner.update([batch])
    assert {id(p) for p in learner.critic.parameters()} <= {id(p) for p in learner.loss.parameters()}
    assert (learner.critic(batch.clone())["state_action_value"] - before).abs().min() > 0


def test_solves_a_bandit() -> None:
    # Each episode lasts one step and pays a_0 - a_1: the best action is (1, -1) everywhere.
    learner = make(hidden_sizes=[32], learning_rate=1e-2)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert learner.policy(make_batch(64))["action"].abs().max() < 0.8
    for seed in range(80):
        batch = make_batch(64, seed=seed)
        batch["next", "reward"] = 10 * (batch["action"][:, :1] - batch["action"][:, 1:])
        batch["next", "terminated"] = torch.ones(64, 1, dtype=torch.bool)
        learner.update([batch])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        action = learner.policy(make_batch(64))["action"]
    assert action[:, 0].min() > 0.8
    assert action[:, 1].max() < -0.8


def test_policy_is_squashed_and_its_spread_bounded() -> None:
    learner, td = make(), make_batch(5)
    network = learner.policy[0].module.network
    with torch.no_grad():
        network[-1].bias.copy_(torch.tensor([0.0] * ACTION_DIM + [-50.0, 50.0]))
    distribution = learner.policy.get_dist(td)
    torch.testing.assert_close(distribution.scale, torch.tensor([math.exp(-5), math.exp(2)]).expand(5, 2))
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        action = learner.policy(td)["action"]
    torch.testing.assert_close(action, network(td["observation"])[:, :ACTION_DIM].tanh(), atol=1e-5, rtol=1e-5)
    assert learner.policy.spec["action"].is_in(action)


def test_loss_accepts_an_ensemble_of_any_size() -> None:
    learner = make()
    critic = EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, 5, (8,))
    loss = SACLoss(learner.policy, critic, target_entropy=-2.0)
    assert {id(p) for p in critic.parameters()} <= {id(p) for p in loss.parameters()}


# ------------------------------------------------------------------------------------------- options and ratios


@pytest.mark.parametrize(
    "config",
    [
        {"num_critics": 5, "aggregation": "mean"},
        {"num_critics": 5, "actor_aggregation": "mean"},
        {"entropy_backup": False},
        {"num_critics": 3, "layer_norm": True, "actor_layer_norm": True, "init": "orthogonal"},
    ],
)
def test_options_change_what_they_say(config: dict[str, Any]) -> None:
    with double_precision(), torch.no_grad():
        learner, batch, alpha = make(**config), make_batch(16), 0.3
        learner.loss.log_alpha.fill_(math.log(alpha))
        for target in learner.loss.target_qvalue_network.parameters():
            target.mul_(0.5)

        def aggregated(critic: Any, observation: Tensor, action: Tensor, rule: str) -> Tensor:
            td = TensorDict({"observation": observation, "action": action}, observation.shape[:1])
            values = critic(td)["state_action_value"]
            return values.mean(-1) if rule == "mean" else values.min(-1).values

        torch.manual_seed(5)
        following = batch["next", "observation"]
        next_action, next_log_prob = sample(learner, following)
        rule = config.get("aggregation", "min")
        value = aggregated(learner.loss.target_qvalue_network, following, next_action, rule)
        value = value - alpha * next_log_prob if config.get("entropy_backup", True) else value
        action, log_prob = sample(learner, batch["observation"])
        rise = aggregated(learner.critic, batch["observation"], action, config.get("actor_aggregation", "min"))
        torch.manual_seed(5)
        torch.testing.assert_close(learner.loss.next_state_value(batch), value, rtol=1e-6, atol=1e-8)
        loss_actor = learner.loss.actor_loss(batch)[0]
        torch.testing.assert_close(loss_actor, (alpha * log_prob - rise).mean(), rtol=1e-6, atol=1e-8)


def test_layer_norm_is_where_it_is_asked_for() -> None:
    for critics, policy in ((True, False), (False, True)):
        learner = make(layer_norm=critics, actor_layer_norm=policy)
        assert isinstance(learner.critic, EnsembleQValue)
        assert len(learner.critic.norm_weights) == (2 if critics else 0)
        assert sum(isinstance(part, nn.LayerNorm) for part in learner.policy.modules()) == (2 if policy else 0)
    gram = make(init="orthogonal").policy[0].module.network[0].weight
    torch.testing.assert_close(gram.T @ gram, 2 * torch.eye(OBSERVATION_DIM), atol=1e-5, rtol=1e-5)


def test_several_batches_serve_the_critics_and_the_last_one_all() -> None:
    batches = [make_batch(8, seed=seed) for seed in range(4)]
    together, apart = make(num_critics=4, aggregation="subset"), make(num_critics=4, aggregation="subset")
    policy = copy.deepcopy(apart.policy.state_dict())
    torch.manual_seed(1)
    together.update(batches)
    assert together.updates == 4
    torch.manual_seed(1)
    for batch in batches[:-1]:  # critics and targets alone
        minimise(apart.loss.qvalue_loss(batch)[0], apart.optimisers["critic"])
        apart.loss.update_targets(apart.config.tau)
    torch.testing.assert_close(apart.policy.state_dict(), policy, rtol=0, atol=0)
    apart.update(batches[-1:])
    torch.testing.assert_close(together.state_dict()["loss"], apart.state_dict()["loss"], rtol=0, atol=0)
    assert apart.loss.log_alpha.item() != 0


def test_hooks() -> None:
    batch = make_batch(16)
    plain, hooked = make(), make()
    hooked.next_value = lambda rows: torch.full(rows.shape, 1e3)
    hooked.actor_term = lambda rows: 7.0 + 0.0 * next(hooked.policy.parameters()).sum()
    torch.manual_seed(0)
    drawn = plain.loss.draw(batch)
    torch.manual_seed(0)  # V(s') is given: the first draw is the policy's own
    figures = hooked.update([batch])
    plain.critic.load_state_dict(hooked.critic.state_dict())  # the policy's step sees the new critics
    expected = plain.loss.actor_loss(batch, drawn)[0]
    torch.testing.assert_close(figures["loss/actor"], expected.detach() + 7)
    alive = (~batch["next", "terminated"]).float().mean()
    torch.testing.assert_close(figures["loss/critic"], 2 * (0.99 * 1e3) ** 2 * alive, rtol=0.02, atol=0)


def test_entropy_weight_is_that_of_the_targets() -> None:
    assert make(entropy_backup=False).entropy_weight is None
    assert make().entropy_weight == pytest.approx(1.0)


# ------------------------------------------------------------------------------------------- starting from CQL


def trained_cql(**config: Any) -> CQLLearner:
    torch.manual_seed(1)
    options = {"hidden_sizes": [8, 8], "num_random": 2, "lagrange": "weighted_gap", **config}
    learner = make_learner("cql", OBSERVATION_DIM, ACTION_DIM, options)
    assert isinstance(learner, CQLLearner)
    for seed in range(3):
        learner.update([make_batch(8, seed=seed)])
    return learner


def target_values(learner: Any) -> Tensor:
    values: Tensor = learner.loss.target_qvalue_network(make_batch(8))["state_action_value"].clone()
    return values


@pytest.mark.parametrize("copy_targets", [False, True])
@pytest.mark.parametrize("copy_optimisers", [False, True])
def test_starts_from_a_cql_run(copy_targets: bool, copy_optimisers: bool) -> None:
    source, learner = trained_cql(), make()
    fresh_targets = target_values(learner)
    learner.start_from(source.state_dict(), copy_targets=copy_targets, copy_optimisers=copy_optimisers)
    batch = make_batch(8)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        torch.testing.assert_close(learner.policy(batch.clone()), source.policy(batch.clone()), rtol=0, atol=0)
    values = [x.critic(batch.clone())["state_action_value"] for x in (learner, source)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)
    expected_targets = target_values(source) if copy_targets else fresh_targets
    torch.testing.assert_close(target_values(learner), expected_targets, rtol=0, atol=0)
    assert learner.loss.log_alpha.item() == (source.loss.log_alpha.item() if copy_optimisers else 0.0)
    assert source.loss.log_alpha.item() != 0
    for name, optimiser in learner.optimisers.items():
        state = optimiser.state_dict()
        assert state["param_groups"][0]["lr"] == 3e-4
        if copy_optimisers:
            torch.testing.assert_close(state["state"], source.optimisers[name].state_dict()["state"])
        else:
            assert state["state"] == {}
    assert learner.updates == 0


def test_learner_and_source_do_not_share_what_was_copied() -> None:
    source, learner = trained_cql(), make()
    state = source.state_dict()
    before = copy.deepcopy(state)
    learner.start_from(state, copy_targets=True, copy_optimisers=True)
    learner.update([make_batch(8)])
    torch.testing.assert_close(source.state_dict(), before, rtol=0, atol=0)


def test_fresh_targets_follow_with_a_half_life_of_139_updates() -> None:
    learner = make()
    learner.loss.update_targets(0.0)
    learner.start_from(trained_cql().state_dict(), copy_targets=False, copy_optimisers=False)
    names = [("weights", "0"), ("biases", "2")]
    gaps = []
    for _ in range(140):
        pairs = [(learner.loss.target_qvalue_network_params[n], learner.loss.qvalue_network_params[n]) for n in names]
        gaps.append([(a - b).norm().item() for a, b in pairs])
        learner.loss.update_targets(0.005)
    assert gaps[139] == pytest.approx([gap * 0.995**139 for gap in gaps[0]], rel=1e-3)
    assert gaps[139] == pytest.approx([gap / 2 for gap in gaps[0]], rel=5e-3)


@pytest.mark.parametrize(
    "config", [{"hidden_sizes": [8, 9]}, {"num_critics": 3}, {"layer_norm": True}, {"hidden_sizes": [8, 8, 8]}]
)
def test_networks_of_another_size_are_refused(config: dict[str, Any]) -> None:
    for source, learner in ((trained_cql(**config), make()), (trained_cql(), make(**config))):
        before = copy.deepcopy(learner.state_dict())
        with pytest.raises(ConfigError, match=r"The networks to start from are not those of this learner: .*network"):
            learner.start_from(source.state_dict(), copy_targets=True, copy_optimisers=True)
        torch.testing.assert_close(learner.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [
        {"temperature": 1.0},
        {"tau": 0.0},
        {"num_critics": 1.5},
        {"aggregation": "max"},
        {"actor_aggregation": "subset"},
    ],
)
def test_wrong_configurations_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(config))}"):
        make(**config)
