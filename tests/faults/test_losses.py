"""Losses in a pipeline of one's own, numbered as in docs/reliability.md."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchrl.objectives
from tensordict import TensorDict
from tensordict.nn import (
    InteractionType,
    NormalParamExtractor,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
)
from torch import Tensor, nn
from torchrl.data import Bounded, Composite
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SoftUpdate, ValueEstimators, group_optimizers

from o3f.errors import DivergenceError
from o3f.modules import (
    EnsembleQValue,
    GenericEnsemble,
    gaussian_policy,
    latent_actor,
    latent_decoder,
    latent_encoder,
    tanh_gaussian_policy,
    value_network,
)
from o3f.objectives import AWACLoss, CQLLoss, IQLLoss, LAPOLoss, SACLoss
from o3f.objectives.base import BoundLoss

HIDDEN = (8, 8)


def critic(number: int = 2) -> EnsembleQValue:
    return EnsembleQValue(3, 2, number, HIDDEN)


def other_critics() -> GenericEnsemble:
    layers = [nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1)) for _ in range(3)]
    return GenericEnsemble([TensorDictModule(each, ["action"], ["state_action_value"]) for each in layers])


LOSSES: dict[str, Callable[[], BoundLoss]] = {
    "iql": lambda: IQLLoss(gaussian_policy(3, 2, HIDDEN), critic(), value_network(3, HIDDEN)),
    "iql, other critics": lambda: IQLLoss(gaussian_policy(3, 2, HIDDEN), other_critics(), value_network(3, HIDDEN)),
    "awac": lambda: AWACLoss(gaussian_policy(3, 2, HIDDEN, log_std_rule="sigmoid"), critic()),
    "sac": lambda: SACLoss(tanh_gaussian_policy(3, 2, HIDDEN), critic(), alpha_init=0.5),
    "cql": lambda: CQLLoss(tanh_gaussian_policy(3, 2, HIDDEN, init="orthogonal"), critic(), lagrange="weighted_gap"),
    "lapo": lambda: LAPOLoss(
        latent_actor(3, 4, HIDDEN),
        latent_encoder(3, 2, 4, HIDDEN),
        latent_decoder(3, 2, 4, HIDDEN),
        critic(5),
        value_network(3, HIDDEN),
    ),
}


def batch(size: int = 6) -> TensorDict:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator)

    over = torch.zeros(size, 1, dtype=torch.bool)
    following = {"observation": draw(3), "reward": draw(1), "done": over, "terminated": over}
    return TensorDict(
        {"observation": draw(3), "action": draw(2).tanh() * 0.9, "next": TensorDict(following, [size])}, [size]
    )


@pytest.mark.parametrize("name", LOSSES)
def test_f73_all_parameters_are_drawn_anew(name: str) -> None:
    torch.manual_seed(0)
    loss = LOSSES[name]()
    loss = copy.deepcopy(loss)
    loss.update_targets(0.0)  # TorchRL warns of targets that nobody steps
    with torch.no_grad():
        for value in (*loss.parameters(), *loss.buffers()):
            if value.is_floating_point() and value.ndim:
                value += 1000
        for value in loss.parameters():
            value.fill_(1000.0) if not value.ndim else value
    before = {key: value.clone() for key, value in loss.named_parameters()}
    loss.reset_parameters_recursive()
    for key, value in loss.named_parameters():
        assert (value != before[key]).all(), key
        assert value.abs().max() < 10, key
    for network in loss._has_update_associated:
        target: Any = loss._modules.get(f"target_{network}_params")
        if target is not None:
            held = dict(target.named_buffers())
            for key, value in getattr(loss, f"{network}_params").named_parameters():
                assert torch.equal(held[key], value), (network, key)
    assert_joined(loss)


def assert_joined(loss: BoundLoss) -> None:
    """The networks that compute the losses hold the tensors that optimisers and target updaters see."""
    seen = {id(value) for value in (*loss.parameters(), *loss.buffers())}
    for name in loss._bound_networks():
        for value in loss.__dict__[name].parameters():
            assert id(value) in seen, name
    rows = batch()
    total = sum(value.sum() for key, value in loss(rows).items() if key.startswith("loss_"))
    gradients = torch.autograd.grad(total, list(loss.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in gradients)


def test_f73_layers_are_drawn_as_they_were_first() -> None:
    policy = gaussian_policy(3, 2, (8,))
    loss = IQLLoss(policy, critic(), value_network(3, HIDDEN, init="default"))
    torch.manual_seed(1)
    loss.reset_parameters_recursive()
    network = policy.module[0].module
    assert torch.equal(network.log_std, torch.zeros(2))
    weight = network.mean[0].weight
    torch.testing.assert_close(weight.T @ weight, 2 * torch.eye(3))  # orthogonal, with gain sqrt(2)
    members = loss.critic.weights[1]
    assert not torch.equal(members[0], members[1])
    torch.testing.assert_close(members[0].T @ members[0], 2 * torch.eye(8))


def test_f73_parameters_that_nothing_draws_are_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(3, 1), nn.Parameter(torch.ones(1))

        def forward(self, observation: Tensor) -> Tensor:
            value: Tensor = self.scale * self.layer(observation)
            return value

    value = TensorDictModule(Scaled(), ["observation"], ["state_value"])
    loss = IQLLoss(gaussian_policy(3, 2, HIDDEN), critic(), value)
    with pytest.warns(UserWarning, match=r"\['module.scale'\] of TensorDictModule cannot be drawn anew"):
        loss.reset_parameters_recursive()


@pytest.mark.parametrize("weighting", ["softmax", "exp"])
def test_f74_awacs_weights_leave_padding_out(weighting: Any) -> None:
    torch.manual_seed(0)
    loss = AWACLoss(gaussian_policy(3, 2, HIDDEN), critic(), weighting=weighting)
    whole = batch()
    advantage = torch.linspace(-1, 1, 6)
    padded = torch.cat([whole, batch(4)])
    padded["collector", "mask"] = (torch.arange(10) < 6)[:, None]
    for state, filler in ((0.0, 0.0), (50.0, 50.0), (1.0, float("nan"))):
        padded["observation"][6:] = state
        filled = torch.cat([advantage, torch.full((4,), filler)])
        expected = loss.actor_loss(whole, advantage)[0]
        torch.testing.assert_close(loss.actor_loss(padded, filled)[0], expected)
        (gradient,) = torch.autograd.grad(
            loss.actor_loss(padded, filled)[0], [loss.actor_network.module[0].module.log_std]
        )
        assert gradient.isfinite().all()


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_f74_what_padded_rows_hold_reaches_no_loss_gradient_or_figure(name: str, apart: bool) -> None:
    """With NaN in all of them, and in what was computed of them before: as with numbers."""
    torch.manual_seed(0)
    loss: Any = LOSSES[name]()
    loss.update_targets(0.0)
    found = []
    for filler in (0.5, float("nan")):
        rows = batch(10)
        rows["collector", "mask"] = (torch.arange(10) < 6)[:, None]
        for key in ("observation", "action", ("next", "observation"), ("next", "reward")):
            rows[key][6:] = filler
        torch.manual_seed(1)
        output = dict(loss(rows).items()) if not apart else {"loss": one_after_the_other(name, loss, rows)}
        total = sum(value for key, value in output.items() if key.startswith("loss"))
        gradients = torch.autograd.grad(total, list(loss.parameters()), allow_unused=True)
        found.append([*output.values(), *[each for each in gradients if each is not None]])
    assert len(found[0]) > 5
    for one, other in zip(*found, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)


def one_after_the_other(name: str, loss: Any, rows: TensorDict) -> Tensor:
    """The sum of the losses, each with what the others need computed beforehand, as learners do."""
    if name == "lapo":
        action, advantage = loss.target_action(rows), loss.advantage(rows)
        return loss.value_loss(rows, action)[0] + loss.vae_loss(rows, advantage)[0] + loss.actor_loss(rows)[0]
    if name.startswith("iql"):
        target, (value, following) = loss.target_qvalue(rows), loss.state_values(rows)
        given = loss.value_loss(rows, target)[0] + loss.qvalue_loss(rows, following)[0]
        return given + loss.actor_loss(rows, target, value)[0]
    if name == "awac":
        given = loss.qvalue_loss(rows, loss.next_state_value(rows))[0]
        return given + loss.actor_loss(rows, loss.advantage(rows))[0]
    drawn, following = loss.draw(rows), loss.next_state_value(rows)
    evaluated = {"evaluated": loss.evaluate_gap(rows, loss.propose(rows))} if name == "cql" else {}
    given = loss.qvalue_loss(rows, following, **evaluated)[0] + loss.alpha_loss(rows, drawn[1])[0]
    return given + loss.actor_loss(rows, drawn)[0]


@pytest.mark.parametrize("mode", ["mean", "non_tensor"])
@pytest.mark.parametrize("name", ["iql", "sac", "cql"])
def test_f74_the_entropy_is_that_of_the_rows_that_count(name: str, mode: str) -> None:
    torch.manual_seed(0)
    loss: Any = LOSSES[name]()
    loss.update_targets(0.0)
    if mode == "non_tensor":
        loss.reduction, loss.scalar_output_mode = "none", mode
    rows = batch(10)
    told = torch.linspace(-3, 2, 10)
    loss.draw = lambda rows: (torch.zeros(10, 2), told)
    if name == "iql":
        loss.actor_loss = lambda *given: (torch.zeros(10), {"log_prob": told})
    assert loss(rows.clone())["entropy"].item() == pytest.approx(-told.mean().item())
    rows["shifted_valid"] = torch.arange(10) < 6
    assert loss(rows)["entropy"].item() == pytest.approx(-told[:6].mean().item())


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_f74_next_states_may_bring_a_mask_of_their_own(name: str) -> None:
    totals = []
    for given in (False, True):
        torch.manual_seed(0)
        loss: Any = LOSSES[name]()
        loss.update_targets(0.0)
        rows = batch(10)
        if given:
            rows["next", "shifted_valid"] = torch.ones(10, dtype=torch.bool)
        totals.append(sum(value.sum() for key, value in loss(rows).items() if key.startswith("loss_")))
    assert torch.equal(*totals)


@pytest.mark.parametrize("form", ["one", "list"])
@pytest.mark.parametrize("separate", [True, False])
def test_f75_critics_to_copy_that_share_layers_are_refused(form: str, separate: bool) -> None:
    policy = gaussian_policy(3, 2, HIDDEN)
    trunk = policy.module[0].module.mean[0]

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.last = trunk, nn.Linear(10, 1)

        def forward(self, observation: Tensor, action: Tensor) -> Tensor:
            value: Tensor = self.last(torch.cat([self.trunk(observation), action], -1))
            return value

    critics = [TensorDictModule(Head(), ["observation", "action"], ["state_action_value"]) for _ in range(2)]
    given: Any = critics[0] if form == "one" else critics
    message = r"shares its parameter 'module.trunk.weight' .* copy.deepcopy\(critic\) if layers of its own are meant"
    with pytest.raises(ValueError, match=message):
        AWACLoss(policy, given, separate_losses=separate)
    with pytest.raises(ValueError, match=message):
        IQLLoss(policy, given, value_network(3, HIDDEN), separate_losses=separate)
    own = copy.deepcopy(given) if form == "one" else [copy.deepcopy(critic) for critic in critics]
    loss = AWACLoss(policy, own, separate_losses=separate)
    assert loss.critic.num_critics == 2
    shared = GenericEnsemble(critics)  # already copies of its own: nothing is undone by the loss
    assert AWACLoss(policy, shared).critic is shared


TORCHRLS = {"delay_actor": False, "delay_qvalue": True, "deactivate_vmap": True, "reduction": None, "gamma": None}


def sac_parts() -> tuple[Any, list[Any]]:
    """Networks as TorchRL's own recipe for soft actor-critic makes them."""
    torch.manual_seed(0)
    sizes = {"num_cells": [16, 16], "activation_class": nn.ReLU}
    head = nn.Sequential(MLP(in_features=3, out_features=4, **sizes), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(head, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=Bounded(-1.0, 1.0, (2,)),
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -1.0, "high": 1.0, "tanh_loc": False},
        default_interaction_type=InteractionType.RANDOM,
        return_log_prob=False,
    )
    critics = [ValueOperator(MLP(in_features=5, out_features=1, **sizes), ["action", "observation"]) for _ in range(2)]
    return actor, critics


