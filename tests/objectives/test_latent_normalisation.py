"""Normaliser, and critics that hold one or are asked for some of them alone."""

from __future__ import annotations

import copy

import pytest
import torch
from tensordict import TensorDict
from torchrl.objectives import SoftUpdate

from o3f.modules import EnsembleQValue, Normaliser, fit_normalisers, gaussian_policy, value_network
from o3f.objectives import IQLLoss
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, make_batch


def test_statistics_by_hand() -> None:
    normaliser = Normaliser(2, ["x"])
    normaliser.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]]))
    torch.testing.assert_close(normaliser.loc, torch.tensor([3.0, 5.0]))
    # population variance of (1, 3, 5) is 8/3; a constant keeps its units
    torch.testing.assert_close(normaliser.scale, torch.tensor([(8 / 3) ** 0.5 + 1e-6, 1.0]), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(normaliser(torch.tensor([3.0, 5.0 + 1e-6]))[0], torch.tensor(0.0))


def test_identity_until_fitted_and_inverse_after() -> None:
    normaliser, rows = Normaliser(4, ["x"]), torch.randn(6, 5, 4) * torch.tensor([1e3, 1.0, 1e-3, 7.0]) + 2.0
    assert torch.equal(normaliser(rows), rows)
    assert torch.equal(normaliser.inverse(rows), rows)
    normaliser.fit(rows)
    torch.testing.assert_close(normaliser.inverse(normaliser(rows)), rows, rtol=1e-6, atol=1e-6)
    scores = normaliser(rows).reshape(-1, 4)
    torch.testing.assert_close(scores.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(scores.std(0, correction=0), torch.ones(4), atol=2e-3, rtol=0)


def test_large_offsets_keep_their_spread() -> None:
    normaliser = Normaliser(1, ["x"])
    normaliser.fit(1000.0 + torch.tensor([-0.5, 0.5] * 50_000).unsqueeze(-1))
    torch.testing.assert_close(normaliser.scale, torch.tensor([0.5]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("rows", [torch.zeros(0, 2), torch.zeros(5, 3)])
def test_rows_that_do_not_fit_are_refused(rows: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected at least one row of width 2"):
        Normaliser(2, ["x"]).fit(rows)


def test_fit_in_place_and_by_key() -> None:
    critic = EnsembleQValue(3, 2, 2, (8,), normalise=True, in_keys=[("obs", "x"), "act"])
    buffer = critic.normaliser.loc
    rows = TensorDict({("obs", "x"): torch.randn(9, 3), "act": torch.randn(9, 2)}, [9])
    fit_normalisers(critic, rows)
    assert critic.normaliser.loc is buffer
    torch.testing.assert_close(buffer, torch.cat([rows["obs", "x"], rows["act"]], -1).mean(0))


# --------------------------------------------------------------------------------------------- in an ensemble


def test_an_ensemble_sees_z_scores() -> None:
    torch.manual_seed(0)
    critic = EnsembleQValue(3, 2, 4, (8,), normalise=True, layer_norm=True)
    plain = EnsembleQValue(3, 2, 4, (8,), layer_norm=True)
    assert set(critic.state_dict()) - set(plain.state_dict()) == {"normaliser.loc", "normaliser.scale"}
    plain.load_state_dict(critic.state_dict(), strict=False)
    inputs = torch.randn(6, 5)
    assert torch.equal(critic.values(inputs), plain.values(inputs))
    critic.normaliser.loc.fill_(1.0)
    critic.normaliser.scale.fill_(2.0)
    torch.testing.assert_close(critic.values(1 + 2 * inputs), plain.values(inputs))
    twin = copy.deepcopy(critic)
    assert torch.equal(twin.values(inputs), critic.values(inputs))


def test_the_normaliser_leaves_the_initial_weights_as_they_are() -> None:
    critics = [EnsembleQValue(3, 2, normalise=flag, generator=torch.Generator().manual_seed(0)) for flag in (0, 1)]
    for one, other in zip(critics[0].parameters(), critics[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("batch", [(), (6,), (2, 3), (0,)])
def test_some_members_have_the_values_that_they_have_among_all(batch: tuple[int, ...], layer_norm: bool) -> None:
    critic = EnsembleQValue(3, 2, 5, (8, 8), layer_norm=layer_norm, normalise=True)
    inputs = torch.randn(*batch, 5)
    whole = critic.values(inputs)
    for members in ([3], [4, 0], [1, 2, 3, 4, 0]):
        found = critic.values(inputs, torch.tensor(members))
        assert found.shape == (*batch, len(members))
        torch.testing.assert_close(found, whole[..., members])


def test_gradients_reach_the_members_asked_for_alone() -> None:
    critic = EnsembleQValue(3, 2, 5, (8,))
    critic.values(torch.randn(6, 5), torch.tensor([1, 3])).sum().backward()
    moved = {j for p in critic.parameters() for j in range(5) if p.grad[j].abs().sum() > 0}
    assert moved == {1, 3}


def test_targets_hold_statistics_of_their_own_that_no_update_moves() -> None:
    torch.manual_seed(0)
    critic = EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, 2, (8,), normalise=True)
    policy = gaussian_policy(OBSERVATION_DIM, ACTION_DIM, (8,))
    loss = IQLLoss(policy, critic, value_network(OBSERVATION_DIM, (8,)))
    rows = make_batch(40)
    for network in (loss.critic, loss.target_qvalue_network):
        fit_normalisers(network, rows)
    SoftUpdate(loss, tau=0.5).step()
    loss.update_targets(0.5)
    expected = torch.cat([rows["observation"], rows["action"]], -1)
    for key in ("qvalue_network_params", "target_qvalue_network_params"):
        torch.testing.assert_close(loss.state_dict()[f"{key}.normaliser.loc"], expected.mean(0))
    values = [net(rows.clone())["state_action_value"] for net in (loss.critic, loss.target_qvalue_network)]
    torch.testing.assert_close(*values)
