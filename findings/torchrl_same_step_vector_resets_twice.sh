#!/usr/bin/env bash
# TorchRL's GymWrapper and a vectorised environment in same-step mode.
# Expected: an environment is reset once an episode, and every start is played.
# Seen:     twice: the vector resets by itself, GymWrapper resets again, and the first of the two starts is never played.
#           The transitions are right; every other start (and its draws from the environment's generator) is lost. In
#           disabled mode there is one reset an episode.
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
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper

print({name: version(name) for name in ("torch", "torchrl", "gymnasium")})


class Five(gym.Env):
    """Observation: how often it was reset, and the step; a limit of five steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self):
        self.resets = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets, self.steps = self.resets + 1, 0
        return np.array([self.resets, 0], np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.array([self.resets, self.steps], np.float32), 1.0, False, self.steps == 5, {}


seen = {}
for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
    inner = [Five(), Five()]
    env = GymWrapper(SyncVectorEnv([lambda each=each: each for each in inner], autoreset_mode=mode))
    before = inner[0].resets
    collector = Collector(env, None, frames_per_batch=100, total_frames=100)
    (rows,) = (batch[0].clone() for batch in collector)
    collector.shutdown()
    followed = (rows["next", "observation"][:, 1] == rows["observation"][:, 1] + 1).all().item()
    played = rows["observation"][:, 0].unique().int().tolist()
    seen[mode] = (int(rows["next", "done"].sum()), inner[0].resets - before, played, followed)
    print(f"{mode.name}: episodes {seen[mode][0]}, resets {seen[mode][1]}, starts that were played {played}")
episodes, resets, played, followed = seen[AutoresetMode.SAME_STEP]
assert (episodes, resets, followed) == (10, 21, True)
assert {later - earlier for earlier, later in zip(played, played[1:])} == {2}
episodes, resets, played, followed = seen[AutoresetMode.DISABLED]
assert (episodes, resets, followed) == (10, 11, True)
assert played == list(range(1, 11))
print("As found: give GymWrapper a vector in disabled mode.")
PY