def sac_recipe(loss_class: Any, *, one_critic: bool) -> tuple[Any, list[TensorDict]]:
    """The core of TorchRL's recipe: the loss, target updater, optimisers and updates, with prioritised weights."""
    actor, critics = sac_parts()
    loss = loss_class(
        actor_network=actor,
        qvalue_network=critics[0] if one_critic else critics,
        num_qvalue_nets=2,
        loss_function="l2",
        delay_actor=False,
        delay_qvalue=True,
        alpha_init=0.5,
    )
    loss.make_value_estimator(gamma=0.97)
    updater = SoftUpdate(loss, eps=0.99)
    optimiser = group_optimizers(
        torch.optim.Adam(list(loss.actor_network_params.flatten_keys().values()), lr=3e-3),
        torch.optim.Adam(list(loss.qvalue_network_params.flatten_keys().values()), lr=3e-3),
        torch.optim.Adam([loss.log_alpha], lr=3e-3),
    )
    torch.manual_seed(1)
    told = []
    for _ in range(4):
        sampled = batch(16)
        losses = loss(sampled)
        (losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_alpha"]).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        updater.step()
        told.append(losses.detach().set("priority", sampled["td_error"].mean()))
    return loss, told


def test_f76_torchrls_recipe_for_sac_runs_with_one_import_changed() -> None:
    theirs, expected = sac_recipe(torchrl.objectives.SACLoss, one_critic=False)
    ours, found = sac_recipe(SACLoss, one_critic=False)
    for one, other in zip(found, expected, strict=True):
        assert set(one.keys()) == set(other.keys())
        for key in other.keys() - {"priority"}:  # TorchRL's priority is each critic's, ours the largest of them
            torch.testing.assert_close(one[key], other[key], msg=key)
    torch.testing.assert_close(ours.log_alpha, theirs.log_alpha)
    pairs = zip(
        ours.actor_network_params.values(True, True), theirs.actor_network_params.values(True, True), strict=True
    )
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference)
    loss, told = sac_recipe(SACLoss, one_critic=True)
    assert loss.critic.num_critics == 2
    assert not torch.equal(loss.critic.weights[0][0], loss.critic.weights[0][1])
    assert all(each["loss_qvalue"].isfinite() for each in told)


