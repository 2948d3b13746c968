"""Every task file composes, builds its environment, and holds the paper's constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import o3f.cli.assets  # noqa: F401  (registers ${asset:NAME})
from o3f.collection.behaviours import BehaviourConfig
from o3f.data import RewardRule
from o3f.data.minari_store import check_dataset_id
from o3f.envs import EnvConfig, make_env, make_raw_env
from tests.support.mazes import DRAWINGS
from tests.support.tasks import compose_task

CONF = Path(__file__).parents[2] / "conf"
TASKS = sorted(path.relative_to(CONF / "task").with_suffix("").as_posix() for path in CONF.glob("task/**/*.yaml"))
SIZES = {"halfcheetah": (17, 6), "hopper": (11, 3), "walker2d": (17, 6), "antmaze": (29, 8), "kitchen": (59, 9)}
SCORES = {  # D4RL's reference returns
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "antmaze": (0.0, 1.0),
    "kitchen": (0.0, 4.0),
}


CONSTANTS = {"antmaze": [0.05, 0.9, 10.0, 0.99], "kitchen": [0.05, 0.7, 0.5, 0.99]}  # elsewhere those of locomotion
PAPER = [f"{name}/{level}" for name in SIZES if name not in CONSTANTS for level in ("random", "medium")]
PAPER += [f"kitchen/{level}" for level in ("complete", "partial", "mixed")]
PAPER += [f"antmaze/{size}-diverse" for size in ("umaze", "medium", "large")]


@pytest.mark.parametrize("name", [each for each in TASKS if each != "custom"])
def test_task_builds_its_environment(name: str) -> None:
    task = compose_task(name)
    env = make_env(EnvConfig(**task["env"]), seed=0)
    observation_dim, action_dim = SIZES[name.removeprefix("d4rl/").replace("-", "/").split("/")[0]]
    assert env.observation_spec["observation"].shape == (observation_dim,)
    assert env.action_spec.shape == (action_dim,)
    assert env.rollout(3).shape == (3,)
    assert task["name"] == name.replace("/", "-")
    expected = f"o3f/{name}-v{int(name.endswith('quickstart'))}"  # its data were changed once
    if name.startswith(("kitchen", "d4rl")):  # the data are not made here
        expected = f"D4RL/{name}-v2" if name.startswith("kitchen") else f"{name}-v2"
    assert task["dataset"]["id"] == expected
    check_dataset_id(task["dataset"]["id"])
    RewardRule(task["reward"]["scale"], task["reward"]["shift"])
    BehaviourConfig(**task["behaviour"])


@pytest.mark.parametrize("name", PAPER)
def test_task_has_the_constants_of_the_papers(name: str) -> None:
    task = compose_task(name)
    family, level = name.split("/")
    maze, kitchen = family == "antmaze", family == "kitchen"
    assert (task["score"]["min"], task["score"]["max"]) == SCORES[family]
    constants = [task[key] for key in ("sigma", "expectile", "temperature", "discount")]
    assert constants == CONSTANTS.get(family, [0.2, 0.7, 3.0, 0.99])
    assert (task["dataset"]["hosted_id"] is None) == (level == "random" or kitchen)
    assert task["reward"]["shift"] == (-1.0 if maze else 0.0)
    assert (task["reward"]["scale"] == 1.0) == (maze or kitchen)
    assert task["behaviour"]["kind"] == ("waypoint" if maze else "random" if level == "random" else "npz")


@pytest.mark.parametrize(
    ("size", "steps", "start", "goal"),
    [
        ("umaze", 700, (-4, 4), (-4, -4)),
        ("medium", 1000, (-10, 10), (10, -10)),
        ("large", 1000, (-18, 12), (14, -12)),
    ],
)
def test_antmaze_goes_from_start_to_goal_in_d4rls_units(
    size: str, steps: int, start: tuple[int, int], goal: tuple[int, int]
) -> None:
    config = EnvConfig(**compose_task(f"antmaze/{size}-diverse")["env"])
    assert (config.frame_skip, config.action_scale, config.goal_radius) == (2, 0.2, 0.5)
    env = make_raw_env(config)
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(env.unwrapped.reset_pos, start, atol=1e-9)
    assert 0 < np.abs(observation["achieved_goal"] - start).max() <= 0.1  # D4RL's noise
    np.testing.assert_allclose(observation["desired_goal"], goal, atol=1e-9)
    assert config.max_episode_steps == steps
    assert env.spec is not None
    assert env.spec.max_episode_steps == 2 * steps
    assert env.unwrapped.model.opt.timestep * env.unwrapped.ant_env.frame_skip * 2 == pytest.approx(0.1)


@pytest.mark.parametrize("name", [each for each in PAPER if not each.startswith("kitchen")])
def test_the_tasks_of_d4rls_files_differ_in_what_their_data_need_alone(name: str) -> None:
    ours, theirs = compose_task(name), compose_task(f"d4rl/{name.replace('/', '-')}")
    differing = {key for key in ours if ours[key] != theirs[key]}
    maze = name.startswith("antmaze")
    assert differing == {"name", "dataset", "env" if maze else "reward"}
    rule = {key: theirs["reward"][key] for key in ("scale", "shift")}
    assert rule == ({"scale": 1.0, "shift": -1.0} if maze else {"scale": "return_range", "shift": 0.0})
    assert theirs["dataset"]["hosted_id"] is None
    changed = {key for key in ours["env"] if ours["env"][key] != theirs["env"][key]}
    assert changed == ({"kwargs", "reset_options"} if maze else set())


@pytest.mark.parametrize(("size", "goal"), [("umaze", (0, 8)), ("medium", (20, 20)), ("large", (32, 24))])
def test_antmaze_has_the_coordinates_of_d4rls_files(size: str, goal: tuple[int, int]) -> None:
    """D4RL: cells are 4 wide, x = 4 (column - 1), y = 4 (row - 1), the start at (0, 0). So are our walls."""
    env = make_raw_env(EnvConfig(**compose_task(f"d4rl/antmaze-{size}-diverse")["env"]))
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(env.unwrapped.reset_pos, (0, 0), atol=1e-9)
    assert 0 < np.abs(observation["achieved_goal"]).max() <= 0.1
    np.testing.assert_allclose(observation["desired_goal"], goal, atol=1e-9)
    model: Any = env.unwrapped.model
    names = [model.geom(index).name for index in range(model.ngeom)]
    walls = {tuple(model.geom(name).pos[:2]) for name in names if name.startswith("block")}
    cells = [
        (row, column) for row, cells in enumerate(DRAWINGS[size]) for column, cell in enumerate(cells) if cell == "1"
    ]
    assert walls == {(4.0 * (column - 1), 4.0 * (row - 1)) for row, column in cells}


@pytest.mark.parametrize("recipe", ["collect", "pretrain", "finetune"])
def test_any_environment_and_dataset_by_override_alone(recipe: str) -> None:
    ids = ["task.env.id=Pusher-v5", "task.dataset.id=me/pusher-v0", "+task.env.kwargs.frame_skip=2"]
    task = compose_task("custom", *ids, recipe=recipe)
    assert task["name"] == "Pusher-v5"
    assert task["dataset"]["id"] == "me/pusher-v0"
    assert task["reward"] == {"scale": 1.0, "shift": 0.0, "value_bounds": None}
    assert task["score"] == {"min": None, "max": None}
    assert make_raw_env(EnvConfig(**task["env"])).unwrapped.frame_skip == 2
    assert BehaviourConfig(**task["behaviour"]) == BehaviourConfig("random")


def test_every_task_has_the_keys_of_custom() -> None:
    ids = ["task.env.id=Pusher-v5", "task.dataset.id=me/pusher-v0"]
    keys = set(compose_task("custom", *ids))
    for name in set(TASKS) - {"custom"}:
        assert set(compose_task(name)) == keys
