"""Environments of one's own that keep to Gymnasium's interface in their own way, numbered as in docs/reliability.md."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensordict.nn import TensorDictModule
from torch import nn

import tests.support.faulty_envs
import tests.support.own_envs  # noqa: F401  (registers own/*)
from o3f.cli.recipe import expand_home
from o3f.data import load_file
from o3f.data.actions import check_action_space, to_agent_actions, to_env_actions
from o3f.envs import EnvConfig, flat_observation, make_env, make_gym_env, make_raw_env
from o3f.envs.flat_observation import FlatObservation
from o3f.errors import EnvironmentFailure, EvaluationError
from o3f.evaluation.episodes import evaluate
from o3f.export.interface import Interface
from o3f.export.programs import PolicyProgram
from o3f.runs.identity import plain, run_path
from tests.support import recipe_runs as runs

STILL = TensorDictModule(lambda observation: torch.zeros_like(observation[..., :1]), ["observation"], ["action"])
BOUND = st.floats(-1e6, 1e6, width=32)


@given(BOUND, BOUND, st.floats(-1.0, 1.0, width=32), st.sampled_from([1.0, 0.3]), st.sampled_from(["f2", "f4", "f8"]))
@example(-0.7, 0.1, 1.0, 1.0, "f4")
@settings(max_examples=300, deadline=None)
def test_f54_no_action_is_rounded_out_of_its_bounds(
    first: float, second: float, action: float, scale: float, kind: str
) -> None:
    """What the environment gets and what a dataset holds lie in the action space, and are what was meant."""
    ends = np.sort(np.clip([first, second], -6e4, 6e4).astype(kind))
    if not ends[0] < ends[1]:
        return
    space = Box(ends[:1], ends[1:], dtype=ends.dtype)
    received = to_env_actions(np.full((1,), action, np.float32), space, scale)
    assert space.contains(received)
    meant = (np.float64(ends[0]) + ends[1]) / 2 + scale * (np.float64(ends[1]) - ends[0]) / 2 * action
    assert received == pytest.approx(
        meant, abs=float(4 * np.finfo(kind).eps * np.abs(ends).max()) + 1e-6 * (kind == "f2")
    )
    assert to_agent_actions(received, space).shape == (1,)


def test_f54_every_way_out_of_the_agent_keeps_to_the_bounds() -> None:
    """Acting, recording and exporting, with the bounds of which (high - low) / 2 + (high + low) / 2 exceeds high."""
    bounds = Box(-0.7, 0.1, (1,), np.float32)
    centre, half = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
    assert not bounds.contains(centre + half)
    env = make_gym_env(EnvConfig("own/Kept-v0"), seed=0)
    env.reset()
    env.step(np.ones(1, np.float32))
    (executed,) = env.unwrapped.received  # type: ignore[attr-defined]
    assert bounds.contains(executed)
    assert executed == np.float32(0.1)
    for kind in ("float32", "float64"):
        bounds = Box(-0.7, 0.1, (1,), np.dtype(kind).type)
        program = PolicyProgram(nn.Linear(2, 1), Interface.of(EnvConfig("own/Kept-v0", kwargs={"dtype": kind})))
        for action, end in ((-1.0, bounds.low), (1.0, bounds.high)):
            made = program.in_units(torch.full((1, 1), action)).numpy()[0]
            assert bounds.contains(made)
            assert made == pytest.approx(end, abs=1e-7)


def test_f56_actions_of_whole_numbers_are_refused_as_discrete_ones_are() -> None:
    """They would be executed as fractions and recorded as whole numbers."""
    whole = Box(0, 10, (2,), np.int64)
    for refuse in (lambda: check_action_space(whole), lambda: make_env(EnvConfig("own/Whole-v0"), seed=0)):
        with pytest.raises(ValueError, match=r"Box\(0, 10, \(2,\), int64\), of whole numbers.*discrete actions"):
            refuse()


def test_f56_observations_and_actions_of_no_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"observation .* holds no number: .* Box of shape \(1,\) and return a zero"):
        make_env(EnvConfig("own/Sized-v0", kwargs={"observations": 0}), seed=0)
    with pytest.raises(ValueError, match=r"Supported: a Box of shape \[A\], A > 0"):
        make_env(EnvConfig("own/Sized-v0", kwargs={"actions": 0}), seed=0)
    five = {"rewards": np.zeros(5), "terminals": np.zeros(5, bool), "timeouts": np.ones(5, bool)}
    for widths, message in (((0, 2), "holds no number"), ((3, 0), "A > 0")):
        observations, actions = (np.zeros((5, width), np.float32) for width in widths)
        np.savez(tmp_path / "data.npz", observations=observations, actions=actions, **five)
        with pytest.raises(ValueError, match=message):
            load_file(tmp_path / "data.npz")


@pytest.mark.parametrize(("env_id", "shape"), [("own/Stacked-v0", (3, 2)), ("own/Flattened-v0", (6,))])
def test_f59_an_environment_is_looked_at_with_the_wrappers_it_is_registered_with(
    env_id: str, shape: tuple[int, ...]
) -> None:
    """Frames stacked or flattened by Gymnasium's wrappers: what docs/limits.md recommends for histories."""
    env = make_env(EnvConfig(env_id), seed=0)
    step = env.rollout(4)["next", "observation"]
    assert step.shape == (4, 6)
    assert step[:, [0, 2, 4]].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert make_raw_env(EnvConfig(env_id)).observation_space.shape == shape


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("assert", r"assert how != .assert."),
        ("exit", r".raise SystemExit"),
        ("value", r".raise ValueError.*needs an address"),
    ],
)
def test_f59_an_environment_that_refuses_to_be_made_says_where(how: str, told: str) -> None:
    """An assertion often has no text of its own."""
    with pytest.raises(RuntimeError, match=rf"own/Refusing-v0 could not be made with .*own_envs.py:\d+ .*{told}"):
        make_env(EnvConfig("own/Refusing-v0", kwargs={"how": how}), seed=0)


