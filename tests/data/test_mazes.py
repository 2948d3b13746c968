"""Data of another maze, or in other coordinates, are refused: their sizes would fit."""

from __future__ import annotations

import contextlib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from o3f.data import dataset_info, load_minari
from o3f.data.mazes import check_maze, share_in_walls
from o3f.envs import EnvConfig, make_raw_env
from o3f.training import build
from tests.support.minari_datasets import datasets_folder, make_episodes, write_dataset
from tests.support.recipe_runs import settings

TASK = "task=antmaze/umaze-diverse"


def env_of(task: str) -> gymnasium.Env:
    return make_raw_env(build.env_config(settings("pretrain", task)))


def test_the_share_by_hand() -> None:
    with contextlib.closing(env_of(TASK)) as env:  # cells of 4 by 4 around (0, 0); a wall in the middle one
        corner, middle, border, outside = [-4.0, 4.0], [0.0, 0.0], [-8.0, 0.0], [40.0, 0.0]
        positions = np.array([corner, corner, [1.9, -3.0], middle, border, outside, [2.1, 3.9], [4.0, 0.0]])
        assert share_in_walls(positions, env.unwrapped.maze) == 3 / 8


def test_data_in_other_coordinates_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets_folder(monkeypatch, tmp_path)
    with contextlib.closing(env_of(TASK)) as env, contextlib.closing(env_of("task=d4rl/antmaze-umaze-diverse")) as d4rl:
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        episodes = make_episodes([60], **spaces)
        # In the cell where D4RL starts, which in our coordinates is the wall in the middle of the U.
        episodes[0]["observations"]["achieved_goal"][:] = np.linspace([0.0, 0.0], [1.5, 0.0], 61)
        write_dataset("o3f/antmaze/umaze-diverse-v0", episodes, **spaces)
        keys = ["achieved_goal", "observation"]
        rows = load_minari("o3f/antmaze/umaze-diverse-v0", observation_keys=keys, check=False)
        check_maze(rows, dataset_info(rows), d4rl, keys)
        with pytest.raises(ValueError, match=r"100 % of its positions lie in walls.*task=d4rl/antmaze") as raised:
            check_maze(rows, dataset_info(rows), env, keys)
        assert "o3f/antmaze/umaze-diverse-v0" in str(raised.value)
        check_maze(rows, dataset_info(rows), env, ["observation"])  # without a position there is nothing to compare
    with contextlib.closing(make_raw_env(EnvConfig("Pendulum-v1"))) as plain:
        check_maze(rows, dataset_info(rows), plain, keys)
    assert torch.equal(rows[:]["observation"][0, :2], torch.zeros(2))


def test_data_that_end_at_another_goal_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data made when the goal of the medium maze was cell (6, 5), through which its walks only come."""
    datasets_folder(monkeypatch, tmp_path)
    task = ["task=antmaze/medium-diverse", "offline.batch_size=2"]
    with contextlib.closing(env_of(task[0])) as env:
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    for name, end in {"before": [6.3, -9.8], "now": [9.7, -10.4]}.items():  # cells are 4 wide: x = 6 is column 5
        episodes = make_episodes([9, 7], **spaces)
        for episode in episodes:
            episode["observations"]["achieved_goal"][:] = [-10.0, 10.0]  # the start
        episodes[0]["observations"]["achieved_goal"][-1] = end
        episodes[0]["terminations"][-1], episodes[0]["truncations"][-1] = True, False
        write_dataset(f"me/{name}-v0", episodes, **spaces)
    build.buffer(settings("pretrain", *task, "task.dataset.id=me/now-v0"))
    before = settings("pretrain", *task, "task.dataset.id=me/before-v0")
    with pytest.raises(ValueError, match=r"goal in cell \(6, 5\).*this task's goal is cell \(6, 6\).*Make the dataset"):
        build.buffer(before)
    before.task.env.reset_options.goal_cell = [6, 5]
    build.buffer(before)
