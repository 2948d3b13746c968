"""Limits for hardware: values by hand, and nothing executed is ever outside of them."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.data import Bounded

from o3f.cli.signals import StopSignals
from o3f.errors import ConfigError
from o3f.evaluation.playing import isolated
from o3f.modules import (
    ActionLimits,
    EnsembleQValue,
    GaussianCandidates,
    MixedCandidates,
    OptimisticActor,
    Softmax,
    gaussian_policy,
)
from o3f.training.exploration import KINDS, LIMITS, VETOES, make_actor
from tests.support import recipe_runs as runs

ROUNDING = 1e-6


class Given(TensorDictModule):
    """Candidates set by hand."""

    def __init__(self, *candidates: list[float]) -> None:
        value = torch.tensor(candidates)
        super().__init__(lambda a: value.expand(*a.shape[:-1], *value.shape), ["action"], ["candidates"])
        self.num_candidates = len(candidates)


def states(action: list[float], **entries: torch.Tensor) -> TensorDict:
    return TensorDict({"action": torch.tensor([action]), **entries}, [1])


def first(flag: bool, rows: int = 1) -> dict[str, torch.Tensor]:
    return {"is_init": torch.full((rows, 1), flag)}


def best_value(candidates: TensorDict) -> torch.Tensor:
    """The more of the first component, the better."""
    return candidates[..., :1]


def actor_of(limits: ActionLimits, action: list[float], selector: Any = None) -> OptimisticActor:
    policy = TensorDictModule(lambda o: torch.tensor(action).expand(*o.shape[:-1], -1), ["observation"], ["action"])
    policy.spec = Bounded(-1.0, 1.0, (len(action),))
    critic = TensorDictModule(best_value, ["action"], ["state_action_value"])
    return OptimisticActor(policy, critic, sampler=limits, selector=limits.choice(selector))


def test_displacement_by_hand() -> None:
    limits = ActionLimits(Given([0.9, -0.9], [0.25, 0.0], [0.3, 0.3]), max_displacement=[0.1, 0.5])
    out = limits(states([0.2, 0.1]))["candidates"]
    torch.testing.assert_close(out, torch.tensor([[[0.3, -0.4], [0.25, 0.0], [0.3, 0.3]]]))


def test_the_policys_action_is_taken_within_its_bounds() -> None:
    out = ActionLimits(Given([1.0], [-1.0]), max_displacement=0.25)(states([1.5]))["candidates"]
    assert out.flatten().tolist() == [1.0, 0.75]


def test_of_several_samples_the_first_is_the_policys_action() -> None:
    samples = TensorDict({"action": torch.tensor([[[0.0], [0.5], [-0.75], [0.9]]])}, [1])
    out = ActionLimits(MixedCandidates(4, 0.0), max_displacement=0.6)(samples)["candidates"]
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 0.5, 0.0, 0.0]))
    with_margin = MixedCandidates(4, 0.0, clip_margin=0.3)
    assert ActionLimits(with_margin, max_displacement=0.0)(samples + 1.0)["candidates"].amax() == pytest.approx(0.7)


def test_change_is_from_the_action_executed_before_and_free_at_the_start_of_an_episode() -> None:
    actor = actor_of(ActionLimits(Given([0.8], [-0.8]), max_change=0.25), [0.0])
    observation = torch.zeros(1, 1)
    executed = [
        float(actor(TensorDict({"observation": observation, **first(flag)}, [1]))["action"])
        for flag in (True, False, True)
    ]
    assert executed == pytest.approx([0.8, 0.8, 0.8])
    limits = ActionLimits(Given([-0.8], [0.1]), max_change=[0.25])
    limits.remember(torch.tensor([[0.5]]))
    assert limits(states([0.0], **first(False)))["candidates"].flatten().tolist() == pytest.approx([0.25, 0.25])
    assert limits(states([0.0], **first(True)))["candidates"].flatten().tolist() == pytest.approx([-0.8, 0.1])


def test_rows_are_limited_each_by_its_own_action_before() -> None:
    limits = ActionLimits(Given([1.0], [-1.0]), max_change=0.5)
    limits.remember(torch.tensor([[0.25], [-0.25], [0.0]]))
    flags = torch.tensor([[False], [False], [True]])
    out = limits(TensorDict({"action": torch.zeros(3, 1), "is_init": flags}, [3]))["candidates"]
    assert out.squeeze(-1).tolist() == [[0.75, -0.25], [0.25, -0.75], [1.0, -1.0]]


def test_where_both_cannot_hold_the_change_does_and_goes_towards_the_policy() -> None:
    limits = ActionLimits(Given([0.9], [0.95]), max_displacement=0.1, max_change=0.25)
    limits.remember(torch.tensor([[-0.5]]))
    assert limits(states([0.9], **first(False)))["candidates"].flatten().tolist() == pytest.approx([-0.25, -0.25])


def forbid_above(bound: float) -> Any:
    return lambda td: (td["candidates"] > bound).any(-1)


def test_forbidden_candidates_are_neither_scored_nor_chosen() -> None:
    limits = ActionLimits(Given([0.9], [0.1], [0.3], [0.5]), veto=forbid_above(0.4))
    scored: list[Any] = []
    actor = actor_of(limits, [0.0])
    actor.critic.register_forward_pre_hook(lambda _, args: scored.append(args[0]["action"].flatten().tolist()))
    chosen = actor(TensorDict({"observation": torch.zeros(1, 1)}, [1]))["action"]
    assert chosen.item() == pytest.approx(0.3)
    assert scored[0] == pytest.approx([0.1, 0.1, 0.3, 0.1])


def test_what_replaces_forbidden_candidates_is_chosen_no_more_often() -> None:
    """Three of five are forbidden, all values equal: softmax picks the other two equally often."""
    limits = ActionLimits(Given([0.9], [0.1], [0.8], [0.2], [0.7]), veto=forbid_above(0.4))
    actor = actor_of(limits, [0.0], Softmax(1e6, generator=torch.Generator().manual_seed(0)))
    chosen = actor(TensorDict({"observation": torch.zeros(4000, 1)}, [4000]))["action"].flatten()
    assert sorted(set(chosen.tolist())) == pytest.approx([0.1, 0.2])
    share = (chosen < 0.15).float().mean().item()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_where_all_are_forbidden_the_policys_action_is_executed_within_the_limits() -> None:
    limits = ActionLimits(Given([0.9], [0.8]), veto=forbid_above(0.4))
    assert (
        actor_of(limits, [0.3])(TensorDict({"observation": torch.zeros(2, 1)}, [2]))["action"].tolist()
        == [[pytest.approx(0.3)]] * 2
    )
    with pytest.raises(RuntimeError, match="veto forbids all candidates of a state and the policy's action"):
        limits(states([0.5]))
    with pytest.raises(ValueError, match=r"mask \[1\], expected \[1, 3\]"):
        ActionLimits(Given([0.9], [0.8]), veto=lambda td: torch.zeros(1, dtype=torch.bool))(states([0.5]))


def test_a_veto_sees_the_states_it_names() -> None:
    class NearWall(torch.nn.Module):
        in_keys = ["wall"]  # noqa: RUF012

        def forward(self, td: Any) -> Any:
            return td["candidates"].squeeze(-1) > td["wall"]

    limits = ActionLimits(Given([0.9], [0.1], [0.5]), veto=NearWall())
    actor = actor_of(limits, [0.0])
    assert "wall" in actor.in_keys
    td = TensorDict({"observation": torch.zeros(2, 1), "wall": torch.tensor([[0.6], [0.2]])}, [2])
    assert actor(td)["action"].flatten().tolist() == pytest.approx([0.5, 0.1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    displacement=st.none() | st.floats(0, 0.5),
    change=st.none() | st.floats(0, 0.5),
    bound=st.none() | st.floats(0, 1.5),
    rows=st.integers(0, 3),
    kind=st.sampled_from(["gaussian", "mixed"]),
)
def test_what_is_executed_is_always_within_the_limits(
    seed: int, displacement: Any, change: Any, bound: Any, rows: int, kind: str
) -> None:
    torch.manual_seed(seed)
    policy, critic = gaussian_policy(3, 2, (4,)), EnsembleQValue(3, 2, 2, (4,))
    sampler = GaussianCandidates(6, 0.8) if kind == "gaussian" else MixedCandidates(6, 0.8)

    # Forbids a half plane, but never all: the candidate that is the least far out stays allowed.
    def veto(td: Any) -> Any:
        total = td["candidates"].sum(-1)
        return (total > bound) & (total > total.amin(-1, keepdim=True))

    limits = ActionLimits(sampler, max_displacement=displacement, max_change=change, veto=veto if bound else None)
    actor = OptimisticActor(policy, critic, sampler=limits, selector=limits.choice(), return_candidates=True)
    before, bases = None, []
    handle = sampler.register_forward_pre_hook(lambda _, args: bases.append(args[0]["action"].clone()))
    for step in range(4):
        is_init = torch.rand(rows, 1) < 0.3 if step else torch.ones(rows, 1, dtype=torch.bool)
        out = actor(TensorDict({"observation": torch.randn(rows, 3), "is_init": is_init}, [rows]))
        action = out["action"]
        base = (bases[-1] if kind == "gaussian" else bases[-1][:, 0]).clamp(-1, 1)
        assert action.abs().amax() <= 1 if rows else action.shape == (0, 2)
        moved = (action - base).abs()
        if change is not None and step:
            jumped = (action - before).abs()[~is_init.squeeze(-1)]
            assert (jumped <= change + ROUNDING).all()
            # Beyond the displacement only where the policy's action is out of reach, and then as near as can be.
            reach = torch.where(is_init, torch.inf, torch.tensor(change))
            nearest = (base - before).abs() - reach
            moved = torch.where(nearest > (displacement or 0.0), moved - nearest, moved)
        if displacement is not None:
            assert (moved <= displacement + 2 * ROUNDING).all()
        before = action
    handle.remove()


SPEC = Bounded(-1.0, 1.0, (2,))
WITH_CANDIDATES = sorted(kind for kind, (_, known) in KINDS.items() if set(LIMITS) <= set(known))


def options(kind: str, **limits: Any) -> Any:
    return {**runs.settings("finetune", f"exploration={kind}", *runs.TINY).exploration, "sigma": 0.3, **limits}


@pytest.mark.parametrize("kind", WITH_CANDIDATES)
def test_without_limits_every_kind_is_as_before_bit_for_bit(kind: str) -> None:
    policy, critic = gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, 2, (8,))
    td = TensorDict({"observation": torch.randn(5, 3), **first(True, 5)}, [5])
    actions = []
    for chosen in (
        options(kind),
        {k: v for k, v in options(kind).items() if k not in LIMITS},
        options(kind, veto="no"),
    ):
        VETOES["no"] = lambda td: torch.zeros(td["candidates"].shape[:-1], dtype=torch.bool)
        actor = make_actor(policy, critic, chosen, SPEC)
        assert isinstance(actor.sampler, ActionLimits) == (chosen.get("veto") is not None)
        torch.manual_seed(0)
        actions.append(actor(td.clone())["action"])
    del VETOES["no"]
    assert torch.equal(actions[0], actions[1])
    assert torch.equal(actions[0], actions[2])


@pytest.mark.parametrize("kind", WITH_CANDIDATES)
def test_every_kind_with_candidates_can_be_limited(kind: str) -> None:
    policy, critic = gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, 2, (8,))
    actor = make_actor(policy, critic, options(kind, max_displacement=[0.05, 0.1], max_change=0.2), SPEC)
    assert "is_init" in actor.in_keys
    before = actor(TensorDict({"observation": torch.randn(50, 3), **first(True, 50)}, [50]))["action"]
    after = actor(TensorDict({"observation": torch.randn(50, 3), **first(False, 50)}, [50]))["action"]
    assert 0.05 < (after - before).abs().amax() <= 0.2 + ROUNDING


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_keeps_to_the_limits_and_goes_on_exactly(place: Path) -> None:
    overrides = [*runs.SHORT, "dataset=none", "exploration.max_change=0.1", "exploration.max_displacement=0.3"]
    undisturbed = runs.run("finetune", *overrides, "runs=undisturbed")
    stored = runs.part(undisturbed, "buffer")["rows"]
    jumps = (stored["action"][1:] - stored["action"][:-1]).abs().amax(-1)
    within = ~stored["next"]["done"][:-1].squeeze(-1)
    assert jumps[within].amax() <= 0.1 + ROUNDING
    assert jumps[~within].amax() > 0.1
    runs.run_stopped(StopSignals, "check", 70, *overrides)
    runs.assert_same_run(undisturbed, runs.run("finetune", *overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["exploration.max_change=-0.1"], r"exploration.max_change must be a number in \[0, inf\), found -0.1"),
        (["exploration.max_displacement=[0.1,0.1,0.1]"], "max_displacement: found 3 numbers for 2 action dim"),
        (["exploration.veto=near_wall"], "exploration.veto: 'near_wall' is not known"),
        (["exploration.max_change=0.1", "online.random_steps=5"], "online.random_steps are outside the limits"),
        (["exploration.max_change=0.1", "online.distil_weight=1"], "max_change is about one step after the other"),
        (["exploration=noise", "+exploration.max_change=0.1"], "exploration=noise: 'max_change' is not known"),
    ],
)
def test_limits_that_cannot_be_meant(overrides: list[str], message: str, place: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        runs.run("finetune", *runs.TINY, "dataset=none", *overrides)


def returning(answer: Any) -> Any:
    return lambda td: answer


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="max_change must not be negative, got -1"):
        ActionLimits(Given([0.0]), max_change=-1)
    with pytest.raises(ValueError, match="max_displacement must not be negative, got nan"):
        ActionLimits(Given([0.0]), max_displacement=np.nan)
    for name in ("max_displacement", "max_change"):
        wide: dict[str, Any] = {name: [0.1, 0.2, 0.3]}
        with pytest.raises(ValueError, match=f"{name} must be one number or 2, one per dimension"):
            ActionLimits(Given([0.0, 0.0]), **wide)(states([0.0, 0.0], **first(True)))
    for answer in (True, None):
        with pytest.raises(ValueError, match=rf"veto returned {answer}, expected a mask \[1, 2\]"):
            ActionLimits(Given([0.0]), veto=returning(answer))(states([0.0]))
    text: Any = "no"
    with pytest.raises(TypeError, match="veto must be a function or module"):
        ActionLimits(Given([0.0]), veto=text)
    limits = ActionLimits(Given([0.0]), max_change=0.1)
    with pytest.raises(KeyError, match="InitTracker"):
        limits(states([0.0]))
    with pytest.raises(RuntimeError, match=r"which is not known: give the actor selector=limits.choice\(\)"):
        limits(states([0.0], **first(False)))


def test_copies_and_evaluations_keep_the_action_before() -> None:
    actor = actor_of(ActionLimits(Given([0.8], [-0.8]), max_change=0.25), [0.0])
    td = TensorDict({"observation": torch.zeros(1, 1), **first(True)}, [1])
    actor(td.clone())
    copied = copy.deepcopy(actor)
    assert copied.selector.limits is copied.sampler
    with isolated(actor, 0):
        actor(td.expand(3).clone())
    assert actor.sampler._previous.tolist() == copied.sampler._previous.tolist() == [[pytest.approx(0.8)]]
