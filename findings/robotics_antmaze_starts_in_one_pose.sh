#!/usr/bin/env bash
# Seeds of Gymnasium-Robotics' AntMaze, and what of an episode's start they change.
# Expected: place, pose and velocity, as in Gymnasium's Ant and in D4RL's AntMaze (0.1 around the model's own).
# Seen:     the place alone. Each of 100 seeds starts in the same pose at rest, and with position_noise_range = 0, for the
#           fixed start of D4RL's evaluation, the 100 starts are one: a deterministic policy plays one episode 100 times,
#           and its success rate is 0 or 100 %. The maze makes its ant with a reset noise of 0, and passing another is
#           an error; set on the maze's ant afterwards, all starts differ.
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

print({name: version(name) for name in ("gymnasium", "gymnasium-robotics", "mujoco", "numpy")})
gym.register_envs(gymnasium_robotics)
CELLS = {"reset_cell": np.array([1, 1]), "goal_cell": np.array([3, 1])}


def different(env, part, **options):
    return len({part(env.reset(seed=seed, **options)[0]).tobytes() for seed in range(100)})


ant = gym.make("Ant-v5", include_cfrc_ext_in_observation=False)
maze = gym.make("AntMaze_UMaze-v5", continuing_task=False, include_cfrc_ext_in_observation=False)
try:
    gym.make("AntMaze_UMaze-v5", reset_noise_scale=0.1)
    accepted = True
except TypeError as error:
    accepted = False
    print("reset_noise_scale=0.1:", error)
seen = {
    "poses of Ant": different(ant, np.asarray),
    "places in the maze": different(maze, lambda start: start["achieved_goal"], options=CELLS),
    "poses in the maze": different(maze, lambda start: start["observation"], options=CELLS),
}
maze.unwrapped.position_noise_range = 0.0
whole = lambda start: np.concatenate([start["achieved_goal"], start["observation"]])  # noqa: E731
seen["starts without noise of the place"] = different(maze, whole, options=CELLS)
maze.unwrapped.ant_env._reset_noise_scale = 0.1
seen["the same with the ant's own noise"] = different(maze, whole, options=CELLS)
print("different ones of 100 seeds:", seen)
assert list(seen.values()) == [100, 100, 1, 1, 100] and not accepted, "this changed"
PY
