"""What each loader makes of one file: python docs/tools/loaders.py PYTHON (writes into docs/own-data.md).

PYTHON is an interpreter with d3rlpy, which wants another Gymnasium than o3f, and ogbench; see loaders_of_peers.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
from torchrl.data.datasets import d4rl

from docs.tools.sections import put
from o3f.data import load_file

Arrays = dict[str, Any]
Transitions = list[tuple[float, float, bool]]
PEERS = Path(__file__).with_name("loaders_of_peers.py")
PARTS = (10, 7, 8, 5, 4)  # steps of episodes: cut off, terminal, both flags in one row, cut off, and the file stops


def numbered(count: int, **flags: list[int]) -> Arrays:
    """Rows whose observation is their number, from 1; flags are 1 at the numbers given."""
    rows = np.arange(1, count + 1, dtype=np.float32)
    marks = {name: np.isin(rows, places) for name, places in flags.items()}
    arrays = {"observations": rows[:, None], "actions": np.zeros((count, 1), np.float32), "rewards": rows / 100}
    return {**arrays, **marks}


def with_next(arrays: Arrays, ends: list[int]) -> Arrays:
    """Add next observations: the following number, and half a number more at the end of an episode."""
    following = arrays["observations"] + 1
    following[[end - 1 for end in ends]] -= 0.5
    return {**arrays, "next_observations": following}


def ogbench(parts: tuple[int, ...]) -> Arrays:
    """The same episodes as OGBench stores them: a row more each, for the last observation."""
    holders = np.cumsum([steps + 1 for steps in parts])
    arrays = numbered(int(holders[-1]), terminals=holders.tolist())
    done = [holders[1] - 1, holders[2] - 1]  # the last steps of those that terminated
    return {**arrays, "masks": ~numbered(int(holders[-1]), done=done)["done"]}


ENDS = np.cumsum(PARTS).tolist()
LOCOMOTION = numbered(34, terminals=[17, 25], timeouts=[10, 25, 30])
FILES: dict[str, Arrays] = {
    "locomotion": LOCOMOTION,
    "with next observations": with_next(LOCOMOTION, ENDS),
    "AntMaze": numbered(30, terminals=[7, 8, 26], timeouts=[10, 20, 26]),
    "kitchen": numbered(24, terminals=[9, 17, 24]),
    "OGBench": ogbench(PARTS),
}
LAST: dict[str, list[int]] = {  # rows of the last step of each episode, whose next observation is no row of the file
    "locomotion": ENDS,
    "with next observations": ENDS,
    "AntMaze": [10, 20, 26, 30],
    "kitchen": [9, 17, 24],
    "OGBench": [],
}
NO_STEPS = {"OGBench": [int(row) for row in np.flatnonzero(FILES["OGBench"]["terminals"]) + 1]}


def d4rl_rule(arrays: Arrays, *, terminate_on_end: bool) -> Transitions:
    """What D4RL's ``qlearning_dataset`` makes of a file, in our words.

    Each row but the last is a transition to the observation of the next row, terminal where it says so. Rows in which
    an episode was cut off are left out, unless ``terminate_on_end``. Next observations of the file are not looked at.
    (Files without timeouts are counted by the environment's limit, which no episode here reaches.)
    """
    now, terminals = arrays["observations"][:, 0], arrays["terminals"]
    cut = arrays.get("timeouts", np.zeros(len(now), dtype=bool))
    return [
        (float(now[row]), float(now[row + 1]), bool(terminals[row]))
        for row in range(len(now) - 1)
        if terminate_on_end or not cut[row]
    ]


def ours(path: Path) -> Transitions:
    """Rows of o3f's buffer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = load_file(path)[:]
    after = rows["next"]
    columns = (rows["observation"][:, 0], after["observation"][:, 0], after["terminated"][:, 0])
    return list(zip(*(column.tolist() for column in columns), strict=True))


def torchrl(path: Path) -> Transitions:
    """Rows of TorchRL's loader, which is given the file where it would download one."""
    with (
        tempfile.TemporaryDirectory() as root,
        mock.patch.object(d4rl, "_download_dataset_from_url", return_value=str(path)),
    ):
        data = d4rl.D4RLExperienceReplay("hopper-medium-v2", batch_size=1, direct_download=True, root=root)
        rows = data[:]
        after = rows["next"]
        columns = (rows["observation"][:, 0], after["observation"][:, 0], after["terminated"][:, 0])
        return list(zip(*(column.tolist() for column in columns), strict=True))


def cell(found: Transitions | str, file: str) -> str:
    """How many transitions, how many terminal, and how many are false."""
    if isinstance(found, str):
        return found
    followers = FILES[file].get("next_observations")
    false = 0
    for now, after, terminal in found:
        is_last = now in LAST[file]
        true = float(followers[int(now) - 1, 0]) if followers is not None else now + 0.5 * is_last + (not is_last)
        false += now in NO_STEPS.get(file, ()) or (after != true and not terminal)
    words = f"{len(found)}, {sum(terminal for *_, terminal in found)} terminal"
    return words + (f", **{false} false**" if false else "")


def run(load: Callable[[Any], Transitions], source: Any) -> Transitions | str:
    """What a loader makes of a file, or how it refuses."""
    try:
        return load(source)
    except Exception as error:
        return f"refused ({type(error).__name__})"


def ours_and_rules() -> dict[str, dict[str, Transitions | str]]:
    """What the loaders make of each file that run beside o3f."""
    found: dict[str, dict[str, Transitions | str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arrays in FILES.items():
            path = write(Path(folder), name, arrays)
            found.setdefault("o3f", {})[name] = run(ours, path)
            mended = {"timeouts": np.zeros(len(arrays["terminals"]), dtype=bool), **arrays}
            found.setdefault("o3f, zeros for missing timeouts", {})[name] = run(
                ours, write(Path(folder), f"mended {name}", mended)
            )
            for option in (False, True):
                rule = d4rl_rule(arrays, terminate_on_end=option)
                found.setdefault(f"D4RL's rule{', `terminate_on_end`' if option else ''}", {})[name] = rule
            found.setdefault("TorchRL's `D4RLExperienceReplay`", {})[name] = run(torchrl, path)
    return found


def of_peers(python: str) -> tuple[dict[str, dict[str, Transitions | str]], str]:
    """What the loaders make of each file that run in another interpreter, and their versions."""
    with tempfile.TemporaryDirectory() as folder:
        for name, arrays in FILES.items():
            np.savez(Path(folder) / f"{name}.npz", **arrays)
        command = [python, str(PEERS), folder, *FILES]
        printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        found = json.loads(printed.splitlines()[-1])  # after d3rlpy's log
    return found["transitions"], found["versions"]


def write(folder: Path, name: str, arrays: Arrays) -> Path:
    """Write HDF5, as D4RL's."""
    path = folder / f"{name}.hdf5"
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
    return path


def lines(found: Mapping[str, Mapping[str, Transitions | str]]) -> list[str]:
    """A line of the table for each loader."""
    return [
        f"| {loader} | {' | '.join(cell(files[name], name) for name in FILES)} |" for loader, files in found.items()
    ]


if __name__ == "__main__":
    theirs, versions = of_peers(sys.argv[1])
    head = [f"| loader | {' | '.join(FILES)} |", f"|---|{'---|' * len(FILES)}"]
    seen = f"Seen with torchrl {version('torchrl')}, {versions}; D4RL's rule by our own code."
    put("loaders", "\n".join([*head, *lines(ours_and_rules()), *lines(theirs)]) + f"\n\n{seen}")
