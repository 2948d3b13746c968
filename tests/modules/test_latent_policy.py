"""LatentPolicy and its networks: values by hand, bounds, keys, and the same action under every exploration type."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.modules import LatentPolicy, latent_actor, latent_decoder, latent_encoder, latent_policy
from tests.support.lapo_cases import make_loss


def states(*batch: int, size: float = 1.0) -> TensorDict:
    return TensorDict({"observation": size * torch.randn(*batch, 3)}, batch)


@torch.no_grad()
def constant(network: nn.Module, value: list[float]) -> None:
    """Let a network say ``value`` before what follows its last layer."""
    linears = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    linears[-1].weight.zero_()
    linears[-1].bias.copy_(torch.tensor(value))


def test_values_by_hand() -> None:
    policy = latent_policy(3, 2, latent_dim=1, hidden_sizes=(), max_latent=1.5)
    actor, decoder = policy.actor.module, policy.decoder.module
    with torch.no_grad():
        actor.network[0].weight.copy_(torch.tensor([[1.0, 0.0, -1.0]]))
        actor.network[0].bias.fill_(0.5)
        decoder.network[0].weight.copy_(torch.tensor([[0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 0.0, 1.0]]))
        decoder.network[0].bias.copy_(torch.tensor([0.0, -0.25]))
        for normaliser in (actor.normaliser, decoder.observation_normaliser):
            normaliser.loc.copy_(torch.tensor([1.0, 0.0, 0.0]))
            normaliser.scale.copy_(torch.tensor([2.0, 4.0, 1.0]))
        decoder.action_normaliser.loc.copy_(torch.tensor([0.1, 0.2]))
        decoder.action_normaliser.scale.copy_(torch.tensor([0.5, 0.1]))
    td = policy(TensorDict({"observation": torch.tensor([[3.0, 2.0, 1.0]])}, [1]))
    # z-scores (1, 0.5, 1): the latent is 1.5 tanh(1 - 1 + 0.5) and the decoder says (0.5 + 2 z, z - 0.25)
    z = 1.5 * 0.46211716
    torch.testing.assert_close(td["latent"], torch.tensor([[z]]))
    raw = [0.1 + 0.5 * (0.5 + 2 * z), 0.2 + 0.1 * (z - 0.25)]
    assert raw[0] > 1  # so it is clipped
    torch.testing.assert_close(td["action"], torch.tensor([[1.0, raw[1]]]))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_any_batch_shape_and_bounds(batch: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    policy = latent_policy(3, 2, hidden_sizes=(16, 16))
    td = states(*batch, size=1e3)
    for parameter in policy.parameters():
        parameter.data.mul_(3.0)
    policy(td)
    assert td["latent"].shape == (*batch, 4)
    assert td["action"].shape == (*batch, 2)
    assert (td["latent"].abs() <= 2.0).all()
    assert policy.spec is not None
    assert policy.spec["action"].is_in(td["action"]) or 0 in batch
    if 0 not in batch:
        assert td["latent"].abs().max() > 1.9
        flat = policy(td.reshape(-1).select("observation"))
        torch.testing.assert_close(flat["action"].reshape(td["action"].shape), td["action"])


def test_the_same_action_under_every_exploration_type() -> None:
    policy, td, found = latent_policy(3, 2, hidden_sizes=(8,)), states(5), []
    for kind in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC, ExplorationType.MEAN, ExplorationType.MODE):
        with set_exploration_type(kind):
            found.append(policy(td.clone())["action"])
    assert all(torch.equal(action, found[0]) for action in found)


def test_it_writes_latent_and_action_alone_and_dispatches() -> None:
    policy, td = latent_policy(3, 2, hidden_sizes=(8,)), states(5)
    latent, action = policy(observation=td["observation"])
    assert set(policy(td).keys()) == {"observation", "latent", "action"}
    assert policy.in_keys == ["observation"]
    assert policy.out_keys == ["latent", "action"]
    assert torch.equal(td["latent"], latent)
    assert torch.equal(td["action"], action)


def test_nested_keys_and_bounds_of_the_spec() -> None:
    keys = {"in_key": ("obs", "x")}
    actor = latent_actor(3, 4, (8,), out_key=("agent", "z"), **keys)
    decoder = latent_decoder(3, 2, 4, (8,), latent_key=("agent", "z"), action_key=("agent", "act"), **keys)
    constant(decoder, [5.0, -5.0])
    leaf = Bounded(low=torch.tensor([-1.0, -2.0]), high=torch.tensor([3.0, 1.0]))
    policy = LatentPolicy(actor, decoder, Composite(agent=Composite(act=leaf)))
    td = policy(TensorDict({("obs", "x"): torch.randn(4, 3)}, [4]))
    assert torch.equal(td["agent", "act"], torch.tensor([[3.0, -2.0]]).expand(4, 2))
    assert set(td.keys(True, True)) == {("obs", "x"), ("agent", "z"), ("agent", "act")}


def test_a_loaded_state_does_not_overwrite_the_bounds_of_the_spec() -> None:
    narrow, wide = (
        LatentPolicy(latent_actor(3, 4, (8,)), latent_decoder(3, 2, 4, (8,)), Bounded(-bound, bound, (2,)))
        for bound in (1.0, 3.0)
    )
    wide.load_state_dict(narrow.state_dict())
    constant(wide.decoder, [5.0, -5.0])
    assert wide(states(1))["action"].tolist() == [[3.0, -3.0]]


def test_encoder_splits_mean_and_log_variance() -> None:
    encoder = latent_encoder(3, 2, 2, (8,))
    constant(encoder, [1.0, 2.0, -3.0, -4.0])
    td = encoder(states(5).set("action", torch.zeros(5, 2)))
    assert td["latent_mean"].tolist() == [[1.0, 2.0]] * 5
    assert td["latent_log_variance"].tolist() == [[-3.0, -4.0]] * 5


def test_an_actor_and_a_decoder_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="expected it to read the latent"):
        LatentPolicy(latent_actor(3, 4, out_key="z"), latent_decoder(3, 2, 4), Bounded(-1, 1, (2,)))
    with pytest.raises(ValueError, match="must be a bounded vector"):
        LatentPolicy(latent_actor(3, 4), latent_decoder(3, 2, 4), Unbounded((2,)))
    with pytest.raises(ValueError, match="max_latent must be a number in"):
        latent_actor(3, 4, max_latent=0)


# ----------------------------------------------------------------------------- with the target of a loss inside


def with_target() -> tuple[LatentPolicy, object]:
    loss = make_loss()
    return LatentPolicy(loss.actor_network, loss.target_decoder_network, Bounded(-1, 1, (2,))), loss


def test_a_policy_with_a_target_decoder_travels_whole() -> None:
    policy, _ = with_target()
    td = states(4)
    expected = policy(td.clone())["action"]
    for twin in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert torch.equal(twin(td.clone())["action"], expected)
    fresh = latent_policy(3, 2, hidden_sizes=(8, 8))
    fresh.load_state_dict(policy.state_dict())
    assert torch.equal(fresh(td.clone())["action"], expected)
    weights = TensorDict.from_module(fresh).data.clone()  # what a collector sends to its workers
    for value in weights.values(True, True):
        value.mul_(0.5)
    sent = TensorDict.from_module(policy)
    sent.data.update_(weights)
    torch.testing.assert_close(dict(policy.state_dict()), {n: 0.5 * v for n, v in fresh.state_dict().items()})


def test_a_policy_with_a_target_decoder_follows_its_updates() -> None:
    policy, loss = with_target()
    td = states(4)
    before = policy(td.clone())["action"]
    loss.update_targets(0.5)
    assert (policy(td.clone())["action"] - before).abs().min() > 0
    trained = {id(parameter) for parameter in policy.parameters()}
    assert trained == {id(parameter) for parameter in loss.actor_network.parameters()}
