#!/usr/bin/env bash
# Minari and an episode whose parts have other lengths than its actions.
# Expected: an episode of 5 actions needs 6 observations and 5 rewards, or it is refused.
# Seen:     5 observations, 4 rewards or 7 rewards are written as they are; the number of steps of the dataset is that of the rewards.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'minari[create,hdf5]==0.5.4' pillow==12.0.0 gymnasium==1.4.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import os
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
os.environ["MINARI_DATASETS_PATH"] = os.path.join(os.getcwd(), "datasets")
import minari
import numpy as np
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

print({name: version(name) for name in ("minari", "gymnasium", "numpy")})
seen = {}
for name, observations, rewards in (("right", 6, 5), ("no-last", 5, 5), ("few", 6, 4), ("many", 6, 7)):
    episode = EpisodeBuffer(
        observations=np.zeros((observations, 2), np.float32),
        actions=np.zeros((5, 1), np.float32),
        rewards=np.ones(rewards),
        terminations=np.zeros(5, bool),
        truncations=np.array([False] * 4 + [True]),
    )
    dataset = minari.create_dataset_from_buffers(
        f"lengths/{name}-v0",
        [episode],
        observation_space=spaces.Box(-1, 1, (2,), np.float32),
        action_space=spaces.Box(-1, 1, (1,), np.float32),
    )
    read = dataset[0]
    seen[name] = (len(read.observations), len(read.actions), len(read.rewards), int(dataset.total_steps))
    print(f"{name:8s} observations, actions, rewards, the dataset's steps: {seen[name]}")
assert seen == {"right": (6, 5, 5, 5), "no-last": (5, 5, 5, 5), "few": (6, 5, 4, 4), "many": (6, 5, 7, 7)}
print("As found: nothing is refused; whoever reads such a dataset must compare the lengths.")
PY
