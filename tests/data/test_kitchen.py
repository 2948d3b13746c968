"""FrankaKitchen: what is paid once, and what in every step, in the data and in play; made-up trajectories."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from o3f.collection.steps import Episode
from o3f.data import RewardRule, dataset_hash, dataset_info, load_minari, open_dataset
from o3f.envs import make_raw_env
from o3f.envs.wrappers import RuledReward
from o3f.evaluation.episodes import normalised_score
from o3f.training import build
from o3f.training.load import load_run
from recipes import evaluate, finetune
from tests.support.minari_datasets import datasets_folder, make_episodes, write_dataset
from tests.support.recipe_runs import run, settings
from tests.support.tasks import compose_task

TASKS = {
    "complete": ["microwave", "kettle", "light switch", "slide cabinet"],
    "partial": ["microwave", "kettle", "light switch", "slide cabinet"],
    "mixed": ["microwave", "kettle", "bottom burner", "light switch"],
}
#: What a hand does before a step: the number of a task, negative where the task is undone.
HANDS = [
    {1: 1, 3: 2, 4: -2, 5: 2, 6: 3, 8: 4},  # all, one of them twice, and two steps more
    {0: 2, 4: 4},  # some
    {},
    {2: 1, 7: 2, 8: 3, 9: 4},  # all, in the last step
]
STEPS = 10
ONCE = [
    [0, 1, 0, 1, 0, 0, 1, 0, 1],
    [1, 0, 0, 0, 1, 0, 0, 0, 0, 0],
    [0] * STEPS,
    [0, 0, 1, 0, 0, 0, 0, 1, 1, 1],
]
#: Tasks done after each step of the data, which are cut where all are, and of an episode played, where none is undone.
NOW = [[0, 1, 1, 2, 1, 2, 3, 3, 4], [1, 1, 1, 1, 2, 2, 2, 2, 2, 2], [0] * STEPS, [0, 0, 1, 1, 1, 1, 1, 2, 3, 4]]
SO_FAR = [[0, 1, 1, 2, 2, 2, 3, 3, 4], *NOW[1:]]


def play(env: Any, number: int, tasks: list[str]) -> dict[str, Any]:
    """One episode with the hands' help; stops where the environment says so."""
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES

    rng = np.random.default_rng(number)
    observations, steps = [env.reset(seed=number)[0]], []
    start = env.unwrapped.data.qpos.copy()
    for step in range(STEPS):
        if hand := HANDS[number].get(step):
            task = tasks[abs(hand) - 1]
            place = OBS_ELEMENT_INDICES[task]
            env.unwrapped.data.qpos[place] = OBS_ELEMENT_GOALS[task] if hand > 0 else start[place]
        action = rng.uniform(-0.1, 0.1, 9).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        steps.append((action, reward, terminated, truncated))
        if terminated:
            break
    actions, rewards, terminations, truncations = map(np.array, zip(*steps, strict=True))
    columns = {"actions": actions, "rewards": rewards, "terminations": terminations, "truncations": truncations}
    return {"observations": stacked(observations), **columns}


