"""A scale of rewards that is measured on the dataset: LAPO's runs have it, note it, and are told apart by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box

from o3f.data import largest_reward_scale
from o3f.errors import ConfigError
from o3f.runs.folder import RunFolder
from o3f.training import build
from tests.support.minari_datasets import datasets_folder, make_episodes, write_dataset
from tests.support.recipe_runs import run, settings

SPACES = {
    "observation_space": Box(-np.inf, np.inf, (17,), np.float64),
    "action_space": Box(-1.0, 1.0, (6,), np.float32),
}
TOY = ["task=halfcheetah/random", "debug=toy", "algorithm=lapo", "task.env.max_episode_steps=20", "offline.steps=10"]
LARGEST = {"one": 2.0, "two": 4.0}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets_folder(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, largest in LARGEST.items():
        episodes = make_episodes([20, 20], ends="u", **SPACES)
        for number, episode in enumerate(episodes):
            episode["rewards"] = np.linspace(-1.0, largest / (2 - number), 20)
        write_dataset(f"toy/{name}-v0", episodes, **SPACES)
    return tmp_path


@pytest.mark.filterwarnings("ignore:Dataset .* records no environment")
def test_a_run_notes_the_scale_and_its_successor_tells_of_another(place: Path) -> None:
    config = settings("pretrain", *TOY, "task.dataset.id=toy/one-v0")
    buffer, rule, facts = build.buffer(config)
    assert buffer[:]["next", "reward"].max() == 1.0
    assert rule.scale == facts["reward_scale"] == largest_reward_scale(2.0)
    folder = run("pretrain", *TOY, "task.dataset.id=toy/one-v0")
    assert json.loads((folder / "env.json").read_text())["reward_scale"] == 0.5
    with pytest.warns(UserWarning, match=r"measured task.reward.scale: 0\.5 -> 0\.25"):
        run("finetune", *TOY, "task.dataset.id=toy/two-v0", f"pretrained={folder}", "online.steps=20")
    iql = settings("pretrain", *TOY, "algorithm=iql", "task.dataset.id=toy/one-v0")
    assert "reward_scale" not in build.buffer(iql)[2]  # its number stands in the configuration


def test_a_run_of_another_scale_does_not_go_on(tmp_path: Path) -> None:
    config = settings("pretrain", *TOY, f"runs={tmp_path}")
    with RunFolder.open(config) as folder:
        folder.record_environment(dataset_hash="a", reward_scale=0.5)
        (folder.path / "metrics.csv").write_text("")
        folder.record_environment(dataset_hash="a", reward_scale=0.5)
        with pytest.raises(ConfigError, match=r"reward_scale: 0\.5 -> 0\.25"):
            folder.record_environment(dataset_hash="a", reward_scale=0.25)
        facts = json.loads((folder.path / "env.json").read_text())
        del facts["reward_scale"]  # an earlier version did not write it down
        (folder.path / "env.json").write_text(json.dumps(facts))
        folder.record_environment(dataset_hash="a", reward_scale=0.25)