@pytest.mark.parametrize("name", ["iql", "awac", "sac", "cql"])
def test_f76_arguments_of_torchrl_are_accepted_or_refused_by_name(name: str) -> None:
    policy = (tanh_gaussian_policy if name in ("sac", "cql") else gaussian_policy)(3, 2, HIDDEN)
    networks: Any = (policy, critic(), *([value_network(3, HIDDEN)] if name == "iql" else []))
    make = {"iql": IQLLoss, "awac": AWACLoss, "sac": SACLoss, "cql": CQLLoss}[name]
    loss = make(*networks, **TORCHRLS, scalar_output_mode="exclude")
    assert loss.reduction == "mean"
    loss.set_vmap_randomness("same")
    loss.set_keys(log_prob=("agent", "lp"))
    with pytest.raises(TypeError, match=r"Passing gamma / lambda .*make_value_estimator\(gamma=...\)"):
        make(*networks, gamma=0.9)
    with pytest.raises(RuntimeError, match="Setting 'priority_key' via the constructor is deprecated"):
        make(*networks, priority_key="td")
    with pytest.raises(ValueError, match="does not take delay_actor=True: there is no target policy"):
        make(*networks, delay_actor=True)
    with pytest.raises(ValueError, match=r"does not take delay_qvalue=False: .* tau=1"):
        make(*networks, delay_qvalue=False)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lamda'"):
        make(*networks, lamda=0.1)


