"""Files of flat arrays for tests: D4RL's, OGBench's and plain ones, made by hand or of Minari episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.support.minari_datasets import Episodes

Arrays = dict[str, Any]


def numbered(count: int, **flags: Sequence[int]) -> Arrays:
    """Rows that tell their number: observation i, reward 10 i; flags are 1 at the rows given."""
    rows = np.arange(count, dtype=np.float32)
    marks = {name: np.isin(np.arange(count), places).astype(np.float32) for name, places in flags.items()}
    return {
        "observations": rows[:, None] + np.float32([0.0, 0.25]),
        "actions": np.float32([0.5, -0.5])[np.arange(count) % 2, None],
        "rewards": 10 * rows,
        **marks,
    }


def flat(episodes: Episodes, names: tuple[str, str] = ("terminals", "timeouts")) -> Arrays:
    """Episodes one after the other, with next observations; parts of ``Dict`` observations as ``observations/KEY``."""
    arrays = {name: np.concatenate([each[name] for each in episodes]) for name in ("actions", "rewards")}
    for flag, name in zip(("terminations", "truncations"), names, strict=True):
        arrays[name] = np.concatenate([each[flag] for each in episodes])
    for prefix, rows in {"observations": slice(-1), "next_observations": slice(1, None)}.items():
        leaves = [dict(_leaves(prefix, each["observations"])) for each in episodes]
        arrays |= {name: np.concatenate([each[name][rows] for each in leaves]) for name in leaves[0]}
    return arrays


def _leaves(name: str, values: Any) -> Any:
    if isinstance(values, dict):
        for key, part in values.items():
            yield from _leaves(f"{name}/{key}", part)
    else:
        yield name, values


def write(path: Path, arrays: Arrays) -> Path:
    """Write HDF5 (compressed, as D4RL's) or NPZ, by the ending; ``.zip.npz`` is compressed."""
    if path.suffix == ".hdf5":
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values, compression="gzip" if np.size(values) > 1 else None)
    elif path.name.endswith(".zip.npz"):
        np.savez_compressed(path, **arrays)
    else:
        np.savez(path, **arrays)
    return path
