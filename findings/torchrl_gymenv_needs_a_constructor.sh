#!/usr/bin/env bash
# TorchRL's GymEnv and an environment class that has no __init__ of its own.
# Expected: what gymnasium.make makes, GymEnv makes.
# Seen:     GymEnv first asks for frameskip=1 and takes that back only for one wording of the error: with an __init__ that
#           knows no such argument it works, without an __init__ it ends in a TypeError.
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


class Without(gym.Env):
    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


class With(Without):
    def __init__(self):
        pass


seen = {}
for kind in (With, Without):
    gym.register(f"{kind.__name__}-v0", entry_point=kind)
    gym.make(f"{kind.__name__}-v0").reset()
    try:
        GymEnv(f"{kind.__name__}-v0").reset()
        seen[kind.__name__] = "made"
    except TypeError as error:
        seen[kind.__name__] = str(error)
    print(f"{kind.__name__} an __init__: gymnasium.make makes it; GymEnv: {seen[kind.__name__]}")
assert seen["With"] == "made"
assert "takes no arguments" in seen["Without"]
assert "frameskip" in seen["Without"]
print("As found: give the class an __init__, or make it with gymnasium.make and use GymWrapper.")
PY