def test_f59_an_environment_without_a_space_is_told() -> None:
    with pytest.raises(ValueError, match=r"own/Refusing-v0 has the action_space None, expected a gymnasium.Space"):
        make_env(EnvConfig("own/Refusing-v0", kwargs={"how": "spaceless"}), seed=0)


def test_f60_every_cure_that_a_message_names_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"not bounded.*TransformAction\(env, lambda action: action,"):
        make_env(EnvConfig("own/Kept-v0", kwargs={"high": np.inf}), seed=0)
    env = make_gym_env(EnvConfig("own/Bounded-v0"), seed=0)
    env.reset()
    for action in (1.0, -1.0):
        env.step(np.full(1, action, np.float32))
    assert [float(each[0]) for each in env.unwrapped.received] == [2.0, -2.0]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"no time limit of its own\. Set max_episode_steps"):
        make_env(EnvConfig("own/Limitless-v0"), seed=0)
    assert make_env(EnvConfig("own/Limitless-v0", max_episode_steps=3), seed=0).rollout(9).shape == (3,)
    with pytest.raises(ImportError, match="export PYTHONPATH=FOLDER"):
        make_env(EnvConfig("elsewhere:own/Elsewhere-v0"), seed=0)
    made_by = "tests.support.own_envs:bounded"
    text = f"import gymnasium\ngymnasium.register('own/Elsewhere-v0', '{made_by}', max_episode_steps=2)\n"
    (tmp_path / "elsewhere.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert make_env(EnvConfig("elsewhere:own/Elsewhere-v0"), seed=0).rollout(9).shape == (2,)


def test_f61_bounds_that_do_not_hold_are_told_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count that leaves its stated bound of 2: every step is passed on; a thousand times as much is a failure."""
    monkeypatch.setattr(flat_observation, "_TOLD", set())
    config = EnvConfig("own/Kept-v0", kwargs={"reach": 2.0})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            env = make_gym_env(config, seed=0, max_failures=1)
            env.reset()
            assert [env.step(np.zeros(1))[0][0] for _ in range(5)] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(caught) == 1
    assert "action [0.]: [3.0] at [0] (flat indices), stated are [-2.0] to [2.0]" in str(caught[0].message)
    flat = FlatObservation(make_raw_env(config))
    flat.reset(seed=0)
    flat.unwrapped.observation[0] = 2e6  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"\[2000001.0\] at \[0\].*no matter of bounds"):
        flat.step(np.zeros(1))


def test_f62_that_there_can_be_one_only_is_said_before_the_first_step() -> None:
    """Evaluations need another; those that run alone take what can be had."""
    told = r"no second own/Once-v0 .*ConnectionError in .*port 5005.*no scores.*collector=multi_sync num_workers=1"
    with pytest.warns(RuntimeWarning, match=told):
        env = make_env(EnvConfig("own/Once-v0"), seed=0)
    assert env.rollout(9).shape == (5,)
    env.close()
    alike = pytest.warns(RuntimeWarning, match="3 episodes of this evaluation began with the same observation")
    with alike, pytest.warns(RuntimeWarning, match=r"1 of 3 environments at a time.*one after the other.*port 5005"):
        alone = evaluate(STILL, EnvConfig("own/Once-v0"), episodes=3, seed=0)
    assert alone.returns.tolist() == [5.0, 5.0, 5.0]


LATE = {
    "assert": r"AssertionError.*in _fail_late, .*faulty_envs.py:\d+",
    "exit": r"called sys.exit\(3\) in step",
    "noflag": r"terminated is None \(NoneType\), expected True or False",
    "array": r"terminated is array\(\[ True, False\]\) \(ndarray\), expected True or False",
    "textreward": r"The reward is '3' \(str\), expected a number",
    "noinfo": r"info is None \(NoneType\), expected a dict",
}


@pytest.mark.parametrize("how", LATE)
def test_f64_what_goes_wrong_late_in_an_episode_costs_the_episode_or_the_score(how: str) -> None:
    config = EnvConfig("faulty/Env-v0", kwargs={"how": how})
    with pytest.raises(EvaluationError, match=rf"in episode 0 at step 2: .*{LATE[how]}"):
        evaluate(STILL, config, episodes=1, seed=0)
    env = make_gym_env(config, seed=0, max_failures=2)
    env.reset()
    env.step(np.zeros(1))
    env.step(np.zeros(1))
    with pytest.warns(RuntimeWarning, match=f"(?s)failed in step 3 of its episode.*{LATE[how]}"):
        _, reward, _, truncated, _ = env.step(np.zeros(1))
    assert np.isnan(reward)
    assert truncated
    assert env.reset()[0][0] == 0.0


@pytest.mark.parametrize(
    ("how", "told"), [("successes", r"array\(\[ True, False\]\)"), ("successtext", "'no'"), ("successnan", "nan")]
)
def test_f64_a_success_that_is_no_truth_value_costs_the_score(how: str, told: str) -> None:
    config = EnvConfig("faulty/Env-v0", kwargs={"how": how})
    with pytest.raises(EvaluationError, match=rf"in episode 0 at step 2: success is {told}"):
        evaluate(STILL, config, episodes=1, seed=0)


def test_f90_an_environment_that_changes_the_folder_takes_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths of runs and datasets are seen from the folder that the command was started in."""
    monkeypatch.chdir(tmp_path)
    env = make_gym_env(EnvConfig("own/Moving-v0"), seed=0)
    assert Path.cwd() == tmp_path
    make_env(EnvConfig("own/Moving-v0"), seed=0)  # which takes a first look at it, below our wrappers
    assert Path.cwd() == tmp_path
    env.reset()
    assert Path.cwd() == tmp_path
    env.step(np.zeros(1))
    assert Path.cwd() == tmp_path


def test_f64_an_environment_that_ends_the_process_in_reset_is_tried_again() -> None:
    env = make_gym_env(EnvConfig("own/Refusing-v0", kwargs={"how": "reset"}), seed=0, max_failures=2)
    with pytest.warns(RuntimeWarning, match=r"called sys.exit\(4\) in reset"), pytest.raises(EnvironmentFailure):
        env.reset()


def test_f63_an_id_with_a_colon_and_a_home_folder_are_taken_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's folder is named after the id; ~ is the home folder, wherever a configuration says it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    task = ["task=custom", "task.env.id=tests.support.own_envs:own/Kept-v0", "task.dataset.id=me/own-v0"]
    config = runs.settings("finetune", *task, "runs='~/runs'", "+task.env.kwargs.files=['~/a','b~/c']")
    assert run_path(plain(config)).as_posix() == (
        "~/runs/default/tests.support.own_envs-own-Kept-v0-iql-optimistic/seed0"
    )
    expand_home(config)
    assert (config.runs, list(config.task.env.kwargs.files)) == (f"{tmp_path}/runs", [f"{tmp_path}/a", "b~/c"])
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    assert runs.command("collect", *task, "steps=5") == 0
    wanted = ["overwrite=true", "task.behaviour.kind=npz", "task.behaviour.path=~/a.npz"]
    assert runs.command("collect", *task, "steps=5", *wanted) == 1
    assert f"No policy file at {tmp_path}/a.npz" in capsys.readouterr().err
