"""IQL's networks: a tanh mean, one standard deviation everywhere, an un-squashed density."""

import copy
import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.modules import gaussian_policy, mlp, value_network


def observations(*batch: int, dim: int = 3) -> TensorDict:
    return TensorDict({"observation": torch.randn(*batch, dim)}, batch)


def log_std(policy: nn.Module) -> nn.Parameter:
    return next(p for name, p in policy.named_parameters() if name.endswith("log_std"))


def test_mean_and_scale_computed_by_hand():
    policy = gaussian_policy(1, 2, (2,))
    parameters = dict(policy.named_parameters())
    by_suffix = {name.split(".mean.")[-1]: value for name, value in parameters.items()}
    with torch.no_grad():
        by_suffix["0.weight"].copy_(torch.tensor([[1.0], [-1.0]]))
        by_suffix["0.bias"].copy_(torch.tensor([0.5, 0.0]))
        by_suffix["2.weight"].copy_(torch.tensor([[0.4, 9.0], [-0.2, 9.0]]))
        by_suffix["2.bias"].copy_(torch.tensor([0.1, 0.0]))
        log_std(policy).copy_(torch.tensor([math.log(0.5), 0.0]))
    td = TensorDict({"observation": torch.tensor([2.0])}, [])
    policy(td)
    # hidden: relu(2.5), relu(-2) = 2.5, 0
    assert td["loc"].tolist() == pytest.approx([math.tanh(1.1), math.tanh(-0.5)], abs=1e-6)
    assert td["scale"].tolist() == pytest.approx([0.5, 1.0], abs=1e-6)
    action = torch.tensor([1.0, -1.0])
    expected = sum(
        -0.5 * ((a - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
        for a, m, s in zip([1.0, -1.0], [math.tanh(1.1), math.tanh(-0.5)], [0.5, 1.0], strict=True)
    )
    assert policy.get_dist(td).log_prob(action).item() == pytest.approx(expected, abs=1e-5)


def test_the_standard_deviation_starts_at_one_and_is_clipped():
    policy, td = gaussian_policy(3, 2), observations(4)
    assert policy(td.clone())["scale"].unique().tolist() == [1.0]
    for value, expected in ((-9.0, math.exp(-5)), (9.0, math.exp(2))):
        log_std(policy).data.fill_(value)
        assert policy(td.clone())["scale"].unique().tolist() == pytest.approx([expected])


def test_samples_are_clipped_normal_numbers_around_the_mean():
    torch.manual_seed(3)  # a mean near a bound would be clipped
    policy = gaussian_policy(3, 1, (8,))
    log_std(policy).data.fill_(math.log(0.1))
    td = observations().expand(100_000).clone()
    policy(td)
    mean = td["loc"][0].item()
    assert abs(mean) < 0.9
    assert td["action"].mean().item() == pytest.approx(mean, abs=0.004)
    assert td["action"].std().item() == pytest.approx(0.1, abs=0.004)
    log_std(policy).data.fill_(1.0)
    action = policy(td)["action"]
    assert (action.min(), action.max()) == (-1.0, 1.0)
    assert (action.abs() == 1).float().mean() > 0.5


def test_the_deterministic_action_is_the_mean():
    policy, td = gaussian_policy(3, 2), observations(4)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        policy(td)
    assert torch.equal(td["action"], td["loc"])
    assert not torch.equal(policy(td.clone())["action"], td["loc"])


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
def test_keys_and_batch_shapes(batch):
    policy = gaussian_policy(3, 2, in_key=("agent", "obs"), action_key=("agent", "act"))
    td = TensorDict({"agent": TensorDict({"obs": torch.randn(*batch, 3)}, batch)}, batch)
    assert policy(td)["agent", "act"].shape == (*batch, 2)
    value = value_network(3, (8,), in_key=("agent", "obs"), out_key=("critic", "v"))
    assert value(td)["critic", "v"].shape == (*batch, 1)


def test_dropout_acts_in_training_mode_only():
    policy, td = gaussian_policy(3, 2, dropout=0.5), observations(4)
    assert not torch.equal(policy(td.clone())["loc"], policy(td.clone())["loc"])
    policy.eval()
    assert torch.equal(policy(td.clone())["loc"], policy(td.clone())["loc"])


def test_gradients_reach_the_mean_and_the_standard_deviation():
    policy, td = gaussian_policy(3, 2), observations(8)
    policy.get_dist(td).log_prob(torch.zeros(8, 2)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in policy.parameters())


def test_deepcopy_and_state_dict_round_trip():
    policy, td = gaussian_policy(3, 2), observations(4)
    other = gaussian_policy(3, 2)
    other.load_state_dict(policy.state_dict())
    assert torch.equal(other(td.clone())["loc"], policy(td.clone())["loc"])
    copied = copy.deepcopy(policy)
    log_std(policy).data.fill_(1.0)
    assert log_std(copied).tolist() == [0.0, 0.0]


def test_mlp_layers_and_initial_weights():
    network = mlp([4, 8, 6, 1], layer_norm=True, dropout=0.1)
    hidden = [nn.Linear, nn.LayerNorm, nn.ReLU, nn.Dropout]
    assert [type(layer).__bases__[0] for layer in network[::4]] == [nn.Linear] * 3  # drawn anew as they were drawn
    assert all(
        type(layer) is kind for layer, kind in zip(network, [*hidden, *hidden], strict=False) if kind != nn.Linear
    )
    first, last = network[0], network[-1]
    torch.testing.assert_close(first.weight.T @ first.weight, 2 * torch.eye(4))
    assert last.weight.square().sum().item() == pytest.approx(2.0, rel=1e-5)
    assert not any(layer.bias.any() for layer in (first, last))
    plain = mlp([100, 1], init="default")
    assert plain[0].weight.abs().max() <= 0.1
    assert plain[0].bias.any()


@pytest.mark.parametrize("layer_norm", [False, True])
def test_value_network_equals_its_layers_by_hand(layer_norm):
    network, td = value_network(3, (8,), layer_norm=layer_norm), observations(5)
    first, last = network.module[0], network.module[-1]
    hidden = td["observation"] @ first.weight.T + first.bias
    if layer_norm:
        hidden = (hidden - hidden.mean(-1, True)) / (hidden.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = hidden.relu() @ last.weight.T + last.bias
    torch.testing.assert_close(network(td)["state_value"], expected)


def test_bad_arguments():
    with pytest.raises(ValueError, match="sizes"):
        mlp([3])
    for wrong in ({"action_dim": 0}, {"hidden_sizes": (0,)}, {"observation_dim": 3.0}):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            gaussian_policy(**{"observation_dim": 3, "action_dim": 2, **wrong})
    for dropout in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="dropout must be a number in"):
            gaussian_policy(3, 2, dropout=dropout)
    with pytest.raises(ValueError, match="init must be"):
        mlp([3, 1], init="xavier")


@pytest.mark.parametrize("normalise", [False, True])
def test_observations_that_do_not_fit_are_named(normalise):
    policy = gaussian_policy(3, 2, (8,), normalise=normalise)
    for width in (1, 5):
        with pytest.raises(ValueError, match=rf"was built for .*3\] is given \[4, {width}\]"):
            policy(TensorDict({"observation": torch.zeros(4, width)}, [4]))
    with pytest.raises(ValueError, match=r"weights of torch.float32 is given torch.float64.*DTypeCastTransform"):
        policy(TensorDict({"observation": torch.zeros(4, 3, dtype=torch.float64)}, [4]))


def test_autocast_still_decides_on_types_of_its_own():
    policy = gaussian_policy(3, 2, (8,))
    with torch.autocast("cpu", torch.bfloat16):
        half = policy.get_dist(TensorDict({"observation": torch.ones(4, 3, dtype=torch.bfloat16)}, [4])).mean
    torch.testing.assert_close(
        half.float(), policy.get_dist(TensorDict({"observation": torch.ones(4, 3)}, [4])).mean, atol=0.02, rtol=0.02
    )