def stacked(observations: list[Any]) -> Any:
    first = observations[0]
    if isinstance(first, dict):
        return {key: stacked([each[key] for each in observations]) for key in first}
    return np.array(observations)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the three datasets under the hosted names: rewards count, ends are truncations."""
    folder = tmp_path_factory.mktemp("kitchen")
    with pytest.MonkeyPatch.context() as patch:
        datasets_folder(patch, folder)
        patch.chdir(folder)
        for level, tasks in TASKS.items():
            recording = {"remove_task_when_completed": False, "terminate_on_tasks_completed": False}
            build.make_raw_env(env_config(level))  # makes FrankaKitchen known to Gymnasium
            env = gymnasium.make("FrankaKitchen-v1", tasks_to_complete=tasks, disable_env_checker=True, **recording)
            episodes = [play(env, number, tasks) for number in range(len(HANDS))]
            for episode in episodes:
                episode["truncations"][-1] = True
            write_dataset(f"D4RL/kitchen/{level}-v2", episodes, env=env)
            env.close()
        yield folder


def env_config(level: str) -> Any:
    return build.env_config(settings("finetune", f"task=kitchen/{level}"))


def load(level: str, **arguments: Any) -> Any:
    return load_minari(f"D4RL/kitchen/{level}-v2", observation_keys=["observation"], **arguments)


def episodes_of(rows: Any) -> list[Any]:
    ends = np.flatnonzero(rows["next", "done"].numpy()) + 1
    return [rows[start:end] for start, end in itertools.pairwise([0, *ends.tolist()])]


@pytest.mark.parametrize("level", TASKS)
def test_the_data_are_rewarded_as_the_environment_would(level: str, place: Path) -> None:
    config = settings("finetune", f"task=kitchen/{level}", "offline.batch_size=2", "task.dataset.rewards=tasks_once")
    rows = build.buffer(config)[0][:]
    env = make_raw_env(env_config(level))
    assert rows["observation"].shape == (sum(map(len, ONCE)), 59)
    for number, episode in enumerate(episodes_of(rows)):
        played = play(env, number, TASKS[level])
        assert played["rewards"].tolist() == ONCE[number]
        assert episode["next", "reward"].flatten().tolist() == ONCE[number]
        np.testing.assert_array_equal(episode["next", "terminated"][:, 0], played["terminations"])
        assert bool(episode["next", "truncated"][-1]) != bool(played["terminations"][-1])
        seen = played["observations"]["observation"].astype(np.float32)
        np.testing.assert_array_equal(episode["observation"], seen[:-1])
        np.testing.assert_array_equal(episode["next", "observation"], seen[1:])
        np.testing.assert_array_equal(episode["action"], played["actions"])


@pytest.mark.parametrize(("algorithm", "scale"), [("iql", 1.0), ("lapo", 0.25)])
def test_the_learner_sees_the_number_of_tasks_done_in_the_data_and_in_play(
    algorithm: str, scale: float, place: Path
) -> None:
    config = settings("finetune", "task=kitchen/mixed", f"algorithm={algorithm}", "offline.batch_size=2")
    buffer, rule, _ = build.buffer(config)
    counted = episodes_of(buffer[:])
    env = make_raw_env(env_config("mixed"))
    for number, episode in enumerate(counted):
        assert episode["next", "reward"].flatten().tolist() == [scale * count for count in NOW[number]]
        assert episode["next", "terminated"][:, 0].tolist() == [count == 4 for count in NOW[number]]
        played, seen = play(env, number, TASKS["mixed"]), Episode()
        for reward, terminated, count in zip(played["rewards"], played["terminations"], SO_FAR[number], strict=True):
            step = TensorDict({"next": {"reward": torch.tensor([[float(reward)]])}}, [1])
            stored = finetune.with_rule(step, rule, seen.total)
            seen.add(float(reward), row=0)
            assert stored["next", "reward"].item() == scale * count
            assert bool(terminated) == (count == 4)
        assert seen.total == sum(ONCE[number])  # what scores are made of


def test_the_rule_in_an_environment_begins_anew_with_each_episode(place: Path) -> None:
    env = RuledReward(make_raw_env(env_config("mixed")), RewardRule(0.25, running_sum=True))
    for number in (0, 3):
        assert play(env, number, TASKS["mixed"])["rewards"].tolist() == [0.25 * count for count in SO_FAR[number]]


def test_recorded_rewards_count_what_is_done_in_every_step(place: Path) -> None:
    buffer = load("complete")
    rewards = buffer[:]["next", "reward"].flatten().numpy().reshape(len(HANDS), STEPS)
    assert rewards[0].tolist() == [0, 1, 1, 2, 1, 2, 3, 3, 4, 4]
    assert rewards[3].tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 3, 4]
    assert not buffer[:]["next", "terminated"].any()


def test_what_was_read_is_told(place: Path) -> None:
    info = dataset_info(load("mixed", rewards="tasks_once"))
    assert info.returns == (0.0, 2.5, 4.0)
    assert normalised_score(np.array(info.returns), 0.0, 4.0).tolist() == [0.0, 62.5, 100.0]
    recorded, counted, once = (
        dataset_hash("D4RL/kitchen/mixed-v2", observation_keys=["observation"], rewards=rewards)
        for rewards in ("recorded", "tasks_counted", "tasks_once")
    )
    assert recorded != once == info.hash != counted


def test_data_recorded_in_the_scored_environment_do_not_change(place: Path) -> None:
    env = make_raw_env(env_config("partial"))
    episodes = [play(env, number, TASKS["partial"]) for number in range(len(HANDS))]
    for episode in episodes:
        episode["truncations"][-1] = not episode["terminations"][-1]
    write_dataset("me/kitchen-v0", episodes, env=env)
    found = dataset_hash("me/kitchen-v0", rewards="tasks_once")
    assert found == dataset_hash("me/kitchen-v0")


def test_other_data_and_other_names_are_refused(place: Path) -> None:
    spaces = {
        "observation_space": gymnasium.spaces.Box(-1.0, 1.0, (2,)),
        "action_space": gymnasium.spaces.Box(-1.0, 1.0, (1,)),
    }
    write_dataset("me/plain-v0", make_episodes([3], **spaces), **spaces)
    with pytest.raises(ValueError, match="needs achieved_goal and desired_goal observations, found Box"):
        load_minari("me/plain-v0", rewards="tasks_once")
    with pytest.raises(ValueError, match=r"rewards is 'twice', expected one of .*'tasks_once'"):
        load_minari("me/plain-v0", rewards="twice")


@pytest.mark.parametrize("level", TASKS)
def test_the_tasks_are_d4rls(level: str, place: Path) -> None:
    task = compose_task(f"kitchen/{level}")
    kwargs = task["env"]["kwargs"]
    assert kwargs["tasks_to_complete"] == TASKS[level]
    assert (kwargs["remove_task_when_completed"], kwargs["terminate_on_tasks_completed"]) == (True, True)
    assert task["env"]["max_episode_steps"] == 280
    assert task["dataset"]["id"] == f"D4RL/kitchen/{level}-v2"
    recorded = open_dataset(task["dataset"]["id"]).env_spec
    assert recorded is not None
    assert recorded.kwargs["tasks_to_complete"] == TASKS[level]


@pytest.mark.filterwarnings("ignore:Dataset .* with other settings")  # shorter episodes than the data's
def test_a_run_from_the_data_to_the_score(place: Path) -> None:
    toy = ["task=kitchen/mixed", "debug=toy", "algorithm.actor_dropout=0.1", "task.env.max_episode_steps=30"]
    folder = run("finetune", *toy)
    evaluate.main(settings("evaluate", f"run={folder}", "episodes=1"))
    figures = json.loads((folder / "evaluation.json").read_text())["acting"]["policy"]
    assert figures["length"] == 30.0
    assert figures["score"] == 25.0 * figures["return"]
    config, learner = load_run(folder)
    assert learner.updates == 20 + 60
    assert config.exploration.sigma == 0.05
