"""Faults of losses and values, numbered as in docs/reliability.md."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from o3f.algorithms import make_learner
from o3f.data import make_buffer
from o3f.data.rewards import far_rewards
from o3f.errors import DivergenceError
from o3f.modules import latent_encoder
from o3f.objectives import ValueClamp
from o3f.objectives.functional import advantage_weights, awac_weights, conservative_gap, divergence_from_normal
from o3f.runs.checkpoint import load_component
from o3f.training.best import BestAgent
from o3f.training.guard import Guard, replay
from recipes import finetune
from tests.support import recipe_runs as runs
from tests.support.recipe_runs import SHORT, assert_same_run, part, rows, run, run_stopped
from tests.support.rows import make_rows

SETTINGS = {"on_nonfinite": "stop", "patience": 3, "max_rollbacks": 2, "max_q_ratio": 100.0}
FROM_ONLINE_ROWS = [*SHORT, "online.online_fraction=1.0", "online.warmup_steps=20", "algorithm=iql"]


pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """About one reward of thirty is infinite, behind every check of the environment; a resumed run sees the same."""
    original = finetune.with_rule

    def with_infinity(transition: Any, rule: Any, before: float) -> Any:
        stored = original(transition, rule, before)
        if int(transition["next", "reward"].item() * 1e5) % 30 == 0:
            stored["next", "reward"].fill_(math.inf)
        return stored

    monkeypatch.setattr(finetune, "with_rule", with_infinity)


def batch(size: int = 8, *, bad: bool = False) -> TensorDict:
    torch.manual_seed(1)
    data = make_rows(size)[:]
    data["next", "reward"] = torch.full((size, 1), math.nan) if bad else torch.linspace(-1, 1, size)[:, None]
    return data


def make(tmp_path: Path, **settings: Any) -> tuple[Any, Guard]:
    data = batch()
    torch.manual_seed(0)
    learner = make_learner("iql", data["observation"].shape[-1], data["action"].shape[-1], {"hidden_sizes": (8, 8)})
    buffer = make_buffer(data, batch_size=8)
    return learner, Guard(learner, SETTINGS | settings, tmp_path / "nonfinite", buffer, discount=0.9)


def update(learner: Any, guard: Guard, *, bad: bool, seed: int = 0) -> None:
    batches = [batch(bad=bad)]
    torch.manual_seed(seed)
    guard.watch(batches)
    learner.update(batches)


def weights(learner: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in learner.loss.parameters()]


def test_f37_a_bad_batch_is_left_out_and_can_be_replayed(tmp_path: Path) -> None:
    learner, guard = make(tmp_path)
    for seed, bad in enumerate((False, True, False, False)):
        update(learner, guard, bad=bad, seed=seed)
    with pytest.warns(UserWarning, match=r"Step 10: updates with gradients .* were left out \(rest 1\)"):
        guard.check(10)
    assert all(parameter.isfinite().all() for parameter in weights(learner))
    assert guard.check_values(10)["left_out"] == 1
    twin, _ = make(tmp_path)
    metrics = replay(twin, tmp_path / "nonfinite")
    assert torch.equal(load_component(tmp_path / "nonfinite", "update")["streams"], torch.manual_seed(1).get_state())
    assert twin.optimisers["rest"].left_out == 2  # the one counted already, and itself
    assert twin.optimisers["value"].left_out == 0
    assert metrics["loss/critic"].isnan()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.check(20)  # nothing new


def test_f37_a_bad_step_changes_nothing_but_its_count(tmp_path: Path) -> None:
    learner, guard = make(tmp_path)
    update(learner, guard, bad=False)
    critic = [p.clone() for p in learner.critic.parameters()]
    policy = [p.clone() for p in learner.policy.parameters()]
    update(learner, guard, bad=True)
    assert all(torch.equal(p, q) for p, q in zip(critic, learner.critic.parameters(), strict=True))
    assert all(torch.equal(p, q) for p, q in zip(policy, learner.policy.parameters(), strict=True))
    assert {int(state["step"]) for state in learner.optimisers["rest"].state.values()} == {1}


def test_f37_several_in_a_row_stop(tmp_path: Path) -> None:
    learner, guard = make(tmp_path)
    for bad in (True, True, False, True, True):  # not three in a row
        update(learner, guard, bad=bad)
    with pytest.warns(UserWarning, match="rest 4"):
        guard.check(10)
    update(learner, guard, bad=True)
    guard.check(18)  # not looked at yet
    with pytest.raises(DivergenceError, match=r"not finite in the last 3 updates.*nonfinite") as stop:
        guard.check(20)
    assert stop.value.exit_code == 5


def test_f37_or_go_back_at_half_the_rate(tmp_path: Path) -> None:
    learner, guard = make(tmp_path, on_nonfinite="roll_back")
    update(learner, guard, bad=False)
    guard.keep()
    kept = weights(learner)
    for scale in (0.5, 0.25):
        update(learner, guard, bad=False)
        for _ in range(3):
            update(learner, guard, bad=True)
        with pytest.warns(UserWarning, match=f"Back to the agent of the last checkpoint, at {scale:g} of"):
            guard.check(10)
        assert all(torch.equal(p, q) for p, q in zip(kept, weights(learner), strict=True))
        assert {optimiser.rate_scale for optimiser in learner.optimisers.values()} == {scale}
    state = copy.deepcopy(learner.state_dict())
    update(learner, guard, bad=False)
    slow = weights(learner)
    twin, _ = make(tmp_path)
    twin.load_state_dict(state)  # the lower rate is part of the state
    update(twin, guard, bad=False)
    assert all(torch.equal(p, q) for p, q in zip(slow, weights(twin), strict=True))
    twin.load_state_dict(state)
    for optimiser in twin.optimisers.values():
        optimiser.rate_scale = 1.0
    update(twin, guard, bad=False)
    pairs = zip(kept, slow, weights(twin), strict=True)
    moved = [((b - a).abs().sum(), (c - a).abs().sum()) for a, b, c in pairs]
    assert sum(slow for slow, _ in moved) == pytest.approx(0.25 * float(sum(fast for _, fast in moved)), rel=0.05)
    for _ in range(3):
        update(learner, guard, bad=True)
    with pytest.raises(DivergenceError, match="not finite"):
        guard.check(30)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.filterwarnings("ignore:Step .* were left out:UserWarning")
def test_f37_a_run_goes_on_and_resumes_exactly() -> None:
    undisturbed = run("finetune", *FROM_ONLINE_ROWS, "runs=undisturbed")
    left_out = rows(undisturbed, "train/left_out")
    assert left_out
    assert left_out[-1][2] < 80  # some updates were good
    learner = part(undisturbed, "learner")
    assert all(value.isfinite().all() for value in learner["loss"].values() if torch.is_tensor(value))
    saved = load_component(undisturbed / "nonfinite", "update")["batches"]["0"]
    assert saved["next"]["reward"].isinf().sum() > 0
    run_stopped(finetune, "with_rule", 90, *FROM_ONLINE_ROWS)
    assert_same_run(undisturbed, run("finetune", *FROM_ONLINE_ROWS))


def test_f38_values_that_no_policy_can_have(tmp_path: Path) -> None:
    learner, guard = make(tmp_path)  # rewards up to 1, discount 0.9: values up to 10
    update(learner, guard, bad=False)
    head, offset = learner.critic.weights[-1], learner.critic.biases[-1]
    with torch.no_grad():
        head.zero_()
        offset.fill_(-19.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert guard.check_values(1) == {"critic/largest": pytest.approx(19.0)}
    with torch.no_grad():
        offset.fill_(-21.0)
    with pytest.warns(UserWarning, match="The critics say up to 21, and no policy can reach more than 10"):
        guard.check_values(2)
    with torch.no_grad():
        offset.fill_(1001.0)
    with pytest.raises(DivergenceError, match=r"They diverge: lower algorithm\.learning_rate") as stop:
        guard.check_values(3)
    assert stop.value.exit_code == 5
    _, unlimited = make(tmp_path, max_q_ratio=None)
    unlimited.learner = learner
    unlimited.watch([batch()])
    with pytest.warns(UserWarning, match="about to diverge"):
        assert unlimited.check_values(3)["critic/largest"] == pytest.approx(1001.0)


def test_f38_soft_critics_may_reach_the_entropy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, guard = make(tmp_path)  # rewards up to 1, discount 0.9
    update(learner, guard, bad=False)
    monkeypatch.setattr(type(learner), "entropy_weight", property(lambda _: 2.0))
    actions = guard.buffer[:]["action"].shape[-1]
    bound = (1 + 2 * actions) / 0.1
    with torch.no_grad():
        learner.critic.weights[-1].zero_()
        learner.critic.biases[-1].fill_(-1.9 * bound)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.check_values(1)
    with torch.no_grad():
        learner.critic.biases[-1].fill_(-2.1 * bound)
    with pytest.warns(UserWarning, match=f"more than {bound:.4g}, the largest reward and entropy over"):
        guard.check_values(2)


def test_f38_a_run_that_diverges_ends_with_exit_code_5(capsys: pytest.CaptureFixture[str]) -> None:
    assert runs.command("pretrain", *runs.TINY, "guard.max_q_ratio=1e-9") == 5
    assert "They diverge" in capsys.readouterr().err


@pytest.mark.parametrize("advantage", [1e3, 1e30, float("inf"), -1e30])
def test_f39_advantage_weights_stay_within_their_cap(advantage: float) -> None:
    value = torch.tensor([advantage, 0.0], requires_grad=True)
    weight = advantage_weights(value, 3.0)
    torch.testing.assert_close(weight, torch.tensor([100.0 if advantage > 0 else 0.0, 1.0]))
    assert torch.autograd.grad(weight.sum(), value)[0].isfinite().all()


@pytest.mark.parametrize("advantage", [1e3, 1e30])
def test_f39_awacs_weights_stay_finite_and_of_mean_one(advantage: float) -> None:
    torch.testing.assert_close(awac_weights(torch.tensor([advantage, 0.0]), 1.0), torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(awac_weights(torch.tensor([advantage, 0.0]), 1.0, "exp"), torch.tensor([100.0, 1.0]))


def test_f39_the_share_of_capped_weights_is_logged(tmp_path: Path) -> None:
    learner, _ = make(tmp_path)
    with torch.no_grad():
        target = learner.target_critic
        target.biases[-1].fill_(1e6)
    assert learner.update([batch()])["advantage/clipped_share"] == 1.0


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_f40_conservative_terms_at_large_scales(scale: float) -> None:
    values = torch.tensor([[scale], [scale], [-scale]], requires_grad=True)
    gap = conservative_gap(values, torch.zeros(3), torch.tensor([0.0]))
    torch.testing.assert_close(gap, torch.tensor([scale + math.log(2)]))
    (gradient,) = torch.autograd.grad(gap.sum(), values)
    assert gradient.isfinite().all()
    if scale < 1e6:  # beyond, float32 does not know log 2 beside it
        torch.testing.assert_close(gradient, torch.tensor([[0.5], [0.5], [0.0]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", [1e4, 1e8])
def test_f40_the_divergence_of_an_encoder_at_large_scales(scale: float) -> None:
    encoder = latent_encoder(3, 2, 4, (8,))
    inputs = TensorDict({"observation": torch.full((5, 3), scale), "action": torch.full((5, 2), -scale)}, [5])
    mean, log_variance = (encoder(inputs).get(key) for key in encoder.out_keys)
    divergence = divergence_from_normal(mean, log_variance)
    assert divergence.isfinite().all()
    gradients = torch.autograd.grad(divergence.mean(), list(encoder.parameters()), allow_unused=True)
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


def test_the_best_agent_is_kept_and_worse_ones_are_told(tmp_path: Path) -> None:
    learner, guard = make(tmp_path)
    best = BestAgent(tmp_path / "best", patience=2)
    kept, gains = {}, []
    for step, score in enumerate((5.0, 7.0, 4.0, 5.0, 7.0, 4.0)):
        update(learner, guard, bad=False)
        kept[step] = weights(learner)
        gains.append(best.update(step, {"score": score, "return": -score}, learner))
    assert gains[:3] == [{}, {"gain": 2.0}, {"gain": 0.5}]
    assert best.state_dict() == {"first": 5.0, "best": 7.0, "below": 1, "later": [7.0, 4.0, 5.0, 7.0, 4.0]}
    resumed = BestAgent(tmp_path / "best", patience=2)
    resumed.load_state_dict(best.state_dict())
    best = resumed
    assert best.update(6, {}, learner) == {}  # a failed evaluation says nothing
    with pytest.warns(UserWarning, match=r"Step 7: the last 2 evaluations are below .* \(5.0\); the best one was 7.0"):
        assert best.update(7, {"score": 3.0}, learner) == {"gain": 0.0}
    del (older := best.state_dict())["later"]
    best.load_state_dict(older)
    assert best.update(8, {"score": 3.0}, learner) == {}  # the scores before are not known
    twin, _ = make(tmp_path)
    twin.load_state_dict(load_component(tmp_path / "best", "learner"))
    assert all(torch.equal(p, q) for p, q in zip(kept[1], weights(twin), strict=True))


FILL = 9.97e36  # netCDF's fill value
SMALL = {name: {"hidden_sizes": (16, 16)} for name in ("iql", "awac", "cql", "sac", "lapo")}
SMALL["awac"] = {**SMALL["awac"], "actor_hidden_sizes": (16, 16)}


@pytest.mark.parametrize("name", SMALL)
def test_f71_one_huge_reward_does_not_end_learning(name: str) -> None:
    torch.manual_seed(0)
    rows = make_rows(8)[:]
    learner = make_learner(name, rows["observation"].shape[-1], rows["action"].shape[-1], SMALL[name])
    learner.prepare(rows)
    learner.update([rows])
    bad = rows.clone()
    bad["next", "reward"][3] = FILL
    learner.update([bad])
    assert sum(float(optimiser.left_out) for optimiser in learner.optimisers.values()) >= 1
    moments = [state["exp_avg_sq"] for each in learner.optimisers.values() for state in each.state.values()]
    assert all(moment.isfinite().all() for moment in moments)
    before = weights(learner)
    for _ in range(5):
        learner.update([rows])
    undisturbed = make_moves(name, rows)
    moved = [torch.count_nonzero(a != b).item() for a, b in zip(before, weights(learner), strict=True)]
    assert sum(moved) > 0.95 * sum(undisturbed)


def make_moves(name: str, rows: TensorDict) -> list[int]:
    """How many weights move in five updates of a learner that saw no bad batch."""
    torch.manual_seed(0)
    learner = make_learner(name, rows["observation"].shape[-1], rows["action"].shape[-1], SMALL[name])
    learner.prepare(rows)
    learner.update([rows])
    before = weights(learner)
    for _ in range(5):
        learner.update([rows])
    return [int(torch.count_nonzero(a != b)) for a, b in zip(before, weights(learner), strict=True)]


def test_f71_a_huge_reward_does_not_blind_the_bound_of_values(tmp_path: Path) -> None:
    data = batch(30)
    data["next", "reward"][7] = FILL
    learner, _ = make(tmp_path)
    guard = Guard(learner, SETTINGS, tmp_path / "nonfinite", make_buffer(data, batch_size=8), discount=0.9)
    guard.watch([batch()])
    with torch.no_grad():
        learner.critic.weights[-1].zero_()
        learner.critic.biases[-1].fill_(-1001.0)
    with pytest.raises(DivergenceError, match=r"more than 10, the largest reward .* \(without 1 rewards that lie far"):
        guard.check_values(1)


@pytest.mark.parametrize(
    ("rewards", "marked"),
    [
        ([0.0] * 300 + [1.0], []),  # a goal among zeros
        ([1e-3] * 300 + [1000.0], []),
        ([-1e-9] * 300 + [1.0], []),  # a goal among costs
        ([-1.0] * 300 + [FILL, -FILL], [300, 301]),
        ([1.0] * 300 + [1e12, FILL], [300, 301]),
        ([0.5] * 20 + [math.nan, 1e20], [20, 21]),
        ([1.0, 1e30], []),  # not rare
        ([], []),
    ],
)
def test_f71_rewards_far_beyond_the_rest_are_found(rewards: list[float], marked: list[int]) -> None:
    assert far_rewards(torch.tensor(rewards)).nonzero().flatten().tolist() == marked


def test_f72_one_bad_reward_does_not_end_lapos_value_clamp() -> None:
    clamp = ValueClamp()
    for bad in (math.nan, math.inf, -math.inf, FILL):
        clamp.observe(torch.tensor([[bad], [2.0], [-1.0]]))
        assert (clamp.reward_min.item(), clamp.reward_max.item()) == (-1.0, 2.0)
    clamp.observe(torch.full((3, 1), math.nan))
    clamp.observe(torch.tensor([50.0, 3.0]), torch.tensor([False, True]))
    assert (clamp.reward_min.item(), clamp.reward_max.item()) == (-1.0, 3.0)
    fixed = ValueClamp("fixed")
    fixed.fit(torch.tensor([math.nan, 0.5, 4.0, -math.inf]))
    assert (fixed.reward_min.item(), fixed.reward_max.item()) == (0.5, 4.0)


def test_f72_padded_rows_do_not_widen_lapos_value_clamp() -> None:
    torch.manual_seed(0)
    rows = batch()
    learner: Any = make_learner("lapo", rows["observation"].shape[-1], rows["action"].shape[-1], SMALL["lapo"])
    rows["next", "reward"][4:] = 100.0
    rows["collector", "mask"] = (torch.arange(8) < 4)[:, None]
    learner.loss.value_loss(rows)
    assert learner.loss.value_clamp.reward_max.item() == max(0.0, rows["next", "reward"][:4].max().item())
