#!/usr/bin/env bash
# An environment that returns the same observation array at every step, changed in place.
# Expected: who keeps an observation beyond the next step copies it.
# Seen:     Gymnasium's FrameStackObservation stacks one frame three times; TorchRL's GymWrapper gives a rollout whose observations are all the last; Stable-Baselines3's replay buffer has the next episode's first observation as the last one of each episode.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 gymnasium==1.4.0 stable-baselines3==2.9.2 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3 import SAC
from torchrl.envs import GymWrapper

print({name: version(name) for name in ("torch", "torchrl", "gymnasium", "stable-baselines3", "numpy")})


class Counter(gym.Env):
    """The observation is the step's number, in one array; an episode has three steps."""

    observation_space = spaces.Box(-1e3, 1e3, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self):
        self.number = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number[:] = 0
        return self.number, {}

    def step(self, action):
        self.number += 1
        return self.number, 0.0, bool(self.number[0] >= 3), False, {}


stacked = gym.wrappers.FrameStackObservation(Counter(), 3)
stacked.reset()
for _ in range(3):
    frames = stacked.step(np.zeros(1, np.float32))[0][:, 0].tolist()
print("FrameStackObservation after steps 1, 2, 3:", frames)
rollout = GymWrapper(Counter()).rollout(3)
observed, following = (rollout[key][:, 0].tolist() for key in ("observation", ("next", "observation")))
print("TorchRL's rollout: observations", observed, "next", following)
model = SAC("MlpPolicy", Counter(), learning_starts=100, buffer_size=20, device="cpu")
model.learn(6)
kept = model.replay_buffer.next_observations[:6, 0, 0].tolist()
print("Stable-Baselines3's next observations:", kept, "(right: [1, 2, 3, 1, 2, 3])")
assert frames == [3.0, 3.0, 3.0]
assert observed == following == [3.0, 3.0, 3.0]
assert kept == [1.0, 2.0, 0.0, 1.0, 2.0, 0.0]
print("As found: none of them copies, none says so.")
PY
