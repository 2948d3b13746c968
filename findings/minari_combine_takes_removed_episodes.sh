#!/usr/bin/env bash
# Minari's combine_datasets and datasets that were filtered or split.
# Expected: the combination holds the episodes of its parts: of a filtered dataset those that are left, of two halves each
#           episode once.
# Seen:     it holds all episodes of the files behind them. Of 4 episodes of which a filter left 2, 4 come back, the bad
#           ones among them, and two halves of 4 episodes make 8. The parts themselves count right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'minari[create,hdf5]==0.5.4' pillow==13.0.0 gymnasium==1.4.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import os
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
os.environ["MINARI_DATASETS_PATH"] = os.path.join(os.getcwd(), "datasets")
import gymnasium as gym
import minari
import numpy as np

print({name: version(name) for name in ("minari", "gymnasium", "numpy")})


def record(name, lengths):
    """Episodes of these lengths; in Pendulum only the limit ends them, or the next reset."""
    recorder = minari.DataCollector(gym.make("Pendulum-v1"))
    for number, length in enumerate(lengths):
        recorder.reset(seed=number)
        for _ in range(length):
            recorder.step(np.zeros(1, np.float32))
    return recorder.create_dataset(f"pendulum/{name}-v0")


def lengths(dataset):
    return [len(episode) for episode in dataset.iterate_episodes()]


recorded, more = record("recorded", [3, 30, 4, 40]), record("more", [50])
long = recorded.filter_episodes(lambda episode: len(episode) >= 30)
both = minari.combine_datasets([long, more], "pendulum/both-v0")
print("filtered:", lengths(long), "and", lengths(more), "-> combined:", lengths(both))
halves = minari.split_dataset(recorded, sizes=[2, 2], seed=0)
whole = minari.combine_datasets(halves, "pendulum/whole-v0")
print("halves:", *map(lengths, halves), "-> combined:", lengths(whole), "with", whole.total_steps, "steps")
assert lengths(long) == [30, 40]
assert lengths(both) == [3, 30, 4, 40, 50]
assert sorted(sum(map(lengths, halves), [])) == [3, 4, 30, 40]
assert lengths(whole) == [3, 30, 4, 40] * 2
print("As found: combine first and filter last, or write the episodes that are left with create_dataset_from_buffers.")
PY
