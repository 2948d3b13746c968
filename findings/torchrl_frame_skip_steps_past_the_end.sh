#!/usr/bin/env bash
# TorchRL's FrameSkipTransform, beside GymEnv(frame_skip=), at the end of an episode.
# Expected: both repeat an action until the skip is over or the episode is, as frame skips of Gymnasium wrappers do.
# Seen:     the transform steps on in an episode that has ended, and adds up what comes: MountainCarContinuous pays its bonus
#           of 100 for each step at the flag, so a policy that reaches it scores several of them, the more the longer the
#           skip, where GymEnv gives one. An environment that says once that it has ended is not seen to end at all.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 gymnasium==1.4.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY' 2>&1 | grep -v INFO
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import gymnasium as gym
import numpy as np
import torch
from torchrl.envs import FrameSkipTransform, GymEnv, GymWrapper, TransformedEnv

print({name: version(name) for name in ("torch", "torchrl", "tensordict", "gymnasium")})


def swing(observation):
    """Full force the way it moves: reaches the flag."""
    return torch.where(observation[..., 1:] < 0, -1.0, 1.0)


def by_transform(env, skip):
    return TransformedEnv(env, FrameSkipTransform(frame_skip=skip))


def returns(env):
    """Of ten episodes."""
    env.set_seed(0)
    return [round(env.rollout(999, swing, set_truncated=True)["next", "reward"].sum().item()) for _ in range(10)]


class EndsOnce(gym.Env):
    """Ends with its sixth step, and says so in that step alone."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, self.steps == 6, False, {}


name, seen = "MountainCarContinuous-v0", {}
for skip in (4, 8):
    seen[skip] = (returns(GymEnv(name, frame_skip=skip)), returns(by_transform(GymEnv(name), skip)))
    print(f"skip {skip}: returns with GymEnv {seen[skip][0]}, with FrameSkipTransform {seen[skip][1]}")
    assert max(seen[skip][0]) < 100 < max(seen[skip][1])
assert max(seen[8][1]) > 500
lengths = [env.rollout(20).shape[0] for env in (GymWrapper(EndsOnce(), frame_skip=4), by_transform(GymWrapper(EndsOnce()), 4))]
print("steps of 4 frames in an episode of 6, of at most 20:", lengths)
assert lengths == [2, 20]
print("As found: give frame_skip= to GymEnv, or skip frames in a Gymnasium wrapper.")
PY
