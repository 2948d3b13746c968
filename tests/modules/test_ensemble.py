"""EnsembleQValue: m critics in one call, with the numbers of m critics called one by one."""

import copy
import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.modules import MLP, ValueOperator

from o3f.modules import EnsembleQValue, GenericEnsemble, mlp


def inputs(*batch: int, observation_dim: int = 3, action_dim: int = 2) -> TensorDict:
    return TensorDict(
        {"observation": torch.randn(*batch, observation_dim), "action": torch.randn(*batch, action_dim)},
        batch,
    )


def plain_loop(state: dict[str, torch.Tensor], row: list[float], member: int, layers: int, norm: bool) -> float:
    """One critic's value of one row, in float64, from the state_dict alone."""
    hidden = row
    for layer in range(layers):
        weight = state[f"weights.{layer}"][member].double().tolist()
        bias = state[f"biases.{layer}"][member, 0].double().tolist()
        hidden = [bias[o] + sum(hidden[i] * weight[i][o] for i in range(len(hidden))) for o in range(len(bias))]
        if layer == layers - 1:
            return hidden[0]
        if norm:
            mean = sum(hidden) / len(hidden)
            scale = math.sqrt(sum((h - mean) ** 2 for h in hidden) / len(hidden) + 1e-5)
            gain = state[f"norm_weights.{layer}"][member, 0].double().tolist()
            shift = state[f"norm_biases.{layer}"][member, 0].double().tolist()
            hidden = [(h - mean) / scale * g + s for h, g, s in zip(hidden, gain, shift, strict=True)]
        hidden = [max(h, 0.0) for h in hidden]
    raise AssertionError


def test_a_value_computed_by_hand():
    critic = EnsembleQValue(1, 1, num_critics=2, hidden_sizes=(2,))
    with torch.no_grad():
        critic.weights[0].copy_(torch.tensor([[[1.0, -1.0], [2.0, 0.5]], [[0.0, 1.0], [1.0, 1.0]]]))
        critic.biases[0].copy_(torch.tensor([[[0.5, 0.0]], [[0.0, -4.0]]]))
        critic.weights[1].copy_(torch.tensor([[[3.0], [-2.0]], [[1.0], [10.0]]]))
        critic.biases[1].copy_(torch.tensor([[[0.25]], [[-1.0]]]))
    td = TensorDict({"observation": torch.tensor([1.0]), "action": torch.tensor([2.0])}, [])
    # member 0: relu(1 + 4 + .5, -1 + 1) = (5.5, 0) -> 16.75; member 1: relu(2, 1 + 2 - 4) = (2, 0) -> 1
    assert critic(td)["state_action_value"].tolist() == [16.75, 1.0]


@pytest.mark.parametrize("layer_norm", [False, True])
def test_equals_a_plain_loop_in_float64(layer_norm):
    torch.manual_seed(0)
    critic = EnsembleQValue(3, 2, num_critics=3, hidden_sizes=(7, 4), layer_norm=layer_norm)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    td = inputs(5)
    values = critic(td)["state_action_value"]
    rows = torch.cat([td["observation"], td["action"]], -1).double().tolist()
    expected = [[plain_loop(critic.state_dict(), row, j, 3, layer_norm) for j in range(3)] for row in rows]
    torch.testing.assert_close(values.double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3), (2, 1, 3), (0,), (3, 0)])
def test_any_batch_shape_equals_calls_row_by_row(batch, layer_norm):
    critic = EnsembleQValue(3, 2, hidden_sizes=(8,), layer_norm=layer_norm)
    td = inputs(*batch)
    values = critic(td)["state_action_value"]
    assert values.shape == (*batch, 5)
    if 0 not in batch:
        rows = [critic(row)["state_action_value"] for row in td.reshape(-1)]
        torch.testing.assert_close(values, torch.stack(rows).reshape(values.shape))


def test_nested_keys_and_keyword_call():
    critic = EnsembleQValue(
        3, 2, in_keys=[("agent", "obs"), ("agent", "act")], out_key=("critic", "q"), hidden_sizes=(8,)
    )
    td = inputs(4)
    nested = TensorDict({"agent": {"obs": td["observation"], "act": td["action"]}}, [4])
    critic(nested)
    expected = critic.values(torch.cat([td["observation"], td["action"]], -1))
    assert torch.equal(nested["critic", "q"], expected)
    plain = EnsembleQValue(3, 2, hidden_sizes=(8,))
    plain.load_state_dict(critic.state_dict())
    assert torch.equal(plain(observation=td["observation"], action=td["action"]), expected)


