#!/usr/bin/env bash
# TorchRL's GymEnv with num_envs and an environment of one's own.
# Expected: num_envs makes so many of the environment that is made without it.
# Seen:     its constructor gets a further argument, frameskip=1, and fails where it takes none.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 gymnasium==1.4.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from torchrl.envs import GymEnv

print({name: version(name) for name in ("torch", "torchrl", "gymnasium")})


class Still(gym.Env):
    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self):
        pass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


if __name__ == "__main__":
    gym.register("Still-v0", entry_point=Still)
    print("one:", GymEnv("Still-v0").reset()["observation"].shape)
    try:
        GymEnv("Still-v0", num_envs=2)
        told = "no error"
    except TypeError as error:
        told = str(error)
    print("num_envs=2:", told)
    assert "frameskip" in told, told
    print("As found: an environment must take frameskip= (or **kwargs) for num_envs.")
PY
