#!/usr/bin/env bash
# Minari's HDF5 storage and what its extra installs.
# Expected: minari[create,hdf5] installs what reading and writing HDF5 datasets needs.
# Seen:     the storage imports Pillow, which nothing installs; the recorder cannot be made.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'minari[create,hdf5]==0.5.4' gymnasium==1.4.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import os
import warnings
from importlib.metadata import requires, version

warnings.filterwarnings("ignore")
os.environ["MINARI_DATASETS_PATH"] = os.path.join(os.getcwd(), "datasets")
import gymnasium as gym
import minari

print({name: version(name) for name in ("minari", "gymnasium", "h5py")})
print("names Pillow among its requirements:", any("pillow" in each.lower() for each in requires("minari")))
try:
    minari.DataCollector(gym.make("CartPole-v1"))
    told = "no error"
except ModuleNotFoundError as error:
    told = str(error)
print("recording with HDF5, the usual storage:", told)
assert told == "No module named 'PIL'", told
print("As found: install Pillow beside it.")
PY
