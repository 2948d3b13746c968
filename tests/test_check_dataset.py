"""Every fault of a dataset stops with the field, the episode, the step, the count and the cure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from o3f.data import DatasetReport, check_dataset, check_environment, dataset_info, load_minari
from o3f.envs import EnvConfig, make_gym_env
from tests.minari_datasets import Episodes, datasets_folder, make_episodes, write_dataset

SPACES: dict[str, Any] = {
    "observation_space": Box(-np.inf, np.inf, (3,), np.float64),
    "action_space": Box(-1.0, 1.0, (2,), np.float32),
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return datasets_folder(monkeypatch, tmp_path)


@pytest.fixture
def episodes() -> Episodes:
    return make_episodes([4, 5, 3], **SPACES)


def assert_stops(episodes: Episodes, *parts: str) -> None:
    """Both the check alone and the loader stop, with all parts in the message; check=False does not."""
    write_dataset("toy/faulty-v0", episodes, **SPACES)
    for read in (check_dataset, load_minari):
        with pytest.raises(ValueError, match="Dataset 'toy/faulty-v0' cannot be used") as caught:
            read("toy/faulty-v0")
        for part in parts:
            assert part in str(caught.value)


def test_a_sound_dataset_is_counted(episodes: Episodes) -> None:
    write_dataset("toy/sound-v0", episodes, **SPACES)
    report = check_dataset("toy/sound-v0")
    assert (report.transitions, report.terminated, report.truncated, report.unfinished) == (12, 2, 1, 0)
    assert (report.clipped_actions, report.faults) == (0, {})
    assert report.returns == pytest.approx([float(each["rewards"].sum()) for each in episodes])


@pytest.mark.parametrize(
    ("field", "value"),
    [("observations", np.nan), ("actions", np.nan), ("rewards", -np.inf), ("rewards", np.nan)],
)
def test_non_finite_values(episodes: Episodes, field: str, value: float) -> None:
    episodes[1][field][2:4] = value
    count = {"observations": 6, "actions": 4, "rewards": 2}[field]
    assert_stops(
        episodes,
        f"'{field}' is not finite at {count} place(s), first in episode 1 at step 2.",
        "filter_episodes",
    )


def test_the_last_observation_counts_too(episodes: Episodes) -> None:
    episodes[2]["observations"][3, 1] = np.inf
    assert_stops(episodes, "'observations' is not finite at 1 place(s), first in episode 2 at step 3.")


def test_finite_in_float64_but_not_in_float32(episodes: Episodes) -> None:
    episodes[0]["observations"][1, 0] = 1e300
    episodes[2]["rewards"][2] = -1e300
    assert_stops(
        episodes,
        "'observations' is not finite at 1 place(s), first in episode 0 at step 1.",
        "'rewards' is not finite at 1 place(s), first in episode 2 at step 2.",
    )


def test_actions_far_out_of_bounds(episodes: Episodes) -> None:
    episodes[0]["actions"][3, 0] = 1.5
    episodes[2]["actions"][1] = -1.25
    assert_stops(
        episodes,
        "'actions' exceeds the action bounds at 3 place(s), first in episode 0 at step 3,",
        "by up to 0.5 in units of [-1, 1]",
        "clip_actions=true",
    )
    with pytest.warns(UserWarning, match=r"3 action values .* up to 0.5"):
        buffer = load_minari("toy/faulty-v0", clip_actions=True)
    assert buffer[:]["action"].abs().max() == 1.0
    assert buffer[3]["action"][0] == 1.0
    assert torch.equal(buffer[10]["action"], -torch.ones(2))
    assert dataset_info(buffer).clipped_actions == 3
    assert check_dataset("toy/faulty-v0", clip_actions=True).worst_excess == pytest.approx(0.5)


def test_actions_slightly_out_of_bounds_are_clipped_and_reported(episodes: Episodes) -> None:
    episodes[1]["actions"][0, 1] = 1.0005
    write_dataset("toy/slight-v0", episodes, **SPACES)
    with pytest.warns(UserWarning, match="1 action values of 'toy/slight-v0' lay up to 0.0005"):
        buffer = load_minari("toy/slight-v0")
    assert buffer[4]["action"][1] == 1.0
    assert check_dataset("toy/slight-v0").clipped_actions == 1


def test_the_tolerance_ends_at_a_thousandth(episodes: Episodes) -> None:
    episodes[1]["actions"][0, 1] = -1.0015
    assert_stops(episodes, "'actions' exceeds the action bounds at 1 place(s), first in episode 1 at step 0,")


def test_the_tolerance_is_in_units_of_the_bounds(episodes: Episodes) -> None:
    spaces = {**SPACES, "action_space": Box(-100.0, 100.0, (2,), np.float32)}
    episodes[1]["actions"][0, 1] = 100.05
    write_dataset("toy/wide-v0", episodes, **spaces)
    report = check_dataset("toy/wide-v0")
    assert report.worst_excess == pytest.approx(5e-4, rel=1e-2)


def test_actions_at_the_bounds_are_no_excess(episodes: Episodes) -> None:
    episodes[0]["actions"][:] = np.float32([1.0, -1.0])
    write_dataset("toy/border-v0", episodes, **SPACES)
    assert check_dataset("toy/border-v0").clipped_actions == 0


def test_action_scale_narrows_the_bounds(episodes: Episodes) -> None:
    for episode in episodes:
        episode["actions"] = np.clip(episode["actions"], -0.2, 0.2)
    write_dataset("toy/narrow-v0", episodes, **SPACES)
    assert check_dataset("toy/narrow-v0", action_scale=0.2).clipped_actions == 0
    with pytest.raises(ValueError, match=r"by up to 1 in units"):
        check_dataset("toy/narrow-v0", action_scale=0.1)


@pytest.mark.parametrize("field", ["terminations", "truncations"])
def test_an_end_in_the_middle_of_an_episode(episodes: Episodes, field: str) -> None:
    episodes[1][field][2] = True
    assert_stops(
        episodes,
        f"'{field}' ends the episode before its last step at 1 place(s), first in episode 1 at step 2.",
        "another episode: split the episode",
    )


def test_no_ends_at_all() -> None:
    episodes = make_episodes([4, 5], **SPACES, ends="-")
    assert_stops(episodes, "neither 'terminations' nor 'truncations' is true", "any of 2 episode(s)", "check=False")
    rows = load_minari("toy/faulty-v0", check=False)[:]["next"]
    assert rows["truncated"].flatten().nonzero().flatten().tolist() == [3, 8]
    assert not rows["terminated"].any()


def test_some_missing_ends_are_truncations_and_reported() -> None:
    write_dataset("toy/some-v0", make_episodes([4, 5, 3], **SPACES, ends="t-u"), **SPACES)
    report = check_dataset("toy/some-v0")
    assert (report.terminated, report.truncated, report.unfinished) == (1, 2, 1)


def test_zeros_everywhere_are_a_damaged_file(episodes: Episodes) -> None:
    for episode in episodes:
        episode["observations"][:] = 0.0
        episode["actions"][:] = 0.0
    assert_stops(episodes, "all observations and actions are zero")


def test_all_faults_are_listed_at_once(episodes: Episodes) -> None:
    episodes[0]["rewards"][0] = np.nan
    episodes[1]["actions"][1, 1] = 7.0
    episodes[2]["truncations"][0] = True
    assert_stops(episodes, "'rewards' is not finite", "'actions' exceeds", "'truncations' ends", "by up to 6 ")


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("observations", r"'observations' of episode 1 has shape \(5, 3\), expected \(6, 3\) for 5 rewards"),
        ("actions", r"'actions' of episode 1 has shape \(4, 2\), expected \(5, 2\)"),
        ("terminations", r"'terminations' of episode 1 has shape \(4,\), expected \(5,\)"),
        ("truncations", r"'truncations' of episode 1 has shape \(4,\), expected \(5,\)"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_fields_of_another_length_would_mix_episodes(episodes: Episodes, field: str, found: str, check: bool) -> None:
    episodes[1][field] = episodes[1][field][:-1]
    write_dataset("toy/short-v0", episodes, **SPACES)
    with pytest.raises(ValueError, match=f"{found}.* T \\+ 1"):
        load_minari("toy/short-v0", check=check)


def test_without_transitions_there_is_nothing_to_check() -> None:
    with pytest.raises(ValueError, match="no transitions"):
        DatasetReport("toy/empty-v0").raise_faults()


def pendulum_dataset(dataset_id: str = "toy/pendulum-v0", env_id: str = "Pendulum-v1", **kwargs: Any) -> Any:
    env = gymnasium.make(env_id, **kwargs)
    episodes = make_episodes([4], observation_space=env.observation_space, action_space=env.action_space)  # type: ignore[arg-type]
    write_dataset(dataset_id, episodes, env=env)
    return env


def test_the_datasets_own_environment_is_accepted_bare_and_wrapped() -> None:
    env = pendulum_dataset()
    check_environment("toy/pendulum-v0", env)
    check_environment("toy/pendulum-v0", make_gym_env(EnvConfig("Pendulum-v1"), seed=0))
    check_dataset("toy/pendulum-v0", env=env)
    env.close()


@pytest.mark.parametrize(
    ("env_id", "kwargs", "differences"),
    [
        ("Hopper-v4", {}, ["environment id: Hopper-v5 in the dataset, Hopper-v4 here"]),
        ("Walker2d-v5", {}, ["Hopper-v5 in the dataset, Walker2d-v5", "observation_space", "action_space"]),
        ("Hopper-v5", {"exclude_current_positions_from_observation": False}, ["observation_space", "(12,)"]),
    ],
)
def test_another_environment_or_version_is_listed(env_id: str, kwargs: dict[str, Any], differences: list[str]) -> None:
    pendulum_dataset("toy/hopper-v0", "Hopper-v5").close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gymnasium.logger, "min_level", gymnasium.logger.ERROR)  # v4 is announced as old
        env = gymnasium.make(env_id, **kwargs)
    for check in (check_environment, lambda dataset_id, env: check_dataset(dataset_id, env=env)):
        with pytest.raises(ValueError, match="was not made in this environment") as caught:
            check("toy/hopper-v0", env)
        lines = [line for line in str(caught.value).splitlines() if line.startswith("- ")]
        assert len(lines) == len({part.split(":")[0] for part in differences if "(12,)" not in part})
        assert all(re.search(re.escape(part), str(caught.value)) for part in differences)
    env.close()


def test_other_bounds_of_the_same_shape_are_a_difference() -> None:
    env = pendulum_dataset()
    narrow = gymnasium.wrappers.RescaleAction(gymnasium.make("Pendulum-v1", g=9.0), np.float32(-1), np.float32(1))
    check_environment("toy/pendulum-v0", narrow)  # unwrapped, the bounds are the same
    env.unwrapped.action_space = Box(-3.0, 3.0, (1,), np.float32)
    with pytest.raises(ValueError, match=r"action_space: .*2.0.* in the dataset, .*3.0.* here"):
        check_environment("toy/pendulum-v0", env)
    env.close()


def test_a_dataset_without_an_environment_compares_spaces_only(episodes: Episodes) -> None:
    write_dataset("toy/bare-v0", episodes, **SPACES)
    env = gymnasium.make("Pendulum-v1")
    with pytest.raises(ValueError, match="was not made in this environment") as caught:
        check_environment("toy/bare-v0", env)
    assert "environment id" not in str(caught.value)
    env.close()


@pytest.mark.parametrize("dataset_id", ["../x-v0", "/abs/x-v0", "x/..-v0"])
def test_ids_that_are_paths_are_refused(dataset_id: str) -> None:
    with pytest.raises(ValueError, match="not a Minari dataset id"):
        check_dataset(dataset_id)
