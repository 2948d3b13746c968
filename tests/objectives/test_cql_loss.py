"""CQLLoss is CQL(H): its numbers by hand, its fixed points on a bandit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.data import Bounded

from o3f.modules import EnsembleQValue, tanh_gaussian_policy
from o3f.objectives import CQLLoss
from o3f.objectives.functional import conservative_gap, weighted_gap
from o3f.objectives.uniform_actions import UniformActions
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, double_precision, make_batch


def make_loss(action_dim: int = ACTION_DIM, num_critics: int = 2, hidden: Any = (8, 8), **kwargs: Any) -> CQLLoss:
    torch.manual_seed(0)
    critic = EnsembleQValue(OBSERVATION_DIM, action_dim, num_critics, hidden)
    loss = CQLLoss(tanh_gaussian_policy(OBSERVATION_DIM, action_dim, (8, 8)), critic, **kwargs)
    loss.update_targets(0.0)
    return loss


def make_constant(loss: CQLLoss) -> CQLLoss:
    with torch.no_grad():
        for parameter in loss.critic.parameters():
            parameter.zero_()
        loss.critic.biases[-1].fill_(3.0)
    return loss


# --------------------------------------------------------------------------------------------------- the gap


@pytest.mark.parametrize(("d", "n", "expected"), [(6, 10, 7.560081), (9, 10, 9.639522), (1, 1, 1.791759)])
def test_gap_of_a_constant_critic_over_uniform_proposals(d: int, n: int, expected: float) -> None:
    values, data = torch.full((4, 3 * n, 2), 7.0), torch.full((4, 2), 7.0)
    gap = conservative_gap(values, torch.full((4, 3 * n), -d * math.log(2)), data)
    torch.testing.assert_close(gap, torch.full((4, 2), d * math.log(2) + math.log(3 * n)))
    assert gap[0, 0].item() == pytest.approx(expected, abs=1e-5)


def test_gap_by_hand() -> None:
    values = torch.tensor([[0.0, 1.0], [math.log(3), 2.0]])  # two proposals, two critics
    gap = conservative_gap(values, torch.tensor([0.0, math.log(2)]), torch.tensor([1.0, -1.0]))
    expected = [math.log(1 + 3 / 2) - 1, math.log(math.e + math.e**2 / 2) + 1]
    torch.testing.assert_close(gap, torch.tensor(expected))


def test_gap_does_not_overflow() -> None:
    gap = conservative_gap(torch.tensor([[1e4], [1e4]]), torch.zeros(2), torch.zeros(1))
    torch.testing.assert_close(gap, torch.tensor([1e4 + math.log(2)]))


@pytest.mark.parametrize("n", [1, 10, 100])
def test_gap_grows_with_the_number_of_proposals(n: int) -> None:
    """Of a constant critic, exp(gap) is an unbiased estimate of 3 n 2^d: all three kinds of proposal cover [-1, 1]."""
    loss = make_constant(make_loss(num_random=n))
    torch.manual_seed(1)
    gap = loss.evaluate_gap(make_batch(4000 // n))[0]
    assert gap.shape == (4000 // n, 2)
    assert gap.exp().mean().item() == pytest.approx(3 * n * 2**ACTION_DIM, rel=0.1)


@torch.no_grad()
def test_proposals_are_those_of_the_formula() -> None:
    """n from π(s), n from π(s'), n uniform, each with its own density, all judged at s."""
    with double_precision():
        loss, batch = make_loss(num_random=400), make_batch(3)
        action, log_density = loss.propose(batch)
        assert action.shape == (3, 1200, ACTION_DIM)
        assert log_density.shape == (3, 1200)
        here, there = loss.actor_network.get_dist(batch), loss.actor_network.get_dist(batch["next"])
        for part, distribution in (
            (action[:, 0:800:2], here),
            (action[:, 1:800:2], there),
        ):
            offset = 0 if distribution is here else 1
            expected = distribution.log_prob(part.movedim(1, 0)).T
            torch.testing.assert_close(log_density[:, offset:800:2], expected, atol=1e-6, rtol=1e-6)
            latent = part.atanh()
            torch.testing.assert_close(latent.mean(1), distribution.base_dist.base_dist.loc, atol=0.3, rtol=0)
        uniform = action[:, 800:]
        assert log_density[:, 800:].eq(-ACTION_DIM * math.log(2)).all()
        torch.testing.assert_close(uniform.mean((0, 1)), torch.zeros(ACTION_DIM), atol=0.07, rtol=0)
        torch.testing.assert_close(uniform.square().mean(), torch.tensor(1 / 3), atol=0.03, rtol=0)
        assert uniform.abs().max() <= 1
        values = torch.stack(
            [loss.critic(batch.clone().set("action", a))["state_action_value"] for a in action.unbind(1)], 1
        )
        data = loss.critic(batch.clone())["state_action_value"]
        gap, found = loss.evaluate_gap(batch, (action, log_density))
        torch.testing.assert_close(found, data)
        torch.testing.assert_close(gap, conservative_gap(values, log_density, data))


def test_uniform_actions_and_their_density_are_those_of_the_bounds() -> None:
    policy = TensorDictModule(torch.nn.Linear(3, 2), ["observation"], ["action"])
    policy.spec = Bounded(torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 2.5]), (2,))
    actions = UniformActions(policy, "action")
    drawn = actions((1000,), like=torch.zeros(5, 2))
    torch.testing.assert_close(drawn.amin(0), torch.tensor([-1.0, 2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.amax(0), torch.tensor([3.0, 2.5]), atol=0.05, rtol=0)
    assert actions.log_density(2) == pytest.approx(-math.log(4 * 0.5))
    assert not actions.state_dict()


# ----------------------------------------------------------------------------------------- weights and duals


@pytest.mark.parametrize(
    ("form", "mean", "dual"),
    # gaps 3 and 5 of two critics, weight 5, threshold 10, multiplier 2
    [(None, 20.0, 20.0), ("weighted_gap", 10.0, 20.0), ("weighted_excess", -30.0, -60.0)],
)
def test_dual_forms_by_hand(form: Any, mean: float, dual: float) -> None:
    gap = torch.tensor([[3.0, 5.0]])
    assert weighted_gap(gap, 5.0, 10.0, form).mean().item() == mean
    for reduction, factor in (("mean", 1), ("sum", 2)):
        loss = make_loss(lagrange=form, gap_reduction=reduction)
        if form is not None:
            with torch.no_grad():
                loss.log_multiplier.fill_(math.log(2.0))
        batch, values = make_batch(1), torch.zeros(1, 2)
        batch["next", "reward"].zero_()
        found = loss.qvalue_loss(batch, torch.zeros(1), (gap, values))[0]
        assert found.item() == pytest.approx(factor * dual)
        if form is not None:
            assert loss.lagrange_loss(batch, gap)[0].item() == pytest.approx(-factor * dual)


@pytest.mark.parametrize("shape", [(1, 2), (4, 1), (4, 7), (4,)])
def test_a_gap_of_another_batch_or_of_other_critics_is_not_widened(shape: tuple[int, ...]) -> None:
    loss, batch = make_loss(lagrange="weighted_gap"), make_batch(4)
    with pytest.raises(ValueError, match=r"gap has shape .*, expected \[4, 2\]"):
        loss.lagrange_loss(batch, torch.zeros(shape))
    with pytest.raises(ValueError, match=r"gap has shape .*, expected \[4, 2\]"):
        loss.qvalue_loss(batch, evaluated=(torch.zeros(shape), torch.zeros(4, 2)))


def test_the_multiplier_is_capped() -> None:
    loss = make_loss(lagrange="weighted_gap")
    with torch.no_grad():
        loss.log_multiplier.fill_(50.0)
    assert loss.multiplier.item() == 1e6


def test_td_losses_are_summed_over_the_critics() -> None:
    batch, values = make_batch(1), torch.tensor([[1.0, 2.0, 3.0]])
    batch["next", "reward"].zero_()
    loss = make_loss(num_critics=3)
    assert loss.qvalue_loss(batch, torch.zeros(1), (torch.zeros(1, 3), values))[0].item() == 14


def test_backup_of_a_deterministic_action_and_of_a_sample() -> None:
    batch = make_batch(16)
    plain = make_loss()
    mean = plain.actor_network.get_dist(batch["next"]).deterministic_sample
    expected = plain.target_qvalue_network(batch["next"].clone().set("action", mean))["state_action_value"].amin(-1)
    torch.testing.assert_close(plain.next_state_value(batch), expected)
    found = []
    for entropy in (False, True):
        loss = make_loss(backup="sample", entropy_backup=entropy, alpha_init=0.5)
        torch.manual_seed(4)
        found.append(loss.next_state_value(batch))
    torch.manual_seed(4)
    log_prob = loss.draw(batch["next"])[1]
    torch.testing.assert_close(found[1], found[0] - 0.5 * log_prob)


# ---------------------------------------------------------------------------------------- a bandit, in closed form

REWARDS, COUNTS = (1.0, 0.0, 0.5), (2, 5, 3)
SOLUTIONS = {
    0.1: ((0.865746, 0.058213, 0.492480), 1.273950),
    0.5: ((0.544934, 0.223100, 0.431544), 1.157200),
    1.0: ((0.344723, 0.340608, 0.369171), 1.100193),
    5.0: ((-0.034075, 0.572605, 0.235041), 1.037379),
}


def bandit_rows() -> TensorDict:
    """Ten one-step episodes of three actions, written as corners of a cube, in shares of .2, .5 and .3."""
    index = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    batch = make_batch(10)
    batch["observation"].zero_()
    batch["action"] = torch.eye(3)[index]
    batch["next", "reward"] = torch.tensor(REWARDS)[index].unsqueeze(-1)
    batch["next", "terminated"] = torch.ones(10, 1, dtype=torch.bool)
    return batch


def solve(weight: float, **kwargs: Any) -> Tensor:
    """Train linear, that is tabular, critics to convergence; their values ``[3, m]`` of the three actions."""
    loss, batch = make_loss(3, hidden=(), conservative_weight=weight, **kwargs), bandit_rows()
    proposals = torch.eye(3).expand(10, 3, 3), torch.zeros(10, 3)
    optimiser = torch.optim.LBFGS(loss.critic.parameters(), max_iter=200, tolerance_grad=1e-11, tolerance_change=0)

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss.qvalue_loss(batch, torch.zeros(10), loss.evaluate_gap(batch, proposals))[0]
        value.backward()
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    rows = TensorDict({"observation": torch.zeros(3, OBSERVATION_DIM), "action": torch.eye(3)}, [3])
    return loss.critic(rows)["state_action_value"].detach()


@pytest.mark.parametrize("alpha", SOLUTIONS)
def test_bandit_reaches_the_stationary_point(alpha: float) -> None:
    """Q(a) = r(a) - α (softmax(Q)(a) / β(a) - 1); the loss has no factor 1/2, so the weight is 2 α."""
    with double_precision():
        expected, expected_gap = SOLUTIONS[alpha]
        summed, averaged = solve(2 * alpha, gap_reduction="sum"), solve(4 * alpha, gap_reduction="mean")
        for q in (*summed.unbind(-1), *averaged.unbind(-1)):
            torch.testing.assert_close(q, torch.tensor(expected), atol=2e-6, rtol=0)
            shares = torch.tensor(COUNTS) / 10
            assert (shares @ q).item() == pytest.approx(0.35, abs=1e-8)  # E_β[Q] = E_β[r]
            assert (q.logsumexp(0) - shares @ q).item() == pytest.approx(expected_gap, abs=2e-6)
            torch.testing.assert_close(q, torch.tensor(REWARDS) - alpha * (q.softmax(0) / shares - 1))


def test_bandit_without_conservatism_is_regression() -> None:
    with double_precision():
        torch.testing.assert_close(solve(0.0)[:, 0], torch.tensor(REWARDS), atol=1e-6, rtol=0)
