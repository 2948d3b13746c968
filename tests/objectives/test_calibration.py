"""Calibrated critics (Cal-QL): what is pushed down stops at the data's returns, which rows carry where asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from o3f.algorithms import Learner, make_learner
from o3f.cli.signals import StopSignals
from o3f.data import ReturnRule, make_buffer, online_rows, restore_online, store_returns
from o3f.data.rows import allocate_rows
from o3f.objectives import CQLLoss
from o3f.objectives.functional import conservative_gap
from tests.objectives import test_cql_loss
from tests.objectives.test_cql_loss import COUNTS, REWARDS, SOLUTIONS, bandit_rows, make_loss, solve
from tests.support import bandit
from tests.support import recipe_runs as runs
from tests.support.iql_cases import double_precision, make_batch

# ---------------------------------------------------------------------------------------------- the returns


def episode(rewards: list[float], terminated: bool) -> TensorDict:
    """Rows of one episode."""
    rows = allocate_rows(len(rewards), 1, 1).clone()
    rows["next", "reward"] = torch.tensor(rewards).unsqueeze(-1)
    rows["next", "done"][-1] = True
    rows["next", "terminated" if terminated else "truncated"][-1] = True
    return rows


def test_returns_by_hand() -> None:
    """Behind a terminal step there is nothing, behind a cut one the lowest reward for ever: -1 / (1 - 0.5) = -2."""
    rows = torch.cat([episode([1.0, 0.0, 4.0], True), episode([2.0, 2.0], False), episode([-1.0, -1.0], False)])
    rule = ReturnRule.of(rows, 0.5)
    assert rule == ReturnRule(0.5, -1.0)
    buffer = make_buffer(rows, return_rule=rule)
    expected = [2.0, 2.0, 4.0, 2 + 0.5 * 1.0, 2 + 0.5 * -2.0, -2.0, -2.0]
    assert buffer[:]["return_to_go"].flatten().tolist() == expected
    assert "return_to_go" not in make_buffer(rows)[:]


def test_where_no_reward_is_negative_nothing_follows_a_cut() -> None:
    rows = episode([1.0, 2.0], False)
    assert ReturnRule.of(rows, 0.5)(rows["next", "reward"].flatten(), False).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("wrong", [{"discount": 1.0}, {"discount": 0.9, "lowest": 0.1}])
def test_impossible_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"(discount|lowest) must be a number in"):
        ReturnRule(**wrong)


@pytest.mark.parametrize("offline", [None, episode([1.0, -3.0], True)])
def test_online_rows_have_their_return_when_their_episode_has_ended(offline: TensorDict | None) -> None:
    """Of two episodes written by turns into a ring of five rows; the oldest row has made room."""
    rule = ReturnRule(0.5) if offline is None else ReturnRule.of(offline, 0.5)
    buffer = make_buffer(offline, online_capacity=5, return_rule=rule)
    first, second = episode([8.0, 4.0, 2.0], True), episode([1.0, 1.0, 1.0], False)
    written: list[list[int]] = [[], []]
    for step in range(3):
        for one, rows in enumerate((first, second)):
            buffer.extend(rows[step : step + 1])
            written[one].append(buffer.write_count)
    online = buffer[:][0 if offline is None else 2 :]["return_to_go"].flatten
    assert online().isinf().all()
    store_returns(buffer, [buffer.write_count - row for row in written[0]])
    # In the ring: the newest row, then rows 2 to 5; the first episode has rows 3 and 5, of rewards 4 and 2.
    now = buffer[:][0 if offline is None else 2 :]["return_to_go"].flatten().tolist()
    assert now == [-torch.inf, -torch.inf, 4 + 0.5 * 2, -torch.inf, 2.0]
    store_returns(buffer, [buffer.write_count - row for row in written[1]])
    rest = 0.0 if offline is None else -6.0
    ends = [1 + 0.5 * rest, 1 + 0.5 * (1 + 0.5 * (1 + 0.5 * rest)), 1 + 0.5 * (1 + 0.5 * rest)]
    now = buffer[:][0 if offline is None else 2 :]["return_to_go"].flatten().tolist()
    assert now == [ends[0], ends[1], 5.0, ends[2], 2.0]
    again = make_buffer(offline, online_capacity=5, return_rule=rule)
    restore_online(again, online_rows(buffer))
    assert torch.equal(again[:]["return_to_go"], buffer[:]["return_to_go"])


# ------------------------------------------------------------------------------------------------- the loss


def test_a_gap_with_a_floor_by_hand() -> None:
    values = torch.tensor([[0.0, 2.0], [3.0, 2.5]])  # two proposals, two critics
    floor = torch.tensor([1.0, -torch.inf])
    found = conservative_gap(values, torch.zeros(2), torch.zeros(2), floor)
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0], [3.0, 2.5]]).logsumexp(0))


def test_only_the_policys_proposals_have_a_floor() -> None:
    loss, batch = make_loss(num_random=2, calibrate=True), make_batch(4)
    assert "return_to_go" in loss.in_keys
    assert "return_to_go" not in make_loss().in_keys
    returns = torch.tensor([100.0, -100.0, -torch.inf, 3.0])
    batch["return_to_go"] = returns.unsqueeze(-1)
    action, log_density = loss.propose(batch)
    gap, data = loss.evaluate_gap(batch, (action, log_density))
    inputs = {"observation": batch["observation"].unsqueeze(1).expand(4, 6, -1), "action": action}
    values = loss.critic(TensorDict(inputs, [4, 6]))["state_action_value"]
    for row in range(4):
        for critic in range(2):
            said = [max(v, returns[row]) if k < 4 else v for k, v in enumerate(values[row, :, critic])]
            expected = (torch.stack([torch.as_tensor(v) for v in said]) - log_density[row]).logsumexp(0)
            torch.testing.assert_close(gap[row, critic], expected - data[row, critic])
    below = loss.qvalue_loss(batch, torch.zeros(4), (gap, data))[1]["below_return"]
    assert below[0].eq(1).all()
    assert below[1:3].eq(0).all()


def test_rows_without_returns_are_refused() -> None:
    with pytest.raises(KeyError, match=r"needs the returns of the data, 'return_to_go'.*return_discount"):
        make_loss(calibrate=True).evaluate_gap(make_batch(2))


def tabular(alpha: float, floor: float) -> Tensor:
    """Q of the bandit's three actions where CQL, calibrated by one return for all rows, comes to rest."""
    with pytest.MonkeyPatch.context() as patch:
        rows = bandit_rows().set("return_to_go", torch.full((10, 1), floor))
        patch.setattr(test_cql_loss, "bandit_rows", lambda: rows)
        # Of the proposals the last num_random have no floor: a fourth one, which never counts, takes their place.
        patch.setattr(CQLLoss, "_floor", lambda loss, batch, density: loss._returns(batch).expand_as(density))
        return solve(2 * alpha, gap_reduction="sum", calibrate=True)[:, 0]