def test_orthogonal_members_are_drawn_independently():
    critic = EnsembleQValue(100, 28, num_critics=4, hidden_sizes=(128,))
    first = critic.weights[0]
    for member in range(4):
        torch.testing.assert_close(first[member].T @ first[member], 2 * torch.eye(128), atol=1e-4, rtol=0)
        assert critic.weights[1][member].square().sum().item() == pytest.approx(2.0, rel=1e-5)
    assert all(not bias.any() for bias in critic.biases)
    flat = first.detach().flatten(1)
    off_diagonal = torch.corrcoef(flat)[~torch.eye(4, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 4 / 128  # four standard errors of the correlation of 128^2 entries


def test_default_init_is_that_of_linear_layers():
    critic = EnsembleQValue(20, 5, num_critics=3, hidden_sizes=(200,), init="default")
    assert 0.19 < critic.weights[0].abs().max() <= 0.2
    assert 0.18 < critic.biases[0].abs().max() <= 0.2
    assert critic.weights[1].abs().max() <= 1 / math.sqrt(200)
    assert critic.weights[0].std().item() == pytest.approx(0.2 / math.sqrt(3), rel=0.02)


def test_the_generator_decides_the_weights_and_spares_the_global_stream():
    before = torch.get_rng_state()
    one, two = (EnsembleQValue(3, 2, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    one.reset_parameters()
    assert not torch.equal(one.weights[0], two.weights[0])


def test_parameter_names_are_stable_and_round_trip():
    critic = EnsembleQValue(3, 2, hidden_sizes=(8, 6), layer_norm=True)
    shapes = {name: tuple(value.shape) for name, value in critic.state_dict().items()}
    assert shapes == {
        "weights.0": (5, 5, 8),
        "weights.1": (5, 8, 6),
        "weights.2": (5, 6, 1),
        "biases.0": (5, 1, 8),
        "biases.1": (5, 1, 6),
        "biases.2": (5, 1, 1),
        "norm_weights.0": (5, 1, 8),
        "norm_weights.1": (5, 1, 6),
        "norm_biases.0": (5, 1, 8),
        "norm_biases.1": (5, 1, 6),
    }
    other = EnsembleQValue(3, 2, hidden_sizes=(8, 6), layer_norm=True)
    other.load_state_dict(critic.state_dict())
    td = inputs(4)
    assert torch.equal(other(td.clone())["state_action_value"], critic(td.clone())["state_action_value"])


def test_weights_can_be_swapped_as_torchrl_losses_do():
    critic = EnsembleQValue(3, 2, hidden_sizes=(8,))
    td = inputs(4)
    original = critic(td.clone())["state_action_value"]
    doubled = TensorDict.from_module(critic).data.clone()
    doubled["weights", "1"].mul_(2.0)
    with doubled.to_module(critic, preserve_module_state=False):
        swapped = critic(td.clone())["state_action_value"]
    torch.testing.assert_close(swapped, 2 * original)
    assert torch.equal(critic(td.clone())["state_action_value"], original)


def test_each_members_gradient_is_its_own():
    critic = EnsembleQValue(3, 2, hidden_sizes=(8,))
    critic(inputs(4))["state_action_value"][:, 2].sum().backward()
    touched = critic.weights[0].grad.abs().sum((1, 2)) > 0
    assert touched.tolist() == [False, False, True, False, False]


def test_from_specs():
    critic = EnsembleQValue.from_specs(Unbounded((3,)), Bounded(-1, 1, (2,)), num_critics=4, hidden_sizes=(8,))
    assert critic(inputs(6))["state_action_value"].shape == (6, 4)
    observations = Composite({"agent": {"obs": Unbounded((7, 3))}}, shape=())
    actions = Composite({"action": Bounded(-1, 1, (7, 2))}, shape=())
    nested = EnsembleQValue.from_specs(observations, actions, in_keys=[("agent", "obs"), "action"])
    assert nested.weights[0].shape == (5, 5, 256)
    with pytest.raises(ValueError, match="vector of floats"):
        EnsembleQValue.from_specs(Unbounded((3,)), Categorical(4))


@pytest.mark.parametrize(
    "sizes", [(3, 2, 0), (-1, 2, 5), (0, 0, 5), (3, 2, 2.5), (3, 2, "5"), (3, 2, 5, (0,)), (3, 2, 5, (8.5,))]
)
def test_sizes_must_be_positive_whole_numbers(sizes):
    with pytest.raises(ValueError, match="must be a whole number of at least"):
        EnsembleQValue(*sizes)


@pytest.mark.parametrize("hidden", [8, "88"])
def test_hidden_sizes_are_a_sequence(hidden):
    with pytest.raises(ValueError, match="hidden_sizes must be a sequence of widths"):
        EnsembleQValue(3, 2, 5, hidden)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_inputs_of_another_width_are_named(layer_norm):
    critic = EnsembleQValue(3, 2, 2, (8,), layer_norm=layer_norm)
    with pytest.raises(
        ValueError, match=r"built for 5 numbers of \['observation', 'action'\] together and are given 6"
    ):
        critic(TensorDict({"observation": torch.zeros(4, 4), "action": torch.zeros(4, 2)}, [4]))


def torchrl_critic(activation: type[nn.Module] = nn.ReLU, norm=None, **kwargs) -> ValueOperator:
    norms = {"norm_class": nn.LayerNorm, "norm_kwargs": {"normalized_shape": 8, **norm}} if norm is not None else {}
    network = MLP(5, 1, num_cells=[8, 8], activation_class=activation, **norms, **kwargs)
    return ValueOperator(network, in_keys=["observation", "action"])


def sequential_critic() -> TensorDictModule:
    return TensorDictModule(mlp([5, 8, 1], layer_norm=True), in_keys=["both"], out_keys=["q"])


CRITICS = {
    "relu": (torchrl_critic, EnsembleQValue),
    "layer norm": (lambda: torchrl_critic(norm={}), EnsembleQValue),
    "layer norm, another eps": (lambda: torchrl_critic(norm={"eps": 0.1}), GenericEnsemble),
    "sequential": (sequential_critic, EnsembleQValue),
    "tanh": (lambda: torchrl_critic(nn.Tanh), GenericEnsemble),
    "no last bias": (lambda: torchrl_critic(bias_last_layer=False), GenericEnsemble),
    "dropout": (lambda: torchrl_critic(dropout=0.5).eval(), GenericEnsemble),
}


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("batch", [(), (6,), (2, 3), (0,)])
def test_from_modules_gives_each_critics_numbers(name, batch):
    make, expected_class = CRITICS[name]
    critics = [make() for _ in range(3)]
    with torch.no_grad():
        for critic in critics:
            for parameter in critic.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    before = torch.get_rng_state()
    ensemble = EnsembleQValue.from_modules(critics).train(critics[0].training)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(ensemble) is expected_class
    td = inputs(*batch)
    td["both"] = torch.cat([td["observation"], td["action"]], -1)
    key = critics[0].out_keys[-1]
    expected = torch.cat([critic(td.clone())[key] for critic in critics], -1)
    torch.testing.assert_close(ensemble(td.clone())[key], expected, rtol=1e-6, atol=1e-6)


def test_from_modules_copies_weights_exactly_and_keeps_the_dtype():
    critics = [torchrl_critic(norm={}).double() for _ in range(3)]
    stacked = EnsembleQValue.from_modules(critics)
    generic = GenericEnsemble(critics)
    for member, critic in enumerate(critics):
        layers = list(critic.module)
        assert torch.equal(stacked.weights[1][member], layers[3].weight.T)
        assert torch.equal(stacked.biases[1][member, 0], layers[3].bias)
        assert torch.equal(stacked.norm_weights[0][member, 0], layers[1].weight)
        assert torch.equal(generic.params["module", "3", "weight"][member], layers[3].weight)
    assert stacked.weights[0].dtype == torch.float64
    stacked.weights[0].data.zero_()
    assert critics[0].module[0].weight.any()


def test_a_generic_ensemble_owns_only_its_stacked_weights():
    critics = [torchrl_critic(nn.Tanh) for _ in range(3)]
    ensemble = EnsembleQValue.from_modules(critics)
    assert sum(p.numel() for p in ensemble.parameters()) == sum(p.numel() for c in critics for p in c.parameters())
    td = inputs(4)
    before = ensemble(td.clone())["state_action_value"].detach()
    copied = copy.deepcopy(ensemble)
    torch.optim.SGD(ensemble.parameters(), 0.1).step(
        lambda: ensemble(td.clone())["state_action_value"].sum().backward()
    )
    assert not torch.equal(ensemble(td.clone())["state_action_value"], before)
    assert torch.equal(copied(td.clone())["state_action_value"], before)


def test_a_generic_ensemble_obeys_train_and_eval():
    critics = [torchrl_critic(dropout=0.5) for _ in range(3)]
    ensemble = EnsembleQValue.from_modules(critics)
    td = inputs(4)
    noisy = [ensemble(td.clone())["state_action_value"] for _ in range(2)]
    assert not torch.equal(*noisy)
    ensemble.eval()
    quiet = [ensemble(td.clone())["state_action_value"] for _ in range(2)]
    assert torch.equal(*quiet)
    assert all(module.training for critic in critics for module in critic.modules())


def test_from_modules_refuses_what_it_cannot_stack():
    with pytest.raises(ValueError, match="empty"):
        EnsembleQValue.from_modules([])
    critic = torchrl_critic()
    with pytest.raises(ValueError, match="twice"):
        EnsembleQValue.from_modules([critic, critic])
    with pytest.raises(ValueError, match="critic 1 is"):
        EnsembleQValue.from_modules([torchrl_critic(), torchrl_critic(nn.Tanh)])
    wide = [TensorDictModule(nn.Linear(5, 2), in_keys=["both"], out_keys=["q"]) for _ in range(2)]
    with pytest.raises(ValueError, match=r"shape \[\*B, 1\]"):
        EnsembleQValue.from_modules(wide)(TensorDict({"both": torch.zeros(4, 5)}, [4]))
