"""LAPOLoss: what each loss reaches, and the manners of a TorchRL loss."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives import SoftUpdate

from o3f.modules import EnsembleQValue, GenericEnsemble, latent_actor, latent_decoder, latent_encoder, value_network
from o3f.objectives import LAPOLoss
from o3f.objectives.functional import divergence_from_normal, mix_extremes, sign_weights
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, double_precision, make_batch, separate_critics
from tests.support.lapo_cases import LATENT_DIM, LOSSES, make_loss, make_networks, statistics

HIDDEN = (8, 8)


def evaluated(loss: LAPOLoss, batch: TensorDict) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return dict(loss(batch))


# ------------------------------------------------------------------------------------------------- equations


def test_mix_of_the_extremes() -> None:
    values = torch.tensor([[1.0, -3.0, 2.0], [0.5, 0.5, 0.5]])
    assert torch.equal(mix_extremes(values, 1.0), values.amin(-1))
    assert torch.equal(mix_extremes(values, 0.0), values.amax(-1))
    torch.testing.assert_close(mix_extremes(values, torch.tensor(0.7)), torch.tensor([-1.5, 0.5]))


def test_there_are_two_weights_and_a_tie_has_the_smaller() -> None:
    advantage = torch.tensor([-5.0, -1e-30, 0.0, 1e-30, 7.0])
    torch.testing.assert_close(sign_weights(advantage, 0.9), torch.tensor([0.1, 0.1, 0.1, 0.9, 0.9]))


def test_divergence_equals_torchs() -> None:
    mean, log_variance = torch.randn(5, 3).double(), torch.randn(5, 3).double()
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(divergence_from_normal(mean, log_variance), expected)


@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
def test_the_advantage_weighs_the_autoencoder(advantage: float) -> None:
    loss, batch, noise = make_loss(kl_weight=0.5), make_batch(1), torch.randn(1, LATENT_DIM)
    found, info = loss.vae_loss(batch, torch.tensor([advantage]), noise)
    whole = info["reconstruction"] + 0.5 * info["divergence"]
    assert found.item() == pytest.approx((0.9 if advantage > 0 else 0.1) * whole.item(), rel=1e-5)


def test_reconstruction_counts_in_z_scores() -> None:
    loss, batch, noise = make_loss(), make_batch(6), torch.zeros(6, LATENT_DIM)
    mean, _ = loss.encoder_network.module(batch["observation"], batch["action"])
    decoded = loss.decoder_network.module(batch["observation"], mean)
    scale = make_batch(50, seed=9)["action"].std(0, correction=0)
    expected = ((decoded - batch["action"]) / scale).square().sum(-1)
    torch.testing.assert_close(loss.vae_loss(batch, noise=noise)[1]["reconstruction"], expected.detach())
    raw = make_loss()
    raw.decoder_network.module.action_normaliser.scale.fill_(1.0)
    unit = raw.decoder_network.module(batch["observation"], mean)
    found = raw.vae_loss(batch, noise=noise)[1]["reconstruction"]
    torch.testing.assert_close(found, (unit - batch["action"]).square().sum(-1).detach())


def test_latent_actor_ascends_the_mean_or_the_first() -> None:
    batch = make_batch(6)
    for aggregation in ("mean", "first"):
        loss = make_loss(3, actor_aggregation=aggregation)
        latent = loss.actor_network(batch.clone())["latent"]
        action = loss.target_decoder_network(batch.clone().set("latent", latent))["action"]
        values = loss.critic(batch.clone().set("action", action))["state_action_value"]
        expected = values.mean() if aggregation == "mean" else values[:, 0].mean()
        torch.testing.assert_close(loss.actor_loss(batch)[0], -expected)


def test_target_noise_is_small_and_clipped() -> None:
    loss, batch = make_loss(), make_batch(3)
    latent = loss.target_actor_network(batch.clone())["latent"]
    for size, offset in ((0.5, 0.05), (1.9, 0.19), (5.0, 0.2), (-9.0, -0.2)):
        expected = loss.target_decoder_network(batch.clone().set("latent", latent + offset))["action"]
        found = loss.target_action(batch, torch.full((3, LATENT_DIM), size))
        torch.testing.assert_close(found, expected.detach())


def test_the_advantage_has_no_noise_but_target_networks() -> None:
    loss, batch = make_loss(subset_size=None, min_weight=0.7), make_batch(9)
    following = batch["next"].select("observation")
    action = loss.target_decoder_network(loss.target_actor_network(following.clone()))["action"]
    values = loss.target_qvalue_network(following.clone().set("action", action))["state_action_value"]
    q = 0.7 * values.amin(-1) + 0.3 * values.amax(-1)
    alive = (~batch["next", "terminated"]).squeeze(-1).float()
    v = loss.value_network(batch.clone())["state_value"].squeeze(-1)
    expected = batch["next", "reward"].squeeze(-1) + 0.99 * alive * q - v
    torch.testing.assert_close(loss.advantage(batch), expected.detach())


def test_a_target_value_network_delays_the_bootstrap() -> None:
    loss, batch = make_loss(delay_value=True), make_batch(9)
    with torch.no_grad():
        for parameter in loss.value_network.parameters():
            parameter.add_(1.0)
    next_value = loss.target_value_network(batch["next"].clone())["state_value"].squeeze(-1)
    assert loss.qvalue_loss(batch)[0] == loss.qvalue_loss(batch, next_value)[0]
    newest = loss.value_network(batch["next"].clone())["state_value"].squeeze(-1)
    assert loss.qvalue_loss(batch)[0] != loss.qvalue_loss(batch, newest.detach())[0]


@pytest.mark.parametrize("flag", ["truncated", "done", "terminated"])
def test_only_termination_stops_the_bootstrap(flag: str) -> None:
    quiet, flagged = make_batch(8), make_batch(8)
    for batch in (quiet, flagged):
        for name in ("terminated", "truncated", "done"):
            batch["next", name] = torch.zeros(8, 1, dtype=torch.bool)
    flagged["next", flag] = torch.ones(8, 1, dtype=torch.bool)
    loss = make_loss()
    torch.manual_seed(0)
    before = loss.qvalue_loss(quiet)[0], loss.advantage(quiet)
    torch.manual_seed(0)
    after = loss.qvalue_loss(flagged)[0], loss.advantage(flagged)
    assert all(torch.equal(*pair) == (flag != "terminated") for pair in zip(before, after, strict=True))


# --------------------------------------------------------------------------------------------------- subsets


def constant_targets(loss: LAPOLoss) -> None:
    """Let target critic j say 10^j, whatever the input."""
    with torch.no_grad():
        for target in loss.target_qvalue_network_params.values(True, True):
            target.zero_()
        loss.target_qvalue_network.normaliser.scale.fill_(1.0)
        values = 10.0 ** torch.arange(5).view(5, 1, 1)
        loss.target_qvalue_network_params["biases", str(len(HIDDEN))].copy_(values)


def test_every_pair_is_drawn_alike_and_none_has_a_critic_twice() -> None:
    loss, batch, draws = make_loss(min_weight=0.5), make_batch(2), 4000
    constant_targets(loss)
    torch.manual_seed(0)
    action = loss.target_action(batch)
    found = torch.stack([loss.target_qvalue(batch, action) for _ in range(draws)])
    assert torch.equal(found[:, 0], found[:, 1])  # one draw for the whole batch
    sums = (2 * found[:, 0]).round().long().tolist()
    pairs = {10**i + 10**j: 0 for i, j in itertools.combinations(range(5), 2)}
    for total in sums:
        pairs[total] += 1  # a KeyError is a critic that was drawn twice
    # 3.1 standard errors of each of ten counts with probability 1/10: below 1 in 50 for all of them together
    assert all(abs(count - draws / 10) < 3.1 * (draws * 0.09) ** 0.5 for count in pairs.values())


def test_expected_minimum_of_a_random_pair() -> None:
    values = 10.0 ** torch.arange(5)
    pairs = list(itertools.combinations(range(5), 2))
    expected = sum(min(values[i], values[j]) for i, j in pairs).item() / len(pairs)
    assert expected == pytest.approx((4 * 1 + 3 * 10 + 2 * 100 + 1 * 1000) / 10)  # by hand
    loss, batch = make_loss(), make_batch(1)
    constant_targets(loss)
    torch.manual_seed(1)
    action = loss.target_action(batch)
    mean = torch.stack([loss.target_qvalue(batch, action) for _ in range(4000)]).mean().item()
    assert mean == pytest.approx(expected, abs=4 * 300 / 4000**0.5)  # the standard deviation of one is about 300


def test_undrawn_target_critics_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, batch, seen = make_loss(), make_batch(4), []
    original = EnsembleQValue.values

    def spy(self: EnsembleQValue, inputs: Tensor, members: Tensor | None = None) -> Tensor:
        seen.append(original(self, inputs, members))
        return seen[-1]

    monkeypatch.setattr(EnsembleQValue, "values", spy)
    loss.target_qvalue(batch, batch["action"])
    assert [tuple(values.shape) for values in seen] == [(4, 2)]


def test_all_critics_learn_whatever_is_drawn() -> None:
    loss = make_loss()
    loss.qvalue_loss(make_batch(16))[0].backward()
    assert all((p.grad.flatten(1).abs().sum(-1) > 0).all() for p in loss.critic.parameters())


def test_a_subset_of_all_equals_all() -> None:
    batch = make_batch(4)
    action = batch["action"]
    whole, drawn = (make_loss(subset_size=size, min_weight=0.6).target_qvalue(batch, action) for size in (None, 5))
    torch.testing.assert_close(whole, drawn)


def test_a_generator_decides_noise_and_subsets_and_is_saved() -> None:
    batch = make_batch(6)
    before = torch.get_rng_state()
    loss, other = (make_loss(generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    torch.set_rng_state(before)
    loss(batch.clone())
    assert torch.equal(torch.get_rng_state(), before)
    other.load_state_dict(loss.state_dict())
    twins = [loss, copy.deepcopy(loss), other]
    draws = [torch.stack([twin(batch.clone())["loss_vae"] for _ in range(4)]) for twin in twins]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])


# ------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("method", "networks"),
    [
        ("value_loss", {"value_network"}),
        ("qvalue_loss", {"qvalue_network"}),
        ("vae_loss", {"encoder_network", "decoder_network"}),
        ("actor_loss", {"actor_network"}),
    ],
)
def test_each_loss_reaches_its_own_networks_only(method: str, networks: set[str]) -> None:
    for joint in (False, True):
        loss = make_loss()
        batch = make_batch(64)
        value = loss(batch)[f"loss_{method[:-5]}"] if joint else getattr(loss, method)(batch)[0]
        value.backward()
        reached = {name.split("_params")[0] for name, p in loss.named_parameters() if p.grad is not None}
        assert reached == networks
        for name in networks:
            assert all(p.grad.abs().sum() > 0 for p in getattr(loss, name).parameters())
        assert not any(tensor.requires_grad for tensor in loss.target_decoder_network.state_dict().values())


def test_gradient_of_the_actor_is_that_of_its_loss() -> None:
    with double_precision():
        loss, batch = make_loss(3), make_batch(5)
        loss.actor_loss(batch)[0].backward()
        parameter = loss.actor_network.module.network[-1].bias
        assert parameter.grad is not None
        for index in range(LATENT_DIM):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter[index] += step
                    values.append(loss.actor_loss(batch)[0].item())
                    parameter[index] -= step
            slope = (values[0] - values[1]) / 2e-6
            assert parameter.grad[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


# ------------------------------------------------------------------------------------------------------ keys

RENAMED = {
    "reward": ("agent", "gain"),
    "done": ("flags", "over"),
    "terminated": ("flags", "dead"),
    "priority": ("replay", "priority"),
}


def renamed_loss() -> LAPOLoss:
    torch.manual_seed(0)
    state, action, latent = ("obs", "x"), ("agent", "act"), ("agent", "z")
    sizes = OBSERVATION_DIM, ACTION_DIM
    loss = LAPOLoss(
        latent_actor(OBSERVATION_DIM, LATENT_DIM, HIDDEN, in_key=state, out_key=latent),
        latent_encoder(*sizes, LATENT_DIM, HIDDEN, in_key=state, action_key=action, out_keys=["mu", ("agent", "lv")]),
        latent_decoder(*sizes, LATENT_DIM, HIDDEN, in_key=state, latent_key=latent, action_key=action),
        EnsembleQValue(*sizes, 2, HIDDEN, init="default", in_keys=[state, action], out_key=("agent", "q")),
        value_network(OBSERVATION_DIM, HIDDEN, init="default", in_key=state, out_key=("agent", "v")),
    )
    loss.update_targets(1.0)
    return loss


def test_nested_keys_give_the_same_values() -> None:
    loss, plain, batch = renamed_loss(), make_loss(2, fitted=False), make_batch(16)
    for name in ("actor", "encoder", "decoder", "qvalue", "value"):
        source = getattr(loss, f"{name}_network")
        for ours, theirs in zip(source.parameters(), getattr(plain, f"{name}_network").parameters(), strict=True):
            ours.data.copy_(theirs.data)
    for module in (loss, plain):
        module.update_targets(1.0)
    loss.set_keys(**RENAMED)
    following = batch["next"]
    entries = {
        ("obs", "x"): batch["observation"],
        ("agent", "act"): batch["action"],
        ("next", "obs", "x"): following["observation"],
        ("next", "agent", "gain"): following["reward"],
        ("next", "flags", "over"): following["done"],
        ("next", "flags", "dead"): following["terminated"],
    }
    renamed = TensorDict(entries, [16])
    before = set(renamed.keys(True, True))
    torch.testing.assert_close(evaluated(loss, renamed), evaluated(plain, batch))
    assert set(renamed.keys(True, True)) - before == {("replay", "priority")}
    torch.testing.assert_close(renamed["replay", "priority"], batch["td_error"])
    assert set(loss.in_keys) == set(entries)


def test_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="not an accepted tensordict key"):
        make_loss().set_keys(q="x")


def test_keyword_dispatch_returns_the_out_keys_in_order() -> None:
    loss, batch = make_loss(), make_batch(16)
    inputs = {"_".join([key] if isinstance(key, str) else key): batch[key] for key in loss.in_keys}
    torch.manual_seed(5)
    results = loss(**inputs)
    expected = evaluated(loss, batch)
    assert loss.out_keys == list(LOSSES)
    torch.testing.assert_close(list(results), [expected[key] for key in loss.out_keys])


def test_only_forward_writes_and_only_the_priority() -> None:
    loss, batch = make_loss(), make_batch(8)
    before = batch.clone()
    for name in ("value_loss", "qvalue_loss", "vae_loss", "actor_loss"):
        getattr(loss, name)(batch)
    assert set(batch.keys(True, True)) == set(before.keys(True, True))
    loss(batch)
    assert set(batch.keys(True, True)) - set(before.keys(True, True)) == {"td_error"}
    assert (batch.select(*before.keys(True, True)) == before).all()


# ------------------------------------------------------------------------------------- reductions and weights


def test_priority_weights_count_in_every_loss() -> None:
    elements = evaluated(make_loss(reduction="none"), make_batch(8))
    weights = torch.linspace(0.1, 2.0, 8)
    assert all(elements[name].shape == (8,) for name in LOSSES)
    summed = evaluated(make_loss(reduction="sum"), make_batch(8))
    for shape in ((8,), (8, 1)):
        weighted = evaluated(make_loss(), make_batch(8).set("priority_weight", weights.view(shape)))
        for name in LOSSES:
            torch.testing.assert_close(weighted[name], (elements[name] * weights).sum() / weights.sum())
            torch.testing.assert_close(summed[name], elements[name].sum())


def test_batch_shapes() -> None:
    losses = [evaluated(make_loss(), batch) for batch in (make_batch(12), make_batch(12).reshape(3, 4))]
    torch.testing.assert_close(*losses)


# ------------------------------------------------------------------------------------ parameters and copying


def test_critics_of_any_form() -> None:
    batch, loss = make_batch(8), make_loss(3, fitted=False)
    networks = [loss.actor_network, loss.encoder_network, loss.decoder_network, None, loss.value_network]
    generic = GenericEnsemble(separate_critics(loss.critic))
    for critics in (generic, separate_critics(loss.critic)):
        networks[3] = critics
        twin = LAPOLoss(*networks)
        for module in (loss, twin):
            module.update_targets(1.0)
        torch.testing.assert_close(evaluated(twin, batch.clone()), evaluated(loss, batch.clone()))
        (twin(batch.clone())["loss_qvalue"] + twin(batch.clone())["loss_actor"]).backward()
        assert all(p.grad is not None for p in twin.critic.parameters())
    assert loss.critic is not twin.critic


def test_update_targets_equals_soft_update() -> None:
    loss = make_loss(2, delay_value=True)
    updater = SoftUpdate(loss, tau=0.25)
    twin, partly = copy.deepcopy(loss), copy.deepcopy(loss)
    for module in (loss, twin, partly):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(1.0)
    before = dict(copy.deepcopy(twin.state_dict()))
    updater.step()
    twin.update_targets(0.25)
    torch.testing.assert_close(dict(loss.state_dict()), dict(twin.state_dict()))
    partly.update_targets(0.25, ("qvalue_network", "value_network"))
    stepped = {name for name, value in partly.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split("_params")[0] for name in stepped} == {"target_qvalue_network", "target_value_network"}


def test_missing_target_updater_is_announced() -> None:
    with pytest.warns(UserWarning, match="No target network updater"):
        LAPOLoss(*make_networks(2, HIDDEN))(make_batch(4))


def test_state_dict_round_trip() -> None:
    trained = make_loss(value_clamp="running")
    trained.min_weight, trained.advantage_weight, trained.kl_weight = 0.7, 0.8, 0.3
    trained.make_value_estimator(gamma=0.9)
    trained.value_clamp.fit(torch.tensor([-0.01, 0.01]))
    fresh = make_loss(fitted=False)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.uniform_()
    fresh.load_state_dict(trained.state_dict())
    torch.testing.assert_close(evaluated(fresh, make_batch(8)), evaluated(trained, make_batch(8)), rtol=0, atol=0)
    names = {"min_weight", "advantage_weight", "kl_weight", "value_clamp.reward_min", "value_clamp.reward_max"}
    assert names <= trained.state_dict().keys()


def test_schedules_change_the_buffers_in_place() -> None:
    loss, batch = make_loss(), make_batch(16)
    for name, value in (("advantage_weight", 0.6), ("kl_weight", 0.1), ("min_weight", 0.0)):
        buffer, before = getattr(loss, name), evaluated(loss, batch.clone())
        setattr(loss, name, value)
        assert getattr(loss, name) is buffer
        after = evaluated(loss, batch.clone())
        changed = {key for key in after if not torch.equal(after[key], before[key])}
        # Other values change the advantages, but not always the sign of one.
        assert changed - {"loss_vae"} == ({"loss_value"} if name == "min_weight" else set())
        assert "loss_vae" in changed or name == "min_weight"
    torch.testing.assert_close(
        evaluated(loss, batch), evaluated(make_loss(min_weight=0.0, advantage_weight=0.6, kl_weight=0.1), batch)
    )


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies_are_whole_and_independent(copied: Any) -> None:
    loss = make_loss()
    twin = copied(loss)
    before = evaluated(loss, make_batch(8))
    torch.testing.assert_close(evaluated(twin, make_batch(8)), before, rtol=0, atol=0)
    assert {id(p) for p in twin.critic.parameters()} <= {id(p) for p in twin.parameters()}
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    losses = twin(make_batch(8))
    sum(losses[name] for name in LOSSES).backward()
    optimiser.step()
    twin.update_targets(0.5)
    twin.fit_normalisers(make_batch(20, seed=3))
    after = evaluated(twin, make_batch(8))
    assert all(not torch.equal(after[name], before[name]) for name in LOSSES)
    torch.testing.assert_close(evaluated(loss, make_batch(8)), before, rtol=0, atol=0)
    held = twin.target_decoder_network.state_dict()
    for name, value in held.items():
        assert torch.equal(twin.state_dict()[f"target_decoder_network_params.{name}"], value)


def test_to_keeps_modules_and_parameters_together() -> None:
    loss = make_loss().to(torch.float64)
    assert {id(p) for p in loss.critic.parameters()} <= {id(p) for p in loss.parameters()}
    with double_precision():
        found = evaluated(loss, make_batch(4))
        assert all(found[name].dtype == torch.float64 for name in LOSSES)
        expected = make_loss()
        expected.load_state_dict(loss.state_dict())
        torch.testing.assert_close(found, evaluated(expected, make_batch(4)))
        expected.update_targets(1.0)
        loss.update_targets(1.0)
        torch.testing.assert_close(evaluated(loss, make_batch(4)), evaluated(expected, make_batch(4)))


def test_normalisers_of_all_networks_are_fitted_alike() -> None:
    loss, rows = make_loss(fitted=False, delay_value=True), make_batch(30, seed=4)
    loss.fit_normalisers(rows)
    sizes = {OBSERVATION_DIM: 0, ACTION_DIM: 0, OBSERVATION_DIM + ACTION_DIM: 0}
    both = torch.cat([rows["observation"], rows["action"]], -1)
    means = {3: rows["observation"].mean(0), 2: rows["action"].mean(0), 5: both.mean(0)}
    for location in statistics(loss)[::2]:
        torch.testing.assert_close(location, means[len(location)])
        sizes[len(location)] += 1
    assert sizes == {3: 2 + 2 + 2, 2: 2, 5: 1 + 2}  # states: actors, decoders, V; actions: decoders; both: E, Q


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_weight": 1.5}, "min_weight must be a number in .*, found 1.5"),
        ({"advantage_weight": -0.1}, "advantage_weight must be a number in .*, found -0.1"),
        ({"kl_weight": -1.0}, "kl_weight must be a number in .*, found -1.0"),
        ({"target_noise": -1.0}, "target_noise must be a number in .*, found -1.0"),
        ({"subset_size": 6}, "subset_size is 6; expected 1 to 5"),
        ({"num_qvalue_nets": 3}, "num_qvalue_nets is 3, but the ensemble holds 5"),
        ({"actor_aggregation": "min"}, "actor_aggregation is 'min'; expected"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_loss(**arguments)


def test_statistics_fitted_after_a_change_of_type_are_saved() -> None:
    """``to`` replaces buffers: the networks must go on with those that ``state_dict`` shows."""
    loss = make_loss(fitted=False).to(torch.bfloat16).to(torch.float32)
    rows = TensorDict({"observation": torch.randn(50, 3) * 4 + 1, "action": torch.rand(50, 2)}, [50])
    loss.fit_normalisers(rows)
    other = make_loss(fitted=False)
    other.load_state_dict(loss.state_dict())
    latents = [each.actor_network(rows.clone())["latent"] for each in (loss, other)]
    torch.testing.assert_close(*latents, rtol=0, atol=0)
    assert loss.actor_network.module.normaliser.loc.abs().min() > 0.1
