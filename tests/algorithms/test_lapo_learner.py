"""The LAPO learner takes the original's steps, exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from o3f.algorithms import LAPOLearner, make_learner
from o3f.errors import ConfigError
from o3f.modules import EnsembleQValue, OptimisticActor
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, double_precision, make_batch
from tests.support.lapo_oracle import Batch, Network, Oracle

ORIGINAL = {"num_critics": 2, "subset_size": None, "actor_aggregation": "first", "value_clamp": "fixed"}


def make(*, prepared: bool = True, **config: Any) -> LAPOLearner:
    torch.manual_seed(0)
    learner = make_learner("lapo", OBSERVATION_DIM, ACTION_DIM, {"hidden_sizes": [8, 8], **config})
    assert isinstance(learner, LAPOLearner)
    if prepared:
        learner.prepare(dataset())
    return learner


def dataset() -> TensorDict:
    rows = make_batch(40, seed=99)
    rows["observation"] = rows["observation"] * torch.tensor([2.0, 0.5, 1.0]) + torch.tensor([1.0, 0.0, -3.0])
    rows["action"] = 0.5 * rows["action"] + 0.2
    rows["next", "reward"] = rows["next", "reward"] / 2000  # so small that the clamp binds
    return rows


def batches(number: int, size: int = 7, start: int = 0) -> list[TensorDict]:
    return [make_batch(size, seed=start + index) for index in range(number)]


# ------------------------------------------------------------------------------------ the steps, by an oracle


def linear_layers(network: nn.Module) -> Network:
    linears = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [[linear.weight.detach().clone(), linear.bias.detach().clone()] for linear in linears]


def members(ensemble: EnsembleQValue) -> list[Network]:
    layers = list(zip(ensemble.weights, ensemble.biases, strict=True))
    return [
        [[weight[j].T.detach().clone(), bias[j, 0].detach().clone()] for weight, bias in layers]
        for j in range(ensemble.num_critics)
    ]


def plain(batch: TensorDict) -> Batch:
    return {
        "s": batch["observation"],
        "a": batch["action"],
        "r": batch["next", "reward"][:, 0],
        "next_s": batch["next", "observation"],
        "terminated": batch["next", "terminated"][:, 0].double(),
    }


def oracle_of(learner: LAPOLearner) -> Oracle:
    config, loss, rows = learner.config, learner.loss, dataset()
    assert isinstance(loss.critic, EnsembleQValue)
    statistics = [f(rows[name]) for name in ("observation", "action") for f in (population_mean, population_scale)]
    rewards = rows["next", "reward"]
    running = config.value_clamp == "running"
    return Oracle(
        actor=linear_layers(loss.actor_network),
        encoder=linear_layers(loss.encoder_network),
        decoder=linear_layers(loss.decoder_network),
        critics=members(loss.critic),
        value=linear_layers(loss.value_network),
        statistics=(statistics[0], statistics[1], statistics[2], statistics[3]),
        min_weight=config.min_weight,
        kl_weight=config.kl_weight,
        advantage_weight=config.advantage_weight,
        discount=config.discount,
        tau=config.tau,
        rate=config.learning_rate,
        max_latent=config.max_latent,
        first_only=config.actor_aggregation == "first",
        delay_value=config.delay_value,
        running=running,
        reward_min=min(0.0, float(rewards.min())) if running else float(rewards.min()),
        reward_max=max(0.0, float(rewards.max())) if running else float(rewards.max()),
    )


def population_mean(rows: Tensor) -> Tensor:
    return sum(rows) / len(rows)


def population_scale(rows: Tensor) -> Tensor:
    return (sum((rows - population_mean(rows)) ** 2) / len(rows)).sqrt() + 1e-6


def draws(learner: LAPOLearner, number: int, size: int) -> tuple[list[Tensor], list[list[int]], Tensor]:
    """The random numbers of one update, drawn once more in their order."""
    config = learner.config

    def subset() -> list[int]:
        order = torch.randperm(config.num_critics) if config.subset_size else torch.arange(config.num_critics)
        return order[: config.subset_size or config.num_critics].tolist()

    noise = torch.randn(number * size, 2 * ACTION_DIM)
    subsets = [subset() for _ in range(number + 1)]
    return list(noise.split(size)), subsets, torch.randn(size, 2 * ACTION_DIM)


def assert_networks_agree(learner: LAPOLearner, oracle: Oracle) -> None:
    loss = learner.loss
    pairs = [
        *[(linear_layers(getattr(loss, f"{name}_network")), getattr(oracle, name)) for name in ("actor", "encoder")],
        (linear_layers(loss.decoder_network), oracle.decoder),
        (linear_layers(loss.value_network), oracle.value),
        (linear_layers(loss.target_actor_network), oracle.target_actor),
        (linear_layers(loss.target_decoder_network), oracle.target_decoder),
        *zip(members(loss.critic), oracle.critics, strict=True),
        *zip(members(loss.target_qvalue_network), oracle.target_critics, strict=True),
    ]
    if learner.config.delay_value:
        pairs.append((linear_layers(loss.target_value_network), oracle.target_value))
    for found, expected in pairs:
        for ours, theirs in zip(found, expected, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, other.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("number", "config"),
    [
        (1, ORIGINAL),
        (1, {**ORIGINAL, "min_weight": 0.7, "kl_weight": 0.3, "tau": 0.1, "learning_rate": 1e-2}),
        (3, {"tau": 0.1, "learning_rate": 1e-2}),
        (3, {"num_critics": 4, "subset_size": 3, "min_weight": 0.7, "discount": 0.9, "advantage_weight": 0.7}),
        (2, {"delay_value": True, "tau": 0.2, "learning_rate": 3e-2, "init": "orthogonal", "max_latent": 1.0}),
    ],
)
def test_equals_an_independent_implementation(number: int, config: dict[str, Any]) -> None:
    with double_precision():
        learner = make(**config)
        oracle = oracle_of(learner)
        clamped = 0.0
        for step in range(4):
            block = batches(number, start=10 * step)
            torch.manual_seed(step)
            figures = learner.update(block)
            torch.manual_seed(step)
            expected = oracle.update([plain(batch) for batch in block], *draws(learner, number, 7))
            for name, value in expected.items():
                assert figures[name].item() == pytest.approx(value, rel=1e-9, abs=1e-11), (step, name)
            assert_networks_agree(learner, oracle)
            clamped += figures["value/clamped_share"].item()
        assert learner.updates == 4 * number
        assert clamped > 0 or config.get("value_clamp") != "fixed"


def test_float32_stays_close_to_the_independent_implementation() -> None:
    with double_precision():
        exact = make()
        oracle = oracle_of(exact)
    learner = make()
    learner.loss.load_state_dict(exact.loss.state_dict())
    for step in range(4):
        block = batches(3, start=10 * step)
        torch.manual_seed(step)
        figures = learner.update(block)
        torch.manual_seed(step)
        noises, subsets, vae_noise = draws(learner, 3, 7)
        rows = [{name: value.double() for name, value in plain(batch).items()} for batch in block]
        expected = oracle.update(rows, [noise.double() for noise in noises], subsets, vae_noise.double())
        for name, value in expected.items():
            assert figures[name].item() == pytest.approx(value, rel=1e-4, abs=1e-5), (step, name)


# -------------------------------------------------------------------------------------------- blocks and hooks


def test_twenty_critic_steps_to_one_of_the_policy() -> None:
    learner = make()
    learner.update(batches(20, size=4))
    assert learner.updates == 20
    steps = {
        name: {int(state["step"]) for state in optimiser.state.values()}
        for name, optimiser in learner.optimisers.items()
    }
    assert steps == {"critic": {20}, "policy": {1}}


def test_only_the_last_batch_trains_the_policy() -> None:
    found = []
    for first in (0, 50):
        learner = make(learning_rate=1e-30)  # the critics stay as they are
        block = [make_batch(7, seed=first), make_batch(7, seed=1)]
        torch.manual_seed(0)
        figures = learner.update(block)
        found.append({name: figures[name].item() for name in ("loss/vae", "loss/actor", "advantage/mean")})
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_next_value_replaces_the_bootstrap_of_the_critics_alone() -> None:
    plain_learner, hooked = make(), make()
    batch = make_batch(7)
    hooked.next_value = lambda rows: torch.full((len(rows),), 3.0)
    q = hooked.critic(batch.clone())["state_action_value"].detach()
    alive = (~batch["next", "terminated"]).float()
    target = batch["next", "reward"] + 0.99 * 3.0 * alive
    figures = []
    for learner in (plain_learner, hooked):
        torch.manual_seed(0)
        figures.append(learner.update([batch]))
    assert figures[1]["loss/critic"].item() == pytest.approx((q - target).square().sum(-1).mean().item(), rel=1e-5)
    assert figures[0]["loss/critic"] != figures[1]["loss/critic"]
    assert figures[0]["loss/value"] == figures[1]["loss/value"]


def test_actor_term_is_added_to_the_loss_of_the_actor_alone() -> None:
    learners = make(learning_rate=1e-2), make(learning_rate=1e-2)
    learners[1].actor_term = lambda rows: 100 * learners[1].policy(rows.clone())["action"].square().mean()
    before = learners[0].policy(make_batch(7))["action"].square().mean().item()
    figures = []
    for learner in learners:
        torch.manual_seed(0)
        figures.append(learner.update([make_batch(7)]))
    assert figures[1]["loss/actor"].item() == pytest.approx(figures[0]["loss/actor"].item() + 100 * before, rel=1e-5)
    for name in ("encoder", "decoder", "qvalue", "value"):
        found, expected = (
            dict(getattr(learner.loss, f"{name}_network_params").data.items(True, True)) for learner in learners
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    after = [learner.loss.actor_network.module.network[0].weight for learner in learners]
    assert not torch.equal(*after)


# ------------------------------------------------------------------------------------- what the dataset tells


def test_prepare_fits_networks_and_targets() -> None:
    learner, rows = make(), dataset()
    both = torch.cat([rows["observation"], rows["action"]], -1)
    for critic in (learner.loss.qvalue_network, learner.loss.target_qvalue_network):
        torch.testing.assert_close(critic.normaliser.loc, both.mean(0))
        torch.testing.assert_close(critic.normaliser.scale, both.std(0, correction=0) + 1e-6)
    for decoder in (learner.loss.decoder_network, learner.policy.decoder):
        torch.testing.assert_close(decoder.module.action_normaliser.loc, rows["action"].mean(0))
        torch.testing.assert_close(decoder.module.observation_normaliser.loc, rows["observation"].mean(0))
    state = learner.state_dict()["loss"]
    torch.testing.assert_close(state["target_qvalue_network_params.normaliser.loc"], both.mean(0))
    untouched = make(normalise=False)
    assert untouched.loss.critic.normaliser.scale.unique().tolist() == [1.0]
    assert untouched.loss.value_clamp.reward_max == learner.loss.value_clamp.reward_max > 0


def test_statistics_are_no_parameters() -> None:
    learner = make(learning_rate=0.1, tau=0.5)
    state = learner.state_dict()["loss"]
    before = {name: value.clone() for name, value in state.items() if name.endswith((".loc", ".scale"))}
    learner.update(batches(3))
    after = learner.state_dict()["loss"]
    assert len(before) == 2 * (2 + 1 + 2 * 2 + 2 + 1)  # actors, encoder, decoders, critics, V
    for name, value in before.items():
        assert torch.equal(after[name], value)


# ---------------------------------------------------------------------------------------------------- acting


def test_acts_with_the_actor_as_it_is_and_the_target_decoder() -> None:
    learner = make(learning_rate=1e-2)
    learner.update(batches(3))
    td = make_batch(5).select("observation")
    latent = learner.loss.actor_network(td.clone())["latent"]
    actions = {
        name: getattr(learner.loss, name)(td.clone().set("latent", latent))["action"]
        for name in ("decoder_network", "target_decoder_network")
    }
    found = learner.policy(td.clone())["action"]
    torch.testing.assert_close(found, actions["target_decoder_network"].clamp(-1, 1))
    assert (found - actions["decoder_network"]).abs().min() > 0


def test_acting_sees_the_newest_critics_and_policy() -> None:
    learner = make(tau=0.5)
    actor = OptimisticActor(learner.policy, learner.critic, num_candidates=4)
    td, candidates = make_batch(3).select("observation"), torch.rand(3, 4, ACTION_DIM) * 2 - 1
    before = actor.score(td.clone(), candidates), learner.policy(td.clone())["action"]
    learner.update(batches(2))
    after = actor.score(td.clone(), candidates), learner.policy(td.clone())["action"]
    assert all((old - new).abs().min() > 0 for old, new in zip(before, after, strict=True))


def test_solves_a_bandit() -> None:
    # Each episode lasts one step and pays a_0 - a_1. The data are uniform: the decoder's best is near (1, -1).
    learner = make(prepared=False, hidden_sizes=[32], learning_rate=1e-2, kl_weight=0.02, tau=0.05)
    for seed in range(60):
        block = batches(2, size=64, start=2 * seed)
        for batch in block:
            batch["action"] = 2 * torch.rand(64, 2, generator=torch.Generator().manual_seed(seed)) - 1
            batch["next", "reward"] = 10 * (batch["action"][:, :1] - batch["action"][:, 1:])
            batch["next", "terminated"] = torch.ones(64, 1, dtype=torch.bool)
        learner.update(block)
    action = learner.policy(make_batch(64))["action"]
    assert action[:, 0].mean() > 0.6
    assert action[:, 1].mean() < -0.6


# -------------------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"min_wieght": 0.8}, r"'min_wieght' is not known\. Did you mean min_weight"),
        ({"min_weight": 1.1}, r"min_weight must be a number in \[0, 1\], found 1.1"),
        ({"subset_size": 9}, "subset_size is 9; expected 1 to 5"),
        ({"subset_size": 0}, "subset_size must be a whole number"),
        ({"max_latent": 0.0}, "max_latent must be"),
        ({"latent_dim": 1.5}, "latent_dim must be"),
        ({"discount": 1.0}, "discount must be"),
        ({"value_clamp": "soft"}, "value_clamp is 'soft'; expected"),
        ({"value_bounds": [0, 100], "value_clamp": "none"}, "value_bounds is .0, 100. and value_clamp 'none'"),
        ({"value_bounds": [100, 0]}, "value_bounds is .100, 0. and value_clamp 'running'"),
        ({"value_bounds": [0, 100]}, r"rewards of the dataset lie in \[-0.*task.reward.rule=lapo"),
        ({"actor_aggregation": "min"}, "actor_aggregation is 'min'; expected"),
    ],
)
def test_wrong_configurations_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**config)


def test_configuration_errors_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="tau must be"):
        make(tau=0.0)


def test_configuration_reaches_the_networks() -> None:
    learner = make(prepared=False, hidden_sizes=(4, 6), num_critics=3, latent_dim=5, max_latent=0.5, layer_norm=True)
    assert [tuple(w.shape) for w in learner.critic.weights] == [(3, 5, 4), (3, 4, 6), (3, 6, 1)]
    assert len(learner.critic.norm_weights) == 2
    assert [tuple(w.shape) for w, _ in linear_layers(learner.loss.encoder_network)] == [(4, 5), (6, 4), (10, 6)]
    assert [tuple(w.shape) for w, _ in linear_layers(learner.loss.decoder_network)] == [(4, 8), (6, 4), (2, 6)]
    assert learner.policy(make_batch(1000))["latent"].abs().max() <= 0.5
    assert learner.loss.critic is learner.critic
    assert learner.coefficients == {
        "advantage_weight": torch.tensor(0.9),
        "kl_weight": torch.tensor(1.0),
        "min_weight": torch.tensor(1.0),
    }
