#!/usr/bin/env bash
# Gymnasium's vector environments and Autoreset, with a maze of Gymnasium-Robotics whose goal is an option of reset.
# Expected: reset(options={"goal_cell": ...}) of something that resets itself holds until the next call of reset.
# Seen:     it holds for the first episode. Every later one begins with a reset without options, so the goal is drawn anew:
#           half of a run is of another task, and nothing in info says so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q gymnasium==1.4.0 gymnasium-robotics==1.4.2 mujoco==3.11.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import gymnasium as gym
import gymnasium_robotics
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import Autoreset

print({name: version(name) for name in ("gymnasium", "gymnasium-robotics", "mujoco", "numpy")})
gym.register_envs(gymnasium_robotics)
options = {"goal_cell": np.array([1, 1]), "reset_cell": np.array([6, 6])}


def make():
    return gym.make("PointMaze_Medium-v3", max_episode_steps=5)


maze = make().unwrapped.maze
cell = maze.cell_rowcol_to_xy(options["goal_cell"])


def episodes(goals):
    """Whether the goal lies in the cell, for each goal that was given; an episode keeps its goal."""
    return [bool(np.abs(goal - cell).max() <= 0.5 * maze.maze_size_scaling) for goal in dict.fromkeys(map(tuple, goals))]


def play(env, steps=30):
    observation, _ = env.reset(seed=0, options=options)
    goals = [observation["desired_goal"]]
    for _ in range(steps):
        goals.append(env.step(np.zeros(env.action_space.shape, np.float32))[0]["desired_goal"])
    return np.array(goals)


vectors = [(mode.value, SyncVectorEnv([make], autoreset_mode=mode)) for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)]
found = {name: episodes(play(env)[:, 0]) for name, env in vectors}
found["Autoreset"] = episodes(play(Autoreset(make())))
for name, there in found.items():
    print(f"{name:9s} goal in the cell that was asked for, by episode: {there}")
    assert len(there) >= 5
    assert there[0]
    assert sum(there[1:]) <= 1
print("As found: put the options into a wrapper of each environment, whose reset adds them.")
PY
