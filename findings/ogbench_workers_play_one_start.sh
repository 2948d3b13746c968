#!/usr/bin/env bash
# OGBench's environments, the seed of reset, and Gymnasium's AsyncVectorEnv (which forks on Linux up to Python 3.13).
# Expected: as Gymnasium has it, reset(seed=...) says which episode comes; four workers with four seeds play four.
# Seen:     task, start and goal of a maze come from NumPy's global stream, which no seed of reset touches and which forked
#           processes begin alike: four workers play the same task from the same place to the same goal, whatever their seeds.
#           100 episodes are 25, each four times (but for what follows the seed: velocities, an ant's pose), and an interval
#           over 100 is up to twice too narrow. A fixed task, as evaluations have it, does not help: the four starts are
#           still one. In one process a seed gives another start each time.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q ogbench==1.2.2 gymnasium==1.4.0 mujoco==3.11.0 dm-control==1.0.44 numpy==2.4.6
cat > "$work/play.py" <<'PY'
import os
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
os.environ["MUJOCO_GL"] = "disabled"  # nothing is rendered
import gymnasium as gym
import numpy as np
import ogbench  # noqa: F401 (registers the mazes)


def make():
    return gym.make("pointmaze-medium-v0", disable_env_checker=True)


def seeded(seed):
    def make_seeded():
        np.random.seed(seed)
        return make()

    return make_seeded


def starts(makers, options=None):
    """Where 100 episodes begin and are to end, of four workers with a seed of its own for each episode."""
    vector, rows = gym.vector.AsyncVectorEnv(makers, context="fork"), []
    for episode in range(25):
        observation, info = vector.reset(seed=[4 * episode + worker for worker in range(4)], options=options)
        rows += np.hstack([observation, np.stack(list(info["goal"]))]).tolist()
    vector.close()
    return len({tuple(row) for row in rows})


if __name__ == "__main__":
    print({name: version(name) for name in ("ogbench", "gymnasium", "mujoco", "numpy")})
    found = {
        "any task": starts([make] * 4),
        "task 1": starts([make] * 4, {"task_id": 1}),
        "NumPy seeded in each worker": starts([seeded(worker) for worker in range(4)]),
    }
    print("different (start, goal) of 100 episodes:", found)
    env = make()
    same = [env.reset(seed=0)[0].round(2).tolist() for _ in range(3)]
    print("starts of seed 0, three times:", same)
    assert found == {"any task": 25, "task 1": 25, "NumPy seeded in each worker": 100}
    assert len({tuple(start) for start in same}) == 3
    print("As found: call numpy.random.seed in each worker, and before each reset that is to be repeated.")
PY
cd "$work" && "$work/venv/bin/python" play.py
