"""Whatever form the critics come in, the loss trains well initialised, independent members."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn

from o3f.modules import EnsembleQValue, mlp
from o3f.objectives.critics import critic_ensemble, redraw_
from tests.support.iql_cases import Concatenated


def make_critic(network: nn.Module) -> TensorDictModule:
    return TensorDictModule(network, in_keys=["observation", "action"], out_keys=["state_action_value"])


def perceptron(width: int = 32, *, layer_norm: bool = False) -> Concatenated:
    norm = [nn.LayerNorm(width)] if layer_norm else []
    return Concatenated(nn.Linear(8, width), *norm, nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def orthogonal_(network: nn.Sequential, gain: float) -> nn.Sequential:
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.constant_(layer.bias, 0.25)
    return network


def members(critic: TensorDictModule, count: int) -> dict[str, Tensor]:
    """Parameters of the copies, stacked, under the names they have in the original."""
    ensemble = critic_ensemble(critic, count)
    return {name.removeprefix("params."): value for name, value in ensemble.state_dict().items()}


def test_copies_are_independent_draws_of_the_same_initialiser() -> None:
    torch.manual_seed(0)
    critic = make_critic(perceptron())
    with torch.no_grad():
        critic.module[2].weight.mul_(3.0)  # as if trained: its extremes must not leak into the copies
    stacked = members(critic, 5)
    for name, original in critic.named_parameters():
        copies = stacked[name]
        fan_in = 8 if ".0." in name else 32
        assert copies.shape == (5, *original.shape)
        assert copies.abs().max() <= 1 / math.sqrt(fan_in)
        for j in range(5):
            assert not torch.equal(copies[j], original)
            assert not any(torch.equal(copies[j], copies[k]) for k in range(j))


@pytest.mark.parametrize("gain", [1.0, math.sqrt(2.0)])
def test_orthogonality_and_constants_are_kept(gain: float) -> None:
    torch.manual_seed(0)
    stacked = members(make_critic(orthogonal_(perceptron(layer_norm=True), gain)), 4)
    for name, copies in stacked.items():
        for j, value in enumerate(copies):
            if name.endswith("weight") and value.ndim == 2:
                gram = value @ value.T if value.shape[0] <= value.shape[1] else value.T @ value
                torch.testing.assert_close(gram, gain**2 * torch.eye(len(gram)), atol=1e-4, rtol=1e-4)
                assert not any(torch.equal(value, copies[k]) for k in range(j))
            elif name == "module.1.weight":
                assert (value == 1).all()
            elif name == "module.1.bias":
                assert (value == 0).all()
            else:
                assert (value == 0.25).all() or value.numel() == 1


def test_modules_that_draw_their_own_way_are_asked() -> None:
    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.empty(3))
            self.reset_parameters()

        def reset_parameters(self) -> None:
            nn.init.uniform_(self.scale, 10.0, 11.0)

        def forward(self, observation: Tensor, action: Tensor) -> Tensor:
            return (self.scale * observation).sum(-1, keepdim=True) + action

    copies = members(make_critic(Twin()), 3)["module.scale"]
    assert copies.min() >= 10.0
    assert copies.max() <= 11.0
    assert copies.unique().numel() == 9


def test_what_cannot_be_redrawn_is_named() -> None:
    class Opaque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = nn.Linear(8, 1)
            self.scale = nn.Parameter(torch.randn(3))

    with pytest.raises(ValueError, match=r"'scale' of Opaque cannot be initialised anew.*Pass a list of critics"):
        redraw_(Opaque())


def test_ensemble_is_used_as_it_is() -> None:
    ensemble = EnsembleQValue(3, 2, 4, (8,))
    assert critic_ensemble(ensemble) is ensemble
    assert critic_ensemble(ensemble, 4) is ensemble


@pytest.mark.parametrize("form", [list, tuple])
def test_list_is_copied_exactly(form: Any) -> None:
    torch.manual_seed(0)
    critics = [
        TensorDictModule(mlp([4, 8, 1]), in_keys=["observation"], out_keys=["state_action_value"]) for _ in range(3)
    ]
    ensemble = critic_ensemble(form(critics))
    td = TensorDict({"observation": torch.randn(6, 4)}, [6])
    expected = torch.cat([critic(td.clone())["state_action_value"] for critic in critics], -1)
    torch.testing.assert_close(ensemble(td.clone())["state_action_value"], expected, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        critics[0].module[0].weight.zero_()
    torch.testing.assert_close(ensemble(td.clone())["state_action_value"], expected, atol=1e-6, rtol=1e-6)


def test_one_critic_asked_for_once_keeps_its_weights() -> None:
    critic = make_critic(perceptron())
    for name, copies in members(critic, 1).items():
        torch.testing.assert_close(copies[0], critic.state_dict()[name], rtol=0, atol=0)


def test_one_critic_is_doubled_by_default() -> None:
    assert critic_ensemble(make_critic(perceptron())).num_critics == 2


@pytest.mark.parametrize(
    ("critics", "count", "message"),
    [
        (EnsembleQValue(3, 2, 4, (8,)), 2, "num_qvalue_nets is 2, but the ensemble holds 4"),
        (
            [make_critic(perceptron()) for _ in range(3)],
            5,
            "num_qvalue_nets is 5, but the list of critics holds 3",
        ),
        (make_critic(perceptron()), 0, "num_qvalue_nets must be a whole number of at least 1"),
    ],
)
def test_contradicting_numbers_are_refused(critics: Any, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        critic_ensemble(critics, count)


def test_critics_that_share_a_trunk_are_not_copied_apart() -> None:
    trunk = nn.Linear(8, 16)
    critics = [make_critic(Concatenated(trunk, nn.ReLU(), nn.Linear(16, 1))) for _ in range(2)]
    with pytest.raises(ValueError, match="Critics in the list share parameters, and copies would not"):
        EnsembleQValue.from_modules(critics)
