#!/usr/bin/env bash
# Minari's two storages and an observation that is float64 in a float32 space.
# Expected: both storages do the same, at the first episode.
# Seen:     HDF5 keeps float64, whatever the space says; Arrow ends with an error when the dataset is made, after everything was recorded.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'minari[create,hdf5,arrow]==0.5.4' pillow==12.0.0 gymnasium==1.4.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import os
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
os.environ["MINARI_DATASETS_PATH"] = os.path.join(os.getcwd(), "datasets")
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from minari import DataCollector

print({name: version(name) for name in ("minari", "gymnasium", "pyarrow", "h5py")})


class Wide(gym.Env):
    observation_space = spaces.Box(-1e3, 1e3, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.array([0.0, 0.1]), {}

    def step(self, action):
        self.steps += 1
        return np.array([self.steps, 0.1]), 1.0, False, self.steps >= 3, {}


gym.register("Wide-v0", entry_point=Wide)
seen = {}
for storage in ("hdf5", "arrow"):
    recorder = DataCollector(Wide(), data_format=storage)
    try:
        recorder.reset(seed=0)
        for _ in range(3):
            recorder.step(np.zeros(1, np.float32))
        dataset = recorder.create_dataset(f"types/{storage}-v0", eval_env=None)
        seen[storage] = str(dataset[0].observations.dtype)
    except Exception as error:
        seen[storage] = type(error).__name__
    print(f"{storage}: {seen[storage]}")
assert seen == {"hdf5": "float64", "arrow": "ArrowTypeError"}, seen
print("As found: cast observations to the space's type before they are recorded.")
PY
