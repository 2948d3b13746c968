"""The recipe that makes datasets: what it writes is what Gymnasium plays back."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from o3f.collection.behaviours import (
    GaussianMLP,
    UniformBehaviour,
    gaussian_mlp_from_actor,
    minari_writer,
    rollout,
    write_minari,
)
from o3f.data import load_minari
from o3f.envs import EnvConfig, episode_seed, make_raw_env
from o3f.modules import gaussian_policy
from recipes import collect as collect_recipe
from recipes.collect import main

CONF = Path(__file__).parents[2] / "conf"
PUSHER = ["task=custom", "task.env.id=Pusher-v5", "task.dataset.id=me/pusher-v0"]


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder


def collect(*overrides: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        main(compose("collect", overrides=list(overrides)))


def gaussian(path: Path, observation_dim: int, action_dim: int) -> GaussianMLP:
    """A small policy with random weights, written to ``path``."""
    rng = np.random.default_rng(0)
    arrays = {
        "W0": rng.normal(size=(observation_dim, 4)),
        "b0": np.zeros(4),
        "W_mean": rng.normal(size=(4, action_dim)),
        "b_mean": np.zeros(action_dim),
        "log_std": np.full(action_dim, -1.0),
        "activation": np.asarray("tanh"),
        "squash": np.asarray(False),
    }
    GaussianMLP(arrays).save(path)
    return GaussianMLP(arrays)


def test_gymnasium_plays_the_dataset_back(capsys: pytest.CaptureFixture[str]) -> None:
    collect(*PUSHER, "steps=250", "seed=3")
    dataset = minari.load_dataset("me/pusher-v0")
    env = gymnasium.make("Pusher-v5")
    episodes = list(dataset.iterate_episodes())
    assert [len(each.rewards) for each in episodes] == [100, 100, 50]
    for episode in episodes:
        observation, _ = env.reset(seed=episode_seed(3, episode.id))
        observations, rewards = [observation], []
        for action in episode.actions:
            observation, reward, *_ = env.step(action)
            observations.append(observation)
            rewards.append(reward)
        np.testing.assert_allclose(episode.observations, observations, atol=1e-9)
        np.testing.assert_allclose(episode.rewards, rewards, atol=1e-9)
        assert episode.truncations.tolist() == [False] * (len(rewards) - 1) + [True]
        assert not episode.terminations.any()
    actions = np.concatenate([each.actions for each in episodes])
    assert actions.dtype == np.float32
    assert 1.95 < np.abs(actions).max() <= 2.0  # the bounds of Pusher
    returns = np.array([each.rewards.sum() for each in episodes])
    printed = capsys.readouterr().out
    assert f"3 episodes, 250 steps, return {returns.mean():.4g} ± {returns.std():.3g}\n" in printed
    assert "next: python -m o3f.recipes.pretrain" in printed


def test_the_loader_returns_the_agents_actions() -> None:
    config = EnvConfig("Pusher-v5")
    env = make_raw_env(config)
    trajectory = rollout(env, UniformBehaviour(7), seed=0, episode=0, max_steps=20)
    write_minari("me/pusher-v0", [trajectory], env, behaviour="uniform", description="a test")
    with pytest.warns(UserWarning, match="never change"):  # the goal
        rows = load_minari("me/pusher-v0")[:]
    np.testing.assert_allclose(rows["action"].numpy(), trajectory.actions, atol=1e-7)
    np.testing.assert_allclose(rows["observation"].numpy(), trajectory.observations[:-1], rtol=1e-6)
    np.testing.assert_allclose(rows["next", "reward"].flatten().numpy(), trajectory.rewards, rtol=1e-6)


def test_policy_files_act_and_reference_scores_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = gaussian(tmp_path / "policy.npz", 11, 3)
    options = ["task.behaviour.sample=false", f"task.behaviour.path={tmp_path}/policy.npz", "steps=120"]
    collect("task=hopper/medium", *options)
    dataset = minari.load_dataset("o3f/hopper/medium-v0")
    episode = next(iter(dataset.iterate_episodes()))
    expected = np.clip(policy.mode(episode.observations[:-1].astype(np.float32)), -1, 1)
    np.testing.assert_allclose(episode.actions, expected, atol=1e-6)
    assert bool(episode.terminations[-1])
    returns = np.array([each.rewards.sum() for each in dataset.iterate_episodes()])
    score = 100 * minari.get_normalized_score(dataset, returns).mean()
    assert f"normalised score {score:.1f}" in capsys.readouterr().out
    assert dataset.env_spec.id == "Hopper-v5"
    description = str(dataset.storage.metadata["description"])
    assert "policy.npz" in description
    assert str(tmp_path) not in description


def test_the_policy_of_a_run_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = gaussian_policy(11, 3, (4,))
    monkeypatch.setattr(collect_recipe, "load_run", lambda folder: (folder, SimpleNamespace(policy=policy)))
    options = ["task.behaviour.kind=run", "task.behaviour.path=runs/mine", "task.behaviour.sample=false"]
    collect("task=hopper/medium", *options, "steps=20")
    episode = next(iter(minari.load_dataset("o3f/hopper/medium-v0").iterate_episodes()))
    expected = gaussian_mlp_from_actor(policy).mode(episode.observations[:-1].astype(np.float32))
    np.testing.assert_allclose(episode.actions, expected, atol=1e-5)
    assert "runs/mine" in minari.load_dataset("o3f/hopper/medium-v0").storage.metadata["description"]


def test_antmaze_rewards_are_relabelled_for_one_goal(tmp_path: Path) -> None:
    gaussian(tmp_path / "ant.npz", 29, 8)
    collect("task=antmaze/umaze-diverse", f"task.behaviour.path={tmp_path}/ant.npz", "steps=60")
    dataset = minari.load_dataset("o3f/antmaze/umaze-diverse-v0")
    for episode in dataset.iterate_episodes():
        np.testing.assert_array_equal(
            episode.observations["desired_goal"], np.tile([-4.0, -4.0], (len(episode.rewards) + 1, 1))
        )
        distance = np.linalg.norm(episode.observations["achieved_goal"][1:] - [-4.0, -4.0], axis=1)
        np.testing.assert_array_equal(episode.rewards, distance <= 0.5)
        np.testing.assert_array_equal(episode.terminations, distance <= 0.5)
    rows = load_minari("o3f/antmaze/umaze-diverse-v0", observation_keys=["achieved_goal", "observation"], check=False)
    assert rows[:]["observation"].shape == (60, 29)
    assert rows[:]["action"].abs().max() <= 1.0
    assert rows[:]["action"].abs().max() > 0.5  # the agent's units, not a fifth of them


def test_the_same_command_makes_the_same_data() -> None:
    collect(*PUSHER, "steps=30", "seed=1")
    first = [each.actions for each in minari.load_dataset("me/pusher-v0").iterate_episodes()]
    collect(*PUSHER, "steps=30", "seed=1", "overwrite=true")
    again = [each.actions for each in minari.load_dataset("me/pusher-v0").iterate_episodes()]
    np.testing.assert_array_equal(first, again)
    collect(*PUSHER, "steps=30", "seed=2", "overwrite=true")
    other = [each.actions for each in minari.load_dataset("me/pusher-v0").iterate_episodes()]
    assert not np.array_equal(first, other)


def test_a_dataset_is_not_overwritten_unasked() -> None:
    collect(*PUSHER, "steps=10")
    with pytest.raises(FileExistsError, match=r"me/pusher-v0 exists.*overwrite=true"):
        collect(*PUSHER, "steps=10_000_000")


def test_a_failure_while_writing_leaves_the_old_dataset(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(*PUSHER, "steps=10")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(minari_writer.minari, "create_dataset_from_buffers", fail)
    with pytest.raises(OSError, match="No space left"):
        collect(*PUSHER, "steps=20", "overwrite=true")
    assert minari.load_dataset("me/pusher-v0").total_steps == 10
    assert sorted(path.name for path in datasets.iterdir()) == ["me"]


@pytest.mark.parametrize("dataset_id", ["../evil-v0", "/tmp/evil-v0", "no version"])
def test_ids_that_are_no_ids_are_refused(dataset_id: str) -> None:
    with pytest.raises(ValueError, match="not a Minari dataset id"):
        collect("task=hopper/random", f"task.dataset.id='{dataset_id}'", "steps=10")


def test_nothing_to_write_is_an_error() -> None:
    env = make_raw_env(EnvConfig("Pusher-v5"))
    with pytest.raises(ValueError, match="No trajectories"):
        write_minari("me/pusher-v0", [], env, behaviour="none", description="none")


def test_the_command_line_repeats_what_training_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*PUSHER, "task.behaviour.noise=0.5", "steps=5"]
    monkeypatch.setattr(sys, "argv", ["collect.py", *arguments])
    with pytest.raises(SystemExit, match="0"):
        main()
    (line,) = re.findall("next: .*", capsys.readouterr().out)
    assert line == "next: python -m o3f.recipes.pretrain " + " ".join(PUSHER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets"]
