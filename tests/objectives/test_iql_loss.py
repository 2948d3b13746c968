"""IQLLoss has the values, gradients and manners of a TorchRL loss."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
import torchrl.objectives
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.objectives import SoftUpdate, ValueEstimators

from o3f.modules import EnsembleQValue, GenericEnsemble, gaussian_policy, value_network
from o3f.objectives import IQLLoss
from tests.support.iql_cases import (
    ACTION_DIM,
    OBSERVATION_DIM,
    Concatenated,
    double_precision,
    make_batch,
    separate_critics,
)

HIDDEN = (8, 8)
LOSSES = ("loss_value", "loss_actor", "loss_qvalue")


def make_loss(num_critics: int = 2, *, layer_norm: bool = False, **kwargs: Any) -> IQLLoss:
    torch.manual_seed(0)
    critic = EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, num_critics, HIDDEN, layer_norm=layer_norm)
    policy = gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN)
    loss = IQLLoss(policy, critic, value_network(OBSERVATION_DIM, HIDDEN), **kwargs)
    SoftUpdate(loss, tau=0.005)
    with torch.no_grad():  # targets that differ from the critics, and a policy away from its start
        for target in loss.target_qvalue_network_params.values(True, True):
            target.mul_(0.9)
        policy[0].module.log_std.copy_(torch.linspace(-1, 0.5, ACTION_DIM))
    return loss


def torchrl_twin(loss: IQLLoss, **kwargs: Any) -> torchrl.objectives.IQLLoss:
    """TorchRL's loss with the same policy, value network and critics, the critics' weights copied."""
    assert isinstance(loss.critic, EnsembleQValue)
    assert isinstance(loss.target_qvalue_network, EnsembleQValue)
    critics = separate_critics(loss.critic)
    twin = torchrl.objectives.IQLLoss(
        loss.actor_network,
        critics,
        loss.value_network,
        num_qvalue_nets=len(critics),
        expectile=loss.expectile.item(),
        temperature=loss.temperature.item(),
        loss_function=loss.loss_function,
        reduction=loss.reduction,
        **kwargs,
    )
    SoftUpdate(twin, tau=0.005)
    targets = TensorDict.from_modules(*separate_critics(loss.target_qvalue_network))
    twin.target_qvalue_network_params.update_(targets.data)
    twin.make_value_estimator(gamma=0.99)
    return twin


def gradients(loss: nn.Module, batch: TensorDict, name: str, parameters: list[Tensor]) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss(batch.clone())[name], parameters, allow_unused=True))


def stacked_gradients(twin: torchrl.objectives.IQLLoss, batch: TensorDict) -> list[Tensor]:
    """Gradients of TorchRL's stacked critics, in the layout and order of EnsembleQValue's parameters."""
    params = dict(twin.qvalue_network_params.flatten_keys(".").items())
    found = torch.autograd.grad(twin(batch.clone())["loss_qvalue"], list(params.values()))
    named = {name: (p, g) for (name, p), g in zip(params.items(), found, strict=True)}
    order = sorted(named, key=lambda name: int(name.split(".")[1]))
    norms = [n for n in order if n.endswith("weight") and named[n][0].ndim == 2]
    linears = [n for n in order if n.endswith("weight") and named[n][0].ndim == 3]
    weights = [named[n][1].transpose(1, 2) for n in linears]
    biases = [named[n.replace("weight", "bias")][1].unsqueeze(1) for n in linears]
    gains = [named[n][1].unsqueeze(1) for n in norms]
    shifts = [named[n.replace("weight", "bias")][1].unsqueeze(1) for n in norms]
    return [*weights, *biases, *gains, *shifts]


# ---------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("loss_function", ["l2", "l1", "smooth_l1"])
@pytest.mark.parametrize(("num_critics", "layer_norm"), [(2, False), (2, True), (5, False), (5, True)])
def test_equals_torchrl_in_values_and_gradients(loss_function: Any, num_critics: int, layer_norm: bool) -> None:
    with double_precision():
        loss = make_loss(
            num_critics, layer_norm=layer_norm, loss_function=loss_function, expectile=0.8, temperature=2.0
        )
        twin, batch = torchrl_twin(loss), make_batch(64)
        ours, theirs = batch.clone(), batch.clone()
        torch.testing.assert_close(dict(loss(ours)), dict(twin(theirs)))
        torch.testing.assert_close(ours["td_error"], theirs["td_error"])
        torch.testing.assert_close(ours["_log_prob"], theirs["_log_prob"])
        for name, network in (("loss_actor", loss.actor_network), ("loss_value", loss.value_network)):
            parameters = list(network.parameters())
            torch.testing.assert_close(
                gradients(loss, batch, name, parameters), gradients(twin, batch, name, parameters)
            )
        found = gradients(loss, batch, "loss_qvalue", list(loss.critic.parameters()))
        torch.testing.assert_close(found, stacked_gradients(twin, batch))


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_other_reductions_equal_torchrl(reduction: Any) -> None:
    loss = make_loss(5, reduction=reduction)
    extra = {"scalar_output_mode": "exclude"} if reduction == "none" else {}
    twin = torchrl_twin(loss, **extra)
    ours, theirs = loss(make_batch(16)), twin(make_batch(16))
    for name in LOSSES:
        torch.testing.assert_close(ours[name], theirs[name])
    if reduction == "none":
        assert ours.batch_size == (16,)
        assert ours["entropy"].shape == (16,)


@pytest.mark.parametrize("value_type", [ValueEstimators.TD1, ValueEstimators.TDLambda])
def test_other_value_estimators_equal_torchrl(value_type: ValueEstimators) -> None:
    loss, batch = make_loss(2), make_batch(4, 7)
    twin = torchrl_twin(loss)
    assert loss.make_value_estimator(value_type, gamma=0.9) is loss
    twin.make_value_estimator(value_type, gamma=0.9)
    torch.testing.assert_close(loss(batch.clone())["loss_qvalue"], twin(batch.clone())["loss_qvalue"])


def test_critics_of_another_architecture_equal_torchrl() -> None:
    torch.manual_seed(0)
    critics = [
        TensorDictModule(
            Concatenated(nn.Linear(OBSERVATION_DIM + ACTION_DIM, 8), nn.Tanh(), nn.Linear(8, 1)),
            in_keys=["observation", "action"],
            out_keys=["state_action_value"],
        )
        for _ in range(3)
    ]
    networks = (gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN), value_network(OBSERVATION_DIM, HIDDEN))
    loss = IQLLoss(networks[0], critics, networks[1])
    assert isinstance(loss.critic, GenericEnsemble)
    twin = torchrl.objectives.IQLLoss(
        networks[0],
        critics,
        networks[1],
        num_qvalue_nets=3,
        expectile=0.7,
        temperature=3.0,
        loss_function="l2",
    )
    for module in (loss, twin):
        updater = SoftUpdate(module, tau=0.5)
        optimiser = torch.optim.SGD(module.qvalue_network_params.parameters(), lr=0.01)
        module(make_batch(16))["loss_qvalue"].backward()
        optimiser.step()
        updater.step()
    torch.testing.assert_close(dict(loss(make_batch(16, seed=1))), dict(twin(make_batch(16, seed=1))))


@torch.no_grad()
def constant_networks() -> IQLLoss:
    """Q = (1, 2) for critics and targets, V = 0.5, a standard normal policy: everything by hand."""
    loss = make_loss(2)
    for parameter in loss.parameters():
        parameter.zero_()
    loss.critic.biases[-1].copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1))
    loss.value_network.module[-1].bias.fill_(0.5)
    loss.target_qvalue_network_params.update_(loss.qvalue_network_params.data)
    loss.make_value_estimator(gamma=0.9)
    return loss


def one_transition(*, done: bool, terminated: bool) -> TensorDict:
    batch = make_batch(1)
    batch["action"] = torch.zeros(1, ACTION_DIM)
    batch["next"].update(
        {
            "reward": torch.ones(1, 1),
            "done": torch.tensor([[done]]),
            "terminated": torch.tensor([[terminated]]),
            "truncated": torch.tensor([[done and not terminated]]),
        }
    )
    return batch


@pytest.mark.parametrize(
    ("done", "terminated", "target"), [(False, False, 1.45), (True, False, 1.45), (True, True, 1.0)]
)
def test_values_by_hand(done: bool, terminated: bool, target: float) -> None:
    loss = constant_networks()
    batch = one_transition(done=done, terminated=terminated)
    output = loss(batch)
    assert output["loss_value"].item() == pytest.approx(0.7 * 0.5**2)
    assert output["loss_actor"].item() == pytest.approx(math.exp(3 * 0.5) * 0.918939 * ACTION_DIM)
    assert output["entropy"].item() == pytest.approx(0.918939 * ACTION_DIM)
    assert output["loss_qvalue"].item() == pytest.approx((1 - target) ** 2 + (2 - target) ** 2)
    assert batch["td_error"].item() == pytest.approx((2 - target) ** 2)


def test_aggregations() -> None:
    batch = make_batch(6)
    loss = make_loss(5)
    values = loss.target_qvalue_network(batch.clone())["state_action_value"]
    assert torch.equal(loss.target_qvalue(batch), values.min(-1).values)
    assert torch.equal(make_loss(5, aggregation="mean").target_qvalue(batch), values.mean(-1))
    draws = [
        make_loss(5, aggregation="subset", subset_size=2, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    ]
    seeded = [[loss.target_qvalue(batch) for _ in range(6)] for loss in draws]
    torch.testing.assert_close(seeded[0], seeded[1], rtol=0, atol=0)
    members = [(values == q.unsqueeze(-1)).any(0) for q in seeded[0]]
    assert all(int(found.sum()) <= 2 for found in members)
    assert len({tuple(found.tolist()) for found in members}) > 1


def test_the_generator_of_the_subsets_is_saved() -> None:
    batch = make_batch(6)
    loss, other = (make_loss(5, aggregation="subset", generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    loss.target_qvalue(batch)
    other.load_state_dict(loss.state_dict())
    twins = [loss, copy.deepcopy(loss), other]
    draws = [torch.stack([twin.target_qvalue(batch) for _ in range(8)]) for twin in twins]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])


# ------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("method", "network"),
    [("value_loss", "value_network"), ("actor_loss", "actor_network"), ("qvalue_loss", "qvalue_network")],
)
def test_each_loss_reaches_its_own_network_only(method: str, network: str) -> None:
    for joint in (False, True):
        loss = make_loss(5)
        value = loss(make_batch(16))[f"loss_{method[:-5]}"] if joint else getattr(loss, method)(make_batch(16))[0]
        value.backward()
        reached = {name.split("_params")[0] for name, p in loss.named_parameters() if p.grad is not None}
        assert reached == {network}
        assert all(p.grad is not None for p in getattr(loss, network).parameters())
        assert not any(t.requires_grad for t in loss.target_qvalue_network_params.values(True, True))


def test_separate_losses_detach_shared_layers() -> None:
    for separate in (False, True):
        torch.manual_seed(0)
        backbone = nn.Linear(OBSERVATION_DIM, OBSERVATION_DIM)
        policy = gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN)
        policy[0].module.mean.insert(0, backbone)
        value = value_network(OBSERVATION_DIM, HIDDEN)
        value.module.insert(0, backbone)
        critic = EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, 2, HIDDEN)
        loss = IQLLoss(policy, critic, value, separate_losses=separate)
        SoftUpdate(loss, tau=0.005)
        output = loss(make_batch(8))
        through_value = torch.autograd.grad(
            output["loss_value"], backbone.weight, retain_graph=True, allow_unused=True
        )[0]
        through_actor = torch.autograd.grad(output["loss_actor"], backbone.weight)[0]
        assert (through_value is None) == separate
        assert through_actor.abs().sum() > 0
        assert loss.critic is critic
        twin = torchrl.objectives.IQLLoss(policy, separate_critics(critic), value, separate_losses=separate)
        names = {name for name, _ in twin.named_parameters() if "qvalue" not in name}
        assert {name for name, _ in loss.named_parameters() if "qvalue" not in name} == names


# ------------------------------------------------------------------------------------------------------ keys


RENAMED = {
    "action": ("agent", "act"),
    "reward": ("agent", "gain"),
    "done": ("flags", "over"),
    "terminated": ("flags", "dead"),
    "priority": ("replay", "priority"),
    "log_prob": ("agent", "lp"),
    "value": ("agent", "v"),
    "state_action_value": ("agent", "q"),
}


def renamed_loss(**kwargs: Any) -> IQLLoss:
    torch.manual_seed(0)
    critic = EnsembleQValue(
        OBSERVATION_DIM,
        ACTION_DIM,
        2,
        HIDDEN,
        in_keys=[("obs", "x"), ("agent", "act")],
        out_key=("agent", "q"),
    )
    policy = gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN, in_key=("obs", "x"), action_key=("agent", "act"))
    value = value_network(OBSERVATION_DIM, HIDDEN, in_key=("obs", "x"), out_key=("agent", "v"))
    loss = IQLLoss(policy, critic, value, **kwargs)
    SoftUpdate(loss, tau=0.005)
    return loss


def renamed_batch(*shape: int) -> TensorDict:
    batch = make_batch(*shape)
    following = batch["next"]
    return TensorDict(
        {
            ("obs", "x"): batch["observation"],
            ("agent", "act"): batch["action"],
            ("next", "obs", "x"): following["observation"],
            ("next", "agent", "gain"): following["reward"],
            ("next", "flags", "over"): following["done"],
            ("next", "flags", "dead"): following["terminated"],
        },
        shape,
    )


def plain_loss() -> IQLLoss:
    torch.manual_seed(0)
    critic = EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, 2, HIDDEN)
    policy = gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN)
    loss = IQLLoss(policy, critic, value_network(OBSERVATION_DIM, HIDDEN))
    SoftUpdate(loss, tau=0.005)
    return loss


def test_nested_keys_give_the_same_values() -> None:
    loss = renamed_loss()
    assert loss.tensor_keys.value == ("agent", "v")
    assert loss.tensor_keys.action == ("agent", "act")
    loss.set_keys(**RENAMED)
    batch, plain = renamed_batch(16), make_batch(16)
    torch.testing.assert_close(dict(loss(batch)), dict(plain_loss()(plain)))
    torch.testing.assert_close(batch["replay", "priority"], plain["td_error"])
    torch.testing.assert_close(batch["agent", "lp"], plain["_log_prob"])
    expected = {("obs", "x"), ("agent", "act"), ("next", "obs", "x")}
    expected |= {("next", "agent", "gain"), ("next", "flags", "over"), ("next", "flags", "dead")}
    assert set(loss.in_keys) == expected


def test_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="not an accepted tensordict key"):
        plain_loss().set_keys(q="x")


def test_keyword_dispatch_returns_the_out_keys_in_order() -> None:
    loss, batch = plain_loss(), make_batch(16)
    inputs = {"_".join([key] if isinstance(key, str) else key): batch[key] for key in loss.in_keys}
    results = loss(**inputs)
    expected = loss(batch)
    assert loss.out_keys == ["loss_actor", "loss_qvalue", "loss_value", "entropy"]
    torch.testing.assert_close(list(results), [expected[key] for key in loss.out_keys])


def test_only_forward_writes_and_only_two_entries() -> None:
    loss, batch = make_loss(5), make_batch(8)
    before = batch.clone()
    loss.value_loss(batch)
    loss.actor_loss(batch)
    loss.qvalue_loss(batch)
    assert set(batch.keys(True, True)) == set(before.keys(True, True))
    loss(batch)
    assert set(batch.keys(True, True)) - set(before.keys(True, True)) == {"td_error", "_log_prob"}
    assert (batch.select(*before.keys(True, True)) == before).all()


# ------------------------------------------------------------------------------------- reductions and weights


def test_priority_weights_count_in_every_loss() -> None:
    elements = make_loss(5, reduction="none")(make_batch(8))
    weights = torch.linspace(0.1, 2.0, 8)
    for shape, key in (((8,), "priority_weight"), ((8, 1), "priority_weight"), ((8,), ("replay", "w"))):
        loss = make_loss(5)
        loss.set_keys(priority_weight=key)
        weighted = loss(make_batch(8).set(key, weights.view(shape)))
        for name in LOSSES:
            expected = (elements[name] * weights).sum() / weights.sum()
            torch.testing.assert_close(weighted[name], expected)
    loss.use_prioritized_weights = False
    ignored = loss(make_batch(8).set(("replay", "w"), weights))
    torch.testing.assert_close(ignored["loss_value"], elements["loss_value"].mean())


def test_masked_elements_do_not_count() -> None:
    batch = make_batch(8)
    batch["collector", "mask"] = torch.arange(8) < 5
    found, expected = make_loss(5)(batch), make_loss(5)(make_batch(8)[:5])
    for name in LOSSES:
        torch.testing.assert_close(found[name], expected[name])


def test_batch_shapes() -> None:
    flat, folded = make_loss(5)(make_batch(12)), make_loss(5)(make_batch(12).reshape(3, 4))
    torch.testing.assert_close(dict(flat), dict(folded))


# ------------------------------------------------------------------------------------ parameters and copying


def test_critic_is_the_trained_ensemble() -> None:
    critic = EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, 5, HIDDEN)
    loss = IQLLoss(gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN), critic, value_network(OBSERVATION_DIM, HIDDEN))
    SoftUpdate(loss, tau=0.005)
    assert loss.critic is critic
    assert {id(p) for p in critic.parameters()} <= {id(p) for p in loss.parameters()}
    before = critic(make_batch(4))["state_action_value"]
    optimiser = torch.optim.Adam(loss.parameters(), lr=1e-2)
    loss(make_batch(16))["loss_qvalue"].backward()
    optimiser.step()
    after = critic(make_batch(4))["state_action_value"]
    assert (after - before).abs().min() > 0


def test_soft_update_moves_the_targets() -> None:
    loss = make_loss(2)
    updater = SoftUpdate(loss, tau=0.25)
    torch.testing.assert_close(loss.target_qvalue_network_params.data, loss.qvalue_network_params.data)
    with torch.no_grad():
        for parameter in loss.critic.parameters():
            parameter.add_(1.0)
    before = loss.target_qvalue_network(make_batch(4))["state_action_value"]
    updater.step()
    for target, source in zip(
        loss.target_qvalue_network.state_dict().values(), loss.critic.state_dict().values(), strict=False
    ):
        torch.testing.assert_close(target, source - 0.75)
    for name in ("weights", "biases"):
        source = loss.qvalue_network_params[name, "0"]
        torch.testing.assert_close(loss.target_qvalue_network_params[name, "0"], source - 0.75)
    assert not torch.equal(before, loss.target_qvalue_network(make_batch(4))["state_action_value"])


@pytest.mark.parametrize("generic", [False, True])
def test_update_targets_equals_soft_update(generic: bool) -> None:
    loss = make_loss(2)
    if generic:
        critic = GenericEnsemble(separate_critics(loss.critic))
        loss = IQLLoss(loss.actor_network, critic, loss.value_network)
    updater = SoftUpdate(loss, tau=0.25)
    twin = copy.deepcopy(loss)
    for module in (loss, twin):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(1.0)
    updater.step()
    twin.update_targets(0.25)
    torch.testing.assert_close(dict(loss.state_dict()), dict(twin.state_dict()))
    torch.testing.assert_close(dict(loss(make_batch(4))), dict(twin(make_batch(4))))


def test_missing_target_updater_is_announced() -> None:
    loss = IQLLoss(
        gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN),
        EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, 2, HIDDEN),
        value_network(OBSERVATION_DIM, HIDDEN),
    )
    with pytest.warns(UserWarning, match="No target network updater"):
        loss(make_batch(4))


def test_state_dict_round_trip() -> None:
    trained = make_loss(5)
    trained.expectile = 0.9
    trained.temperature = 0.5
    trained.make_value_estimator(gamma=0.9)
    torch.manual_seed(7)
    fresh = make_loss(5)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.uniform_()
    fresh.load_state_dict(trained.state_dict())
    torch.testing.assert_close(dict(fresh(make_batch(8))), dict(trained(make_batch(8))), rtol=0, atol=0)
    assert {"expectile", "temperature"} <= trained.state_dict().keys()


def test_schedules_change_the_buffers_in_place() -> None:
    loss = make_loss(2)
    batch = make_batch(16)
    for name, value in (("expectile", 0.95), ("temperature", 0.1)):
        buffer, before = getattr(loss, name), dict(loss(batch.clone()))
        setattr(loss, name, value)
        assert getattr(loss, name) is buffer
        assert loss.state_dict()[name].item() == pytest.approx(value)
        changed = {key for key, loss_now in loss(batch.clone()).items() if not torch.equal(loss_now, before[key])}
        assert changed == {"loss_value" if name == "expectile" else "loss_actor"}
    torch.testing.assert_close(
        dict(loss(batch.clone())), dict(make_loss(2, expectile=0.95, temperature=0.1)(batch.clone()))
    )


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
@pytest.mark.parametrize("generic", [False, True])
def test_copies_are_whole_and_independent(copied: Any, generic: bool) -> None:
    loss = make_loss(2)
    if generic:
        loss = IQLLoss(loss.actor_network, GenericEnsemble(separate_critics(loss.critic)), loss.value_network)
        SoftUpdate(loss, tau=0.005)
    twin = copied(loss)
    before = dict(loss(make_batch(8)))
    torch.testing.assert_close(dict(twin(make_batch(8))), before, rtol=0, atol=0)
    assert {id(p) for p in twin.critic.parameters()} <= {id(p) for p in twin.parameters()}
    updater = SoftUpdate(twin, tau=0.5)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    losses = twin(make_batch(8))
    sum(losses[name] for name in LOSSES).backward()
    optimiser.step()
    updater.step()
    assert all(not torch.equal(twin(make_batch(8))[name], before[name]) for name in LOSSES)
    torch.testing.assert_close(dict(loss(make_batch(8))), before, rtol=0, atol=0)


def test_to_keeps_modules_and_parameters_together() -> None:
    loss = make_loss(2).to(torch.float64)
    assert {id(p) for p in loss.critic.parameters()} <= {id(p) for p in loss.parameters()}
    with double_precision():
        output = loss(make_batch(4))
        assert all(output[name].dtype == torch.float64 for name in LOSSES)
        expected = make_loss(2)
        expected.load_state_dict(loss.state_dict())
        torch.testing.assert_close(dict(output), dict(expected(make_batch(4))))


def test_compiles_without_a_graph_break() -> None:
    loss, batch = make_loss(5), make_batch(16)
    parameters = list(loss.parameters())
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    for module in (loss, compiled):
        output = module(batch.clone())
        results.append(dict(output))
        results.append(torch.autograd.grad(sum(output[name] for name in LOSSES), parameters))
    torch.testing.assert_close(results[2], results[0])
    torch.testing.assert_close(results[3], results[1])


def test_target_critics_are_evaluated_once() -> None:
    loss, calls = make_loss(5), []
    loss.target_qvalue_network.register_forward_hook(lambda *_: calls.append(1))
    loss(make_batch(8))
    assert len(calls) == 1


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expectile": 1.0}, "expectile must be a number in .*, found 1.0"),
        ({"temperature": -1.0}, "temperature must be a number in .*, found -1.0"),
        ({"num_qvalue_nets": 3}, "num_qvalue_nets is 3, but the ensemble holds 2"),
        ({"aggregation": "median"}, "aggregation is 'median'; expected"),
        ({"aggregation": "subset", "subset_size": 3}, "subset_size is 3; expected 1 to 2"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_loss(2, **arguments)


def test_log_probability_per_dimension_is_refused() -> None:
    policy = gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN)
    policy.module[-1].distribution_class = torch.distributions.Normal
    loss = IQLLoss(
        policy, EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, 2, HIDDEN), value_network(OBSERVATION_DIM, HIDDEN)
    )
    with pytest.raises(ValueError, match=r"log-probability has shape \[4, 2\]"):
        loss.actor_loss(make_batch(4))