@pytest.mark.parametrize(("mode", "entropy"), [(None, "elements"), ("exclude", None), ("non_tensor", "mean")])
@pytest.mark.parametrize("name", ["iql", "sac"])
def test_f76_figures_beside_elementwise_losses_as_in_torchrl(name: str, mode: Any, entropy: str | None) -> None:
    torch.manual_seed(0)
    networks: Any = (gaussian_policy(3, 2, HIDDEN), critic(), value_network(3, HIDDEN))
    if name == "sac":
        networks = (tanh_gaussian_policy(3, 2, HIDDEN), critic())
    loss: Any = (IQLLoss if name == "iql" else SACLoss)(*networks, reduction="none", scalar_output_mode=mode)
    loss.update_targets(0.0)
    output = loss(batch())
    assert output.batch_size == (6,)
    assert output["loss_qvalue"].shape == (6,)
    if entropy is None:
        assert "entropy" not in output
    else:
        assert output["entropy"].shape == ((6,) if entropy == "elements" else ())


def test_f76_the_target_entropy_is_counted_from_a_spec() -> None:
    policy = tanh_gaussian_policy(3, 2, HIDDEN)
    for target in (None, "auto"):
        assert SACLoss(policy, critic(), target_entropy=target).target_entropy == -2
    bare = ProbabilisticTensorDictSequential(*policy.module)
    with pytest.raises(ValueError, match="action_spec="):
        SACLoss(bare, critic())
    for spec in (Bounded(-1.0, 1.0, (2,)), Composite({"action": Bounded(-1.0, 1.0, (2,))})):
        assert SACLoss(bare, critic(), target_entropy="auto", action_spec=spec).target_entropy == -2
    assert SACLoss(bare, critic(), target_entropy=-0.5).target_entropy == -0.5
    assert SACLoss(bare, critic(), target_entropy=0.0).target_entropy == 0