def test_bandit_reaches_the_stationary_point() -> None:
    """Q(a) = r(a) - α (p(a) / β(a) - 1) with p = softmax(max(Q, G)) where Q > G, and r(a) + α where Q is below G.

    G = 0.35 is the behaviour's mean return. CQL leaves the action of reward 0 at 0.058; here nothing pushes it down.
    """
    alpha, floor = 0.1, 0.35
    with double_precision():
        shares, rewards = torch.tensor(COUNTS) / 10, torch.tensor(REWARDS)
        q = tabular(alpha, floor)
        assert q[1].item() == pytest.approx(0.0 + alpha, abs=2e-6)
        pushed = q.clamp_min(floor).softmax(0) * (q > floor)
        torch.testing.assert_close(q, rewards - alpha * (pushed / shares - 1), atol=2e-6, rtol=0)
        expected, _ = SOLUTIONS[alpha]
        torch.testing.assert_close(tabular(alpha, -10.0), torch.tensor(expected), atol=2e-6, rtol=0)


def trained(**config: Any) -> Learner:
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [32, 32], "critic_learning_rate": 1e-3, "actor_learning_rate": 1e-3}
    learner = make_learner("cql", 1, 1, {**sizes, **config})
    for seed in range(300):
        rows = bandit.make_rows(64, seed=seed)
        learner.update([rows.set("return_to_go", rows["next", "reward"].clone())])
    return learner


def test_the_policys_actions_are_not_pushed_below_the_data() -> None:
    """Returns of the data are -0.8 to 0, -0.4 in the mean. CQL's critics say less of what the policy does."""
    said = []
    for calibrate in (False, True):
        learner = trained(calibrate=calibrate)
        action = learner.policy.get_dist(TensorDict({"observation": torch.zeros(200, 1)}, [200])).sample()
        said.append(bandit.mean_values(learner.critic, action).mean().item())
    assert said[0] < -0.45
    assert said[1] > -0.35


# ---------------------------------------------------------------------------------------------- in a run


def test_a_run_carries_returns_only_where_it_is_calibrated(place: Path) -> None:
    """Reacher's episodes of 50 steps are cut: behind them the lowest reward of the data goes on for ever."""
    overrides = [*runs.SHORT, "algorithm=cql", "exploration=policy", "algorithm.num_random=2", "algorithm.discount=0.9"]
    rows = runs.part(runs.run("finetune", *overrides, "name=plain"), "buffer")["rows"]
    assert "return_to_go" not in rows
    folder = runs.run("finetune", *overrides, "algorithm.calibrate=true")
    rows = runs.part(folder, "buffer")["rows"]
    reward, found = rows["next"]["reward"][50:100].flatten(), rows["return_to_go"].flatten()
    assert found[100:].isinf().all()  # an episode that has not ended
    lowest = (found[99] - reward[-1]).item() / 0.9 * (1 - 0.9)
    assert lowest <= reward.min().item()
    expected = [
        sum(0.9**k * r for k, r in enumerate(reward[t:].tolist())) + 0.9 ** (50 - t) * lowest / 0.1 for t in range(50)
    ]
    torch.testing.assert_close(found[50:100], torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert {tag for _, tag, _ in runs.rows(folder)} >= {"train/cql/below_return"}
    runs.run_stopped(StopSignals, "check", 83, *overrides, "algorithm.calibrate=true", "runs=again")
    runs.assert_same_run(folder, runs.run("finetune", *overrides, "algorithm.calibrate=true", "runs=again"))
