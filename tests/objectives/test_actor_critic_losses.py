"""The losses of AWAC, soft actor-critic and CQL have the manners of a TorchRL loss."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.objectives import SoftUpdate

from o3f.modules import EnsembleQValue, GenericEnsemble, gaussian_policy, tanh_gaussian_policy
from o3f.objectives.functional import aggregate_critics, draw_members
from tests.support.actor_critic_cases import (
    HIDDEN,
    KINDS,
    NETWORKS,
    evaluate,
    loss_of,
    losses_of,
    make_loss,
    nested_batch,
)
from tests.support.iql_cases import (
    ACTION_DIM,
    OBSERVATION_DIM,
    Concatenated,
    double_precision,
    make_batch,
    separate_critics,
)

every_kind = pytest.mark.parametrize("kind", KINDS)


def make_generic(kind: str) -> Any:
    torch.manual_seed(0)
    critics = [
        TensorDictModule(
            Concatenated(nn.Linear(OBSERVATION_DIM + ACTION_DIM, 8), nn.Tanh(), nn.Linear(8, 1)),
            in_keys=["observation", "action"],
            out_keys=["state_action_value"],
        )
        for _ in range(3)
    ]
    policy = gaussian_policy if kind == "awac" else tanh_gaussian_policy
    return loss_of(kind, policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN), critics)


# ------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("generic", [False, True])
@every_kind
def test_each_loss_reaches_its_own_parameters_only(kind: str, generic: bool) -> None:
    for name in losses_of(kind):
        for joint in (False, True):
            loss = make_generic(kind) if generic else make_loss(kind, 3)
            method = getattr(loss, f"{name}_loss")
            value = loss(make_batch(16))[f"loss_{name}"] if joint else method(make_batch(16))[0]
            value.backward()
            reached = {key for key, p in loss.named_parameters() if p.grad is not None}
            assert {key.split("_params")[0] for key in reached} == {NETWORKS[name]}
            part = getattr(loss, NETWORKS[name])
            assert all(p.grad is not None for p in (part.parameters() if isinstance(part, nn.Module) else [part]))
            assert all(p.requires_grad for p in loss.critic.parameters())
            assert not any(t.requires_grad for t in loss.target_qvalue_network_params.values(True, True))


class OnBackbone(EnsembleQValue):
    """Critics behind a layer that the policy has, too."""

    backbone: nn.Module

    def values(self, inputs: Tensor, members: Tensor | None = None) -> Tensor:
        observation, action = inputs.split([OBSERVATION_DIM, ACTION_DIM], -1)
        return super().values(torch.cat([self.backbone(observation), action], -1), members)


@every_kind
def test_separate_losses_leave_shared_layers_to_the_policy(kind: str) -> None:
    for separate in (False, True):
        torch.manual_seed(0)
        backbone = nn.Linear(OBSERVATION_DIM, OBSERVATION_DIM)
        build = gaussian_policy if kind == "awac" else tanh_gaussian_policy
        policy = build(OBSERVATION_DIM, ACTION_DIM, HIDDEN)
        next(m for m in policy.modules() if isinstance(m, nn.Sequential) and len(m) > 2).insert(0, backbone)
        critic = OnBackbone(OBSERVATION_DIM, ACTION_DIM, 2, HIDDEN)
        critic.backbone = backbone
        output = evaluate(loss_of(kind, policy, critic, separate_losses=separate), make_batch(8))
        through_critics, through_actor = (
            torch.autograd.grad(output[name], backbone.weight, allow_unused=True, retain_graph=True)[0]
            for name in ("loss_qvalue", "loss_actor")
        )
        assert (through_critics is None) == separate
        assert through_actor.abs().sum() > 0


# ------------------------------------------------------------------------------------------------------ keys


@every_kind
def test_nested_keys_give_the_same_values(kind: str) -> None:
    loss, plain = make_loss(kind, nested=True), make_loss(kind)
    loss.set_keys(
        reward=("agent", "gain"), done=("flags", "over"), terminated=("flags", "dead"), priority=("replay", "priority")
    )
    batch, plain_batch = nested_batch(make_batch(16)), make_batch(16)
    torch.testing.assert_close(evaluate(loss, batch), evaluate(plain, plain_batch))
    torch.testing.assert_close(batch["replay", "priority"], plain_batch["td_error"])
    expected = {("obs", "x"), ("agent", "act"), ("next", "obs", "x")}
    expected |= {("next", "agent", "gain"), ("next", "flags", "over"), ("next", "flags", "dead")}
    assert set(loss.in_keys) == expected


@every_kind
def test_keyword_dispatch_returns_the_out_keys_in_order(kind: str) -> None:
    loss, batch = make_loss(kind), make_batch(16)
    inputs = {"_".join([key] if isinstance(key, str) else key): batch[key] for key in loss.in_keys}
    torch.manual_seed(5)
    results = loss(**inputs)
    expected = evaluate(loss, batch)
    assert set(loss.out_keys) == set(expected)
    assert {key for key in expected if key.startswith("loss")} == {f"loss_{name}" for name in losses_of(kind)}
    torch.testing.assert_close(list(results), [expected[key] for key in loss.out_keys])


@every_kind
def test_only_forward_writes_and_only_the_priority(kind: str) -> None:
    loss, batch = make_loss(kind, 5), make_batch(8)
    before = batch.clone()
    infos = {name: getattr(loss, f"{name}_loss")(batch)[1] for name in losses_of(kind)}
    assert set(batch.keys(True, True)) == set(before.keys(True, True))
    evaluate(loss, batch)
    assert set(batch.keys(True, True)) - set(before.keys(True, True)) == {"td_error"}
    assert (batch.select(*before.keys(True, True)) == before).all()
    assert not any(value.requires_grad for info in infos.values() for value in info.values())
    torch.manual_seed(5)
    assert torch.equal(batch["td_error"], loss.qvalue_loss(before)[1]["td_error"].amax(-1))


# ------------------------------------------------------------------------------------- reductions and weights


@every_kind
def test_reductions(kind: str) -> None:
    mean, total, none = (
        evaluate(make_loss(kind, reduction=reduction), make_batch(8)) for reduction in ("mean", "sum", "none")
    )
    for name in losses_of(kind):
        key = f"loss_{name}"
        assert none[key].shape == (8,)
        torch.testing.assert_close(none[key].mean(), mean[key])
        torch.testing.assert_close(none[key].sum(), total[key])
    assert make_loss(kind, reduction="none")(make_batch(8)).batch_size == (8,)


@every_kind
def test_priority_weights_count_in_every_loss(kind: str) -> None:
    elements = evaluate(make_loss(kind, reduction="none"), make_batch(8))
    weights = torch.linspace(0.1, 2.0, 8)
    for shape, key in (((8,), "priority_weight"), ((8, 1), ("replay", "w"))):
        loss = make_loss(kind)
        loss.set_keys(priority_weight=key)
        weighted = evaluate(loss, make_batch(8).set(key, weights.view(shape)))
        for name in losses_of(kind):
            expected = (elements[f"loss_{name}"] * weights).sum() / weights.sum()
            torch.testing.assert_close(weighted[f"loss_{name}"], expected)


@every_kind
def test_batch_shapes(kind: str) -> None:
    flat, folded = (evaluate(make_loss(kind, 5), batch) for batch in (make_batch(12), make_batch(12).reshape(3, 4)))
    for name in ("actor", "qvalue") if kind in ("awac", "sac") else ("actor", "alpha"):
        torch.testing.assert_close(flat[f"loss_{name}"], folded[f"loss_{name}"])
    assert all(value.shape == () for value in folded.values())


# ------------------------------------------------------------------------------------ the critics' target


@pytest.mark.parametrize(
    ("flags", "target"), [({}, 1.45), ({"done", "truncated"}, 1.45), ({"done", "terminated"}, 1.0)]
)
@every_kind
def test_td_target_by_hand(kind: str, flags: set[str], target: float) -> None:
    options: dict[str, Any] = {"cql": {"conservative_weight": 0.0}, "lagrange": {"lagrange_threshold": 0.0}}
    loss = make_loss(kind, 3, **options.get(kind, {}))
    if kind == "lagrange":
        loss.conservative_weight = 0.0
    if kind == "sac":
        loss.entropy_backup = False
    with torch.no_grad():  # Q = (1, 2, 4) for every action; targets half of it
        for parameter in loss.critic.parameters():
            parameter.zero_()
        loss.critic.biases[-1].copy_(torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1))
        loss.target_qvalue_network_params.update_(loss.qvalue_network_params.data * 0.5)
    loss.make_value_estimator(gamma=0.9)
    batch = make_batch(4)
    batch["next", "reward"] = torch.ones(4, 1)
    for name in ("done", "terminated", "truncated"):
        batch["next", name] = torch.full((4, 1), name in flags)
    value, info = loss.qvalue_loss(batch)
    assert value.item() == pytest.approx(sum((q - target) ** 2 for q in (1.0, 2.0, 4.0)))
    torch.testing.assert_close(info["td_error"], (torch.tensor([1.0, 2.0, 4.0]) - target).square().expand(4, 3))
    replaced = loss.qvalue_loss(batch, next_value=torch.full((4,), 10.0))[0].item()
    other = 1.0 if "terminated" in flags else 10.0
    assert replaced == pytest.approx(sum((q - other) ** 2 for q in (1.0, 2.0, 4.0)))


@pytest.mark.parametrize("generic", [False, True])
def test_redq_subset_target(generic: bool) -> None:
    """Five fixed targets: min of 2 of them is q_k with probability (5 - k) / 10, the same pair for all rows."""
    loss = make_loss("sac", 5, aggregation="subset", entropy_backup=False)
    targets = torch.tensor([3.0, 1.0, 5.0, 4.0, 2.0])
    with torch.no_grad():
        for parameter in loss.critic.parameters():
            parameter.zero_()
        loss.critic.biases[-1].copy_(targets.view(5, 1, 1))
        loss.target_qvalue_network_params.update_(loss.qvalue_network_params.data)
    if generic:
        critics = separate_critics(loss.critic)
        policy = loss.actor_network
        loss = loss_of("sac", policy, GenericEnsemble(critics), aggregation="subset", entropy_backup=False)
    counts = torch.zeros(6)
    batch = make_batch(2)
    torch.manual_seed(0)
    draws = 1000
    for _ in range(draws):
        first, second = loss.next_state_value(batch).tolist()
        assert first == second
        counts[int(first)] += 1
    assert counts[5] == 0
    torch.testing.assert_close(counts[1:5] / draws, torch.tensor([0.4, 0.3, 0.2, 0.1]), atol=0.06, rtol=0)
    loss.qvalue_loss(batch)[0].backward()
    if not generic:  # the target is made of two, all five learn
        assert (loss.critic.biases[-1].grad != 0).all()


@pytest.mark.parametrize(("aggregation", "size"), [("min", 2), ("mean", 2), ("subset", 5), ("subset", 1)])
@every_kind
def test_aggregations_of_the_targets(kind: str, aggregation: Any, size: int) -> None:
    loss = make_loss(kind, 5, aggregation=aggregation, subset_size=size)
    loss.entropy_backup = False
    seen = []
    original = type(loss)._qvalues
    loss._qvalues = lambda *args: seen.append(args[2]) or original(loss, *args)  # type: ignore[method-assign]
    torch.manual_seed(2)
    batch = make_batch(6)
    found = loss.next_state_value(batch)
    judged = batch["next"].clone().set(loss.tensor_keys.action, seen[0])
    values = loss.target_qvalue_network(judged)["state_action_value"]
    if (aggregation, size) == ("subset", 1):
        assert all(torch.isclose(values, found.unsqueeze(-1)).any(-1))
    else:
        expected = values.mean(-1) if aggregation == "mean" else values.amin(-1)
        torch.testing.assert_close(found, expected)


def test_members_are_distinct_and_seeded() -> None:
    generator = torch.Generator().manual_seed(1)
    draws = [draw_members(5, 2, generator) for _ in range(50)]
    assert all(len(set(pair.tolist())) == 2 for pair in draws)
    values = torch.randn(7, 5)
    found = aggregate_critics(values, "subset", 2, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, values[:, draws[0]].amin(-1), rtol=0, atol=0)


@every_kind
def test_the_generator_of_the_subsets_is_saved(kind: str) -> None:
    batch = make_batch(6)
    loss, other = (
        make_loss(kind, 5, aggregation="subset", generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
    )
    loss.qvalue_loss(batch)
    other.load_state_dict(loss.state_dict())
    draws = []
    for twin in (loss, copy.deepcopy(loss), other):
        torch.manual_seed(0)
        draws.append(torch.stack([twin.next_state_value(batch) for _ in range(8)]))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])


# ------------------------------------------------------------------------------------ parameters and copying


@every_kind
def test_update_targets_equals_soft_update(kind: str) -> None:
    loss = make_loss(kind)
    updater = SoftUpdate(loss, tau=0.25)
    twin = copy.deepcopy(loss)
    for module in (loss, twin):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(1.0)
    updater.step()
    twin.update_targets(0.25)
    torch.testing.assert_close(dict(loss.state_dict()), dict(twin.state_dict()))
    torch.testing.assert_close(evaluate(loss, make_batch(4)), evaluate(twin, make_batch(4)))


@every_kind
def test_state_dict_round_trip(kind: str) -> None:
    trained = make_loss(kind, 5)
    for index, name in enumerate(sorted(trained._schedulable_buffers)):
        setattr(trained, name, 0.5 + index)
    trained.make_value_estimator(gamma=0.9)
    fresh = make_loss(kind, 5)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.uniform_()
    fresh.load_state_dict(trained.state_dict())
    torch.testing.assert_close(evaluate(fresh, make_batch(8)), evaluate(trained, make_batch(8)), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "name", "changed"),
    [
        ("awac", "lam", {"loss_actor"}),
        ("sac", "target_entropy", {"loss_alpha"}),
        ("cql", "conservative_weight", {"loss_qvalue"}),
        ("cql", "lagrange_threshold", set()),
        ("lagrange", "conservative_weight", {"loss_qvalue", "loss_lagrange"}),
        ("lagrange", "lagrange_threshold", {"loss_qvalue", "loss_lagrange"}),
    ],
)
def test_schedules_change_the_buffers_in_place(kind: str, name: str, changed: set[str]) -> None:
    loss = make_loss(kind)
    with torch.no_grad():
        if kind != "awac":
            loss.log_alpha.fill_(0.3)
    buffer, before = getattr(loss, name), evaluate(loss, make_batch(16))
    setattr(loss, name, 0.25)
    assert getattr(loss, name) is buffer
    assert loss.state_dict()[name].item() == 0.25
    after = evaluate(loss, make_batch(16))
    assert {key for key, value in after.items() if not torch.equal(value, before[key])} == changed


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
@pytest.mark.parametrize("generic", [False, True])
@every_kind
def test_copies_are_whole_and_independent(kind: str, copied: Any, generic: bool) -> None:
    loss = make_generic(kind) if generic else make_loss(kind)
    twin = copied(loss)
    before = evaluate(loss, make_batch(8))
    torch.testing.assert_close(evaluate(twin, make_batch(8)), before, rtol=0, atol=0)
    assert {id(p) for p in twin.critic.parameters()} <= {id(p) for p in twin.parameters()}
    updater = SoftUpdate(twin, tau=0.5)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    for _ in range(2):  # log alpha starts at 0, where its loss is 0
        losses = evaluate(twin, make_batch(8))
        optimiser.zero_grad()
        sum(losses[f"loss_{name}"] for name in losses_of(kind)).backward()
        optimiser.step()
    updater.step()
    after = evaluate(twin, make_batch(8))
    assert all(not torch.equal(after[f"loss_{name}"], before[f"loss_{name}"]) for name in losses_of(kind))
    torch.testing.assert_close(evaluate(loss, make_batch(8)), before, rtol=0, atol=0)


@every_kind
def test_to_keeps_modules_and_parameters_together(kind: str) -> None:
    loss = make_loss(kind).to(torch.float64)
    assert {id(p) for p in loss.critic.parameters()} <= {id(p) for p in loss.parameters()}
    with double_precision():
        output = evaluate(loss, make_batch(4))
        assert all(output[f"loss_{name}"].dtype == torch.float64 for name in losses_of(kind))
        expected = make_loss(kind)
        expected.load_state_dict(loss.state_dict())
        torch.testing.assert_close(output, evaluate(expected, make_batch(4)))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch, of TorchRL's tanh
@pytest.mark.filterwarnings("ignore:.*inline_inbuilt_nn_modules:FutureWarning")  # torch, of tensordict
@pytest.mark.parametrize("kind", ["awac", "lagrange"])  # the other two are parts of the second
def test_compiles_without_a_graph_break(kind: str) -> None:
    loss, batch = make_loss(kind, 3), make_batch(16)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = [evaluate(module, batch.clone()) for module in (loss, compiled)]
    torch.testing.assert_close(results[1], results[0])


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("awac", {"lam": 0.0}, "lam must be a number in .*, found 0.0"),
        ("awac", {"weighting": "max"}, "weighting is 'max'; expected"),
        ("awac", {"aggregation": "subset", "subset_size": 3}, "subset_size is 3; expected 1 to 2"),
        ("sac", {"aggregation": "median"}, "aggregation is 'median'; expected"),
        ("sac", {"actor_aggregation": "subset"}, "actor_aggregation is 'subset'; expected"),
        ("sac", {"alpha_init": 0.0}, "alpha_init must be a number in .*, found 0.0"),
        ("sac", {"num_qvalue_nets": 3}, "num_qvalue_nets is 3, but the ensemble holds 2"),
        ("cql", {"conservative_weight": -1.0}, "conservative_weight must be a number in .*, found -1.0"),
        ("cql", {"num_random": 0}, "num_random must be a whole number in .*, found 0"),
        ("cql", {"gap_reduction": "max"}, "gap_reduction is 'max'; expected"),
        ("cql", {"backup": "max"}, "backup is 'max'; expected"),
        ("cql", {"entropy_backup": True}, "entropy_backup needs backup='sample'"),
        ("cql", {"lagrange": "gap"}, "lagrange is 'gap'; expected"),
    ],
)
def test_wrong_arguments_are_refused(kind: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_loss(kind, **arguments)


def test_a_multiplier_that_is_not_there_is_not_trained() -> None:
    with pytest.raises(ValueError, match="There is no multiplier to train"):
        make_loss("cql").lagrange_loss(make_batch(4))  # type: ignore[operator]


def test_log_probability_per_dimension_is_refused() -> None:
    policy = gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN)
    policy.module[-1].distribution_class = torch.distributions.Normal
    loss = loss_of("awac", policy, EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, 2, HIDDEN))
    with pytest.raises(ValueError, match=r"log-probability has shape \[4, 2\]"):
        loss.actor_loss(make_batch(4))  # type: ignore[operator]


def test_target_entropy_needs_a_spec() -> None:
    policy = tanh_gaussian_policy(OBSERVATION_DIM, ACTION_DIM, HIDDEN)
    policy._spec = None
    with pytest.raises(ValueError, match="target_entropy is None and the policy has no spec"):
        loss_of("sac", policy, EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, 2, HIDDEN))