@pytest.mark.parametrize("name", LOSSES)
def test_f78_losses_in_bfloat16_are_about_those_in_float32(name: str) -> None:
    torch.manual_seed(0)
    exact = LOSSES[name]()
    rounded = copy.deepcopy(exact).to(torch.bfloat16)
    rows = batch(64)
    half = rows.apply(lambda value: value.to(torch.bfloat16) if value.is_floating_point() else value)
    found = {}
    for key, loss, data in (("float32", exact, rows), ("bfloat16", rounded, half)):
        loss.update_targets(0.0)
        torch.manual_seed(1)
        found[key] = loss(data)
        sum(value for entry, value in found[key].items() if entry.startswith("loss")).backward()
        assert all(value.grad.isfinite().all() for value in loss.parameters() if value.grad is not None)
    entry = "loss_actor" if name == "awac" else "loss_qvalue"
    assert found["bfloat16"][entry].float().item() == pytest.approx(found["float32"][entry].item(), rel=0.5, abs=0.5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_f76_ends_of_episodes_may_be_numbers(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    loss = LOSSES[name]()
    loss.update_targets(0.0)
    rows = batch()
    for key in ("done", "terminated"):
        rows["next", key] = torch.tensor([[True], [False]] * 3)
    numbers = rows.clone()
    for key in ("done", "terminated"):
        numbers["next", key] = rows["next", key].to(dtype)
    told = []
    for given in (rows, numbers):
        torch.manual_seed(1)
        told.append(loss(given))
    assert all(torch.equal(told[0][key], told[1][key]) for key in sorted(told[0].keys()))
    assert numbers["next", "terminated"].dtype is dtype


@pytest.mark.parametrize("name", LOSSES)
def test_f76_impossible_discounts_are_refused(name: str) -> None:
    loss = LOSSES[name]()
    for wrong in (1.5, -0.5, float("nan"), torch.tensor(1.5)):
        with pytest.raises(ValueError, match=r"gamma must be a number in \[0, 1\], found"):
            loss.make_value_estimator(gamma=wrong)
    with pytest.raises(ValueError, match=r"lmbda must be a number in \[0, 1\]"):
        loss.make_value_estimator(ValueEstimators.TDLambda, gamma=0.9, lmbda=1.5)
    assert loss.make_value_estimator(gamma=1).value_estimator.gamma == 1


@pytest.mark.parametrize("name", LOSSES)
def test_f76_an_empty_batch_is_refused(name: str) -> None:
    loss = LOSSES[name]()
    loss.update_targets(0.0)
    with pytest.raises(ValueError, match=r"The batch is empty, \[0\]: .*Loss needs at least one row"):
        loss(batch()[:0])


@pytest.mark.parametrize("name", ["iql", "awac", "sac", "cql", "lapo"])
def test_f76_forms_that_are_unknown_and_policies_without_a_density(name: str) -> None:
    policy: Any = (tanh_gaussian_policy if name in ("sac", "cql") else gaussian_policy)(3, 2, HIDDEN)
    networks: list[Any] = [policy, critic(), *([value_network(3, HIDDEN)] if name == "iql" else [])]
    if name == "lapo":
        latent = latent_actor(3, 4, HIDDEN), latent_encoder(3, 2, 4, HIDDEN), latent_decoder(3, 2, 4, HIDDEN)
        networks = [*latent, critic(5), value_network(3, HIDDEN)]
    make: Any = {"iql": IQLLoss, "awac": AWACLoss, "sac": SACLoss, "cql": CQLLoss, "lapo": LAPOLoss}[name]
    with pytest.raises(ValueError, match=r"reduction must be one of .*'mean', 'sum', 'none'.*, got 'avg'"):
        make(*networks, reduction="avg")
    if name == "lapo":  # its distance is the paper's, and its policy has no density
        return
    with pytest.raises(ValueError, match=r"loss_function must be one of .*'l2', 'l1', 'smooth_l1'.*, got 'l3'"):
        make(*networks, loss_function="l3")
    networks[0] = TensorDictModule(nn.Linear(3, 2), ["observation"], ["action"])
    with pytest.raises(TypeError, match=r"policy must have get_dist, .* and TensorDictModule has not"):
        make(*networks)


@pytest.mark.parametrize("make", [SACLoss, CQLLoss])
def test_f76_the_target_entropy_is_finite_and_of_the_policys_actions(make: Any) -> None:
    policy = tanh_gaussian_policy(3, 2, HIDDEN)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="target_entropy must be a number in"):
            make(policy, critic(), target_entropy=wrong)
    five = Bounded(-1.0, 1.0, (5,))
    with pytest.raises(ValueError, match="action_spec= has 5 actions and the policy's spec 2"):
        make(policy, critic(), action_spec=five)
    bare = ProbabilisticTensorDictSequential(*policy.module)
    with pytest.raises(ValueError, match="counts 5 actions, by action_spec=, and the policy has 2"):
        SACLoss(bare, critic(), action_spec=five).draw(batch())


def test_f76_cql_tells_what_it_cannot_draw_around_and_which_returns_it_cannot_take() -> None:
    loss: Any = CQLLoss(tanh_gaussian_policy(3, 2, HIDDEN), critic(), calibrate=True)
    rows = batch().set("return_to_go", torch.zeros(6))
    with pytest.raises(ValueError, match=r"'return_to_go' has shape \[6\], expected \[6, 1\]"):
        loss.qvalue_loss(rows)
    rows["observation"][0] = torch.nan
    with pytest.raises(DivergenceError, match=r"actions cannot be drawn .* Check the observations for NaN"):
        loss.propose(rows)
