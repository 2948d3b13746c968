"""Datasets too large for memory, and the memory of this process; as a command, the long version of a test.

python -m tests.support.memory 1000 FOLDER    writes 1000 MB into FOLDER and loads them, on disk and in memory
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import minari
import numpy as np
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

ROOT = Path(__file__).parents[2]
ROWS_PER_EPISODE, OBSERVATIONS, ACTIONS = 1000, 100, 8
BYTES_PER_ROW = 4 * (2 * OBSERVATIONS + ACTIONS + 1) + 3


def write_large_dataset(root: Path, dataset_id: str, megabytes: float) -> int:
    """Write so many megabytes of buffer rows, one episode in memory at a time; returns the number of rows."""
    data = root / dataset_id / "data"
    data.mkdir(parents=True)
    count = max(1, int(megabytes * 1e6 / BYTES_PER_ROW / ROWS_PER_EPISODE))
    storage = MinariStorage.new(
        data,
        observation_space=Box(-np.inf, np.inf, (OBSERVATIONS,), np.float32),
        action_space=Box(-1.0, 1.0, (ACTIONS,), np.float32),
        data_format="hdf5",
    )
    storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__})
    storage.update_episodes(_episodes(count))
    return count * ROWS_PER_EPISODE


def _episodes(count: int) -> Iterator[EpisodeBuffer]:
    rng = np.random.default_rng(0)
    last = np.arange(ROWS_PER_EPISODE) == ROWS_PER_EPISODE - 1
    for index in range(count):
        yield EpisodeBuffer(
            id=index,
            observations=rng.normal(size=(ROWS_PER_EPISODE + 1, OBSERVATIONS)).astype(np.float32),
            actions=rng.uniform(-1, 1, size=(ROWS_PER_EPISODE, ACTIONS)).astype(np.float32),
            rewards=rng.normal(size=ROWS_PER_EPISODE),
            terminations=np.zeros(ROWS_PER_EPISODE, bool),
            truncations=last,
            infos={},
        )


def anonymous_megabytes() -> float:
    """Memory of this process that no file backs: what counts where memory is limited."""
    status = Path("/proc/self/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith("RssAnon"))
    return int(line.split()[1]) / 1000


def load(root: Path, dataset_id: str, storages: list[str], limit: float) -> None:
    """Load and sample in this process, with so many megabytes more than it has, and print figures."""
    import torch

    from o3f.data import load_minari  # a large part of a process's memory, taken before the limit

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + int(limit * 1e6),) * 2)
    for storage in storages:
        try:
            print(_figures(load_minari, root, dataset_id, storage))
        except (MemoryError, RuntimeError) as error:
            print(f"{storage}: {type(error).__name__}")


def _figures(load_minari: Any, root: Path, dataset_id: str, storage: str) -> str:
    base, start = anonymous_megabytes(), time.monotonic()
    folder = root / "rows" if storage == "memmap" else None
    buffer = load_minari(dataset_id, root=root, storage=storage, storage_dir=folder, online_capacity=1000)
    converted, loaded = time.monotonic() - start, anonymous_megabytes()
    start, batches = time.monotonic(), 300
    for _ in range(batches):
        buffer.extend(buffer.sample()[:1])
    sampled = time.monotonic() - start
    return (
        f"{storage}: {len(buffer)} rows, {len(buffer) / converted:.0f} rows/s converted,"
        f" {batches / sampled:.0f} batches of 256/s,"
        f" {max(loaded, anonymous_megabytes()) - base:.0f} MB more than {base:.0f}"
    )


def _data_bytes() -> int:
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmData"))
    return int(line.split()[1]) * 1024


def load_in_a_process(root: Path, dataset_id: str, storages: list[str], limit: float) -> str:
    """What :func:`load` printed in a process of its own."""
    arguments = f"Path({str(root)!r}), {dataset_id!r}, {storages!r}, {limit}"
    command = f"from pathlib import Path; from tests.support.memory import load; load({arguments})"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


if __name__ == "__main__":
    place = Path(sys.argv[2])
    print(write_large_dataset(place, "toy/large-v0", float(sys.argv[1])), "rows written")
    print(load_in_a_process(place, "toy/large-v0", ["memmap"], limit=400))
    print(load_in_a_process(place, "toy/large-v0", ["memory"], limit=1e6))
