#!/usr/bin/env bash
# LogValidationReward, the hook by which TorchRL's Trainer evaluates a policy.
# Expected: as its description says, "by default, no exploration is used"; the total reward is that of an episode.
# Seen:     by default the policy explores, and the mean of the totals counts what record_frames cut off as an episode: with
#           a reward of 1 a step and episodes of 20 steps, 30 frames are a total of 15, and 21 frames one of 10.5.
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
import torch
from gymnasium import spaces
from tensordict.nn import TensorDictModule
from torchrl.envs import ExplorationType, GymWrapper, TransformedEnv
from torchrl.envs.utils import exploration_type
from torchrl.trainers import LogValidationReward

print({name: version(name) for name in ("torch", "torchrl", "gymnasium")})


class Even(gym.Env):
    """Reward 1 in each of 20 steps."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, False, self.steps == 20, {}


kinds = []


def act(observation):
    kinds.append(exploration_type())
    return torch.zeros_like(observation)


def evaluate(frames, **options):
    kinds.clear()
    policy = TensorDictModule(act, ["observation"], ["action"])
    env = TransformedEnv(GymWrapper(Even()))
    hook = LogValidationReward(record_interval=1, record_frames=frames, policy_exploration=policy, environment=env, **options)
    return float(hook(None)["total_r_evaluation"]), set(kinds)


for frames in (20, 21, 30, 40):
    total, seen = evaluate(frames)
    print(f"{frames} frames: total reward {total}, acted with {', '.join(kind.name for kind in seen)}")
    assert seen == {ExplorationType.RANDOM}
    assert total == {20: 20.0, 21: 10.5, 30: 15.0, 40: 20.0}[frames]
assert evaluate(20, exploration_type=ExplorationType.DETERMINISTIC)[1] == {ExplorationType.DETERMINISTIC}
print("As found: give exploration_type, and frames that are whole episodes.")
PY
