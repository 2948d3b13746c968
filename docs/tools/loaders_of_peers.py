"""What d3rlpy and OGBench make of files, as JSON: PYTHON loaders_of_peers.py FOLDER NAME ...; o3f is not needed."""

from __future__ import annotations

import json
import sys
import types
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


def d3rlpy(arrays: dict[str, Any], *, mend: bool) -> list[tuple[float, float, bool]]:
    """Transitions of an ``MDPDataset`` made as ``d3rlpy.datasets.get_d4rl`` makes it; mended: of flags it takes."""
    from d3rlpy.dataset import BasicTransitionPicker, MDPDataset

    timeouts = arrays["timeouts"] if not mend else arrays.get("timeouts", False) & ~arrays["terminals"]
    names = ("observations", "actions", "rewards", "terminals")
    data = MDPDataset(**{name: arrays[name] for name in names}, timeouts=timeouts)
    pick = BasicTransitionPicker()
    steps = [pick(episode, index) for episode in data.episodes for index in range(episode.transition_count)]
    return [(float(each.observation[0]), float(each.next_observation[0]), bool(each.terminal)) for each in steps]


def ogbench(path: Path) -> list[tuple[float, float, bool]] | str:
    """Rows of ``ogbench.load_dataset``; the package's simulators are not imported."""
    if "ogbench" not in sys.modules and (spec := find_spec("ogbench")) is not None:
        sys.modules["ogbench"] = types.ModuleType("ogbench")
        sys.modules["ogbench"].__path__ = list(spec.submodule_search_locations or ())
    from ogbench.utils import load_dataset

    data = load_dataset(path)
    now, after = data["observations"][:, 0], data["next_observations"][:, 0]
    if len(now) != len(after):
        return f"{len(now)} observations, {len(after)} next ones"
    return [(float(left), float(right), False) for left, right in zip(now, after, strict=True)]  # masks come later


def run(load: Any, *arguments: Any, **options: Any) -> Any:
    """What a loader makes of a file, or how it refuses."""
    try:
        return load(*arguments, **options)
    except Exception as error:
        return f"refused ({type(error).__name__})"


def main(folder: str, *names: str) -> None:
    """Print what was found of each file."""
    found: dict[str, dict[str, Any]] = {
        "d3rlpy": {},
        "d3rlpy, double flags and missing timeouts mended": {},
        "OGBench's `load_dataset`": {},
    }
    for name in names:
        path = Path(folder) / f"{name}.npz"
        arrays = dict(np.load(path))
        found["d3rlpy"][name] = run(d3rlpy, arrays, mend=False)
        found["d3rlpy, double flags and missing timeouts mended"][name] = run(d3rlpy, arrays, mend=True)
        found["OGBench's `load_dataset`"][name] = run(ogbench, path)
    versions = ", ".join(f"{name} {version(name)}" for name in ("d3rlpy", "ogbench"))
    print(json.dumps({"transitions": found, "versions": versions}))


if __name__ == "__main__":
    main(*sys.argv[1:])
