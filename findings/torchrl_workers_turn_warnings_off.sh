#!/usr/bin/env bash
# TorchRL's MultiSyncCollector and an environment that warns.
# Expected: the warning of an environment is seen on the standard error, as with a collector in one process.
# Seen:     it is not: the worker processes of TorchRL turn all warnings off, so that an environment that says that it has
#           lost its robot says so to nobody. Python's own filters (-W, PYTHONWARNINGS) do not bring it back.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 gymnasium==1.4.0 numpy==2.4.6
cat > "$work/warning_env.py" <<'PY'
import warnings

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from torchrl.envs import GymWrapper


class Warning(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        warnings.warn("the robot does not answer", RuntimeWarning)
        return np.zeros(2, np.float32), 0.0, False, False, {}


def make():
    return GymWrapper(Warning())
PY
cat > "$work/collect.py" <<'PY'
import sys

from torchrl.collectors import Collector, MultiSyncCollector
from warning_env import make

if __name__ == "__main__":
    several = sys.argv[1] == "several"
    options = dict(frames_per_batch=4, total_frames=4)
    collector = MultiSyncCollector([make, make], None, **options) if several else Collector(make, None, **options)
    print("steps", sum(batch.numel() for batch in collector))
    collector.shutdown()
PY
cd "$work"
"$work/venv/bin/python" -c "from importlib.metadata import version; print({name: version(name) for name in ('torch', 'torchrl', 'gymnasium')})"
for kind in one several; do
    PYTHONWARNINGS=always "$work/venv/bin/python" collect.py $kind > out 2> err
    grep -q "steps 4" out
    count=$(grep -c "the robot does not answer" err || true)
    echo "$kind: the warning was seen $count times in 4 steps"
    eval "$kind=$count"
done
test "$one" -ge 4
test "$several" -eq 0
echo "As found: pass warnings on by other means, a file or an entry of the step."
