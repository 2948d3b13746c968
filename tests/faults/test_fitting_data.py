"""Data that fit and are probably wrong, numbered as in docs/reliability.md: each is told, and good data are not."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

import tests.support.own_envs  # noqa: F401  (registers own/*)
from o3f.data import check_dataset, check_environment, dataset_info, load_minari
from o3f.data.minari_store import datasets_root
from o3f.envs import EnvConfig, make_raw_env
from tests.support import recipe_runs as runs
from tests.support.minari_datasets import Episodes, datasets_folder, make_episodes, write_dataset

WIDE = Box(-10.0, 10.0, (2,), np.float32)
SEEN = Box(-1.0, 1.0, (3,), np.float64)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return datasets_folder(monkeypatch, tmp_path)


def episodes_of(lengths: list[int], ends: str = "tu") -> Episodes:
    return make_episodes(lengths, observation_space=SEEN, action_space=WIDE, ends=ends)


def told(episodes: Episodes, action_space: Box = WIDE, **arguments: Any) -> list[str]:
    """The remarks on a dataset, which are also the warnings of its loader."""
    shutil.rmtree(datasets_root() / "toy", ignore_errors=True)
    write_dataset("toy/odd-v0", episodes, observation_space=SEEN, action_space=action_space, **arguments)
    remarks = check_dataset("toy/odd-v0").remarks()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_minari("toy/odd-v0")
    assert [str(each.message) for each in caught] == remarks
    return remarks


def test_f58_good_data_are_told_in_a_line_and_nothing_is_remarked() -> None:
    episodes = episodes_of([4, 6, 5], ends="tuu")
    for episode, total in zip(episodes, (1.0, 2.0, 6.0), strict=True):
        episode["rewards"][:] = total / len(episode["rewards"])
    episodes[0]["actions"][0] = -10.0, 5.0
    episodes[1]["actions"][:, 0] = 2.5
    for episode in episodes:
        episode["actions"][:, 1] = episode["actions"][:, 1].clip(0.0, 5.0)
    episodes[2]["actions"][:, :] = 0.0, 0.0
    assert told(episodes) == []
    highest = max(float(each["actions"][:, 0].max()) for each in episodes) / 10
    line = (
        "toy/odd-v0: 3 episodes of 4 to 6 (mean 5) steps, return 1 to 6 (mean 3); 33 % terminated, 67 % truncated;"
        f" actions in [-1, 1]: -1 to {highest:.2g}, 0 to 0.5"
    )
    assert str(check_dataset("toy/odd-v0")) == line
    assert dataset_info(load_minari("toy/odd-v0")).summary == line


@pytest.mark.parametrize(("lengths", "ends", "count"), [([7, 7, 7], "t", 3), ([5, 4, 5, 5], "t", 3)])
def test_f58_terminal_states_at_the_time_limit(lengths: list[int], ends: str, count: int) -> None:
    """All of one length, or at the limit that the dataset's environment states."""
    spec = gymnasium.spec("own/Kept-v0")  # its limit is 5
    (remark,) = told(episodes_of(lengths, ends), env=spec)
    limit = max(lengths)
    assert remark.startswith(
        f"{count} of {len(lengths)} episodes of 'toy/odd-v0' end in a terminal state after exactly"
    )
    assert f"exactly {limit} steps" in remark
    assert told(episodes_of([5, 4, 6, 3, 2, 7], ends)) == []


def test_f58_actions_recorded_in_unit_bounds() -> None:
    episodes = episodes_of([30, 20])
    for episode in episodes:
        episode["actions"] /= 10
    (remark,) = told(episodes)
    assert "end at 1, and the bounds at 10 from their centre: they use 10 % of their range" in remark


@pytest.mark.parametrize(
    ("low", "recorded", "remark"),
    [
        (0.0, (0.0, 1.0), "lie between 0 and 1, and the bounds go to 10. If they were recorded in [0, 1], scale"),
        (-2.0, (-1.0, 1.0), "lie between -1 and 1, and the bounds go to 10. If they were recorded in [-1, 1], scale"),
        (0.0, (0.0, 10.0), None),
        (0.0, (0.0, 3.0), None),
    ],
)
def test_f58_actions_recorded_in_units_of_uneven_bounds(
    low: float, recorded: tuple[float, float], remark: str | None
) -> None:
    episodes = episodes_of([30, 20])
    for episode in episodes:
        actions = episode["actions"]
        share = (actions - actions.min()) / (actions.max() - actions.min())
        episode["actions"] = (recorded[0] + share * (recorded[1] - recorded[0])).astype(np.float32)
    found = told(episodes, Box(low, 10.0, (2,), np.float32))
    assert len(found) == bool(remark)
    assert remark is None or remark in found[0]


def test_f58_observations_far_outside_their_space() -> None:
    episodes = episodes_of([5, 5])
    episodes[1]["observations"][2, 1] = 180.0
    (remark,) = told(episodes)
    assert "The observations [1] (flat indices) of 'toy/odd-v0' go beyond the bounds" in remark
    assert "up to 179 times" in remark


def test_f58_a_constant_action_dimension_and_an_episode_twice() -> None:
    episodes = episodes_of([5, 4, 3])
    for episode in episodes:
        episode["actions"][:, 1] = 3.0
    assert re.match(r"The actions \[1\] of 'toy/odd-v0' never change", told(episodes)[0])
    remark = told(episodes_of([5, 4, 3]) + episodes_of([5, 4, 3]))[-1]
    assert "3 of 6 episodes of 'toy/odd-v0' are there before, value for value" in remark
    assert "episode 3, equal to episode 0" in remark


def test_f58_episodes_of_one_step_that_do_not_end() -> None:
    (remark,) = told(episodes_of([1] * 12 + [5], "u"))
    assert remark.startswith("12 of 13 episodes of 'toy/odd-v0' have a single step and do not end there")
    assert told(episodes_of([1] * 12 + [5], "t"))[:-1] == []  # of bandits, one step is an episode


def test_f58_the_same_id_with_other_settings() -> None:
    """Arguments, time limit, frame skip and action scale of a dataset that collect made."""
    runs.run(
        "collect",
        *("task=custom", "task.env.id=own/Kept-v0", "task.dataset.id=me/own-v0", "steps=10", "task.env.frame_skip=2"),
        *("+task.env.kwargs.reach=50.0", "task.env.action_scale=0.5"),
    )
    made = EnvConfig("own/Kept-v0", kwargs={"reach": 50.0}, frame_skip=2, action_scale=0.5)
    check_environment("me/own-v0", make_raw_env(made))
    other = EnvConfig("own/Kept-v0", kwargs={"reach": 50.0, "dtype": "float32"}, max_episode_steps=9)
    with pytest.warns(UserWarning, match="with other settings") as caught:
        check_environment("me/own-v0", make_raw_env(other))
    assert str(caught[0].message).splitlines()[1:] == [
        "- argument dtype: not given in the dataset, float32 here",
        "- time limit: 5 of the environment's steps in the dataset, 9 here",
        "- frame_skip: 2 of the environment's steps a step in the dataset, 1 here",
        "- action_scale: 0.5 of the action bounds in the dataset, 1.0 here",
    ]
