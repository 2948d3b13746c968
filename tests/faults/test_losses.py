"""Losses in a pipeline of one's own, numbered as in docs/reliability.md."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn

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
