"""Datasets and files as TorchRL replay buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Unpack

import gymnasium
import torch
from torchrl.data import ReplayBuffer

from o3f.data.array_files import Format, open_file
from o3f.data.buffers import buffer_over
from o3f.data.info import DatasetInfo
from o3f.data.minari_store import Recorded
from o3f.data.reading import ReadOptions, read_rows


class LoadOptions(ReadOptions, total=False):
    """Arguments of :func:`load_rows`, see :func:`~o3f.data.minari.load_minari`."""

    batch_size: int
    online_capacity: int
    online_fraction: float | None
    storage: Literal["memory", "memmap"]
    generator: torch.Generator | None


def load_file(
    path: str | Path,
    *,
    format: Format = "auto",
    env: gymnasium.Env[Any, Any] | None = None,
    **options: Unpack[LoadOptions],
) -> ReplayBuffer:
    """Load a D4RL, OGBench or plain file of arrays into a TorchRL replay buffer with room for online rows.

    Everything after reading the file is as with :func:`~o3f.data.minari.load_minari`: keys, checks, rewards, content
    hash. The file is never changed and nothing in it is unpickled.

    Args:
        path: an HDF5 or NPZ file; :func:`~o3f.data.array_files.open_file` says which arrays it must have.
        format: ``"d4rl"``, ``"ogbench"``, or ``"auto"`` by the arrays there are.
        env: the environment the data are of: sizes are compared with it, and its action bounds rescaled to [-1, 1].
            None takes actions as they are.
        **options: arguments of :func:`~o3f.data.minari.load_minari` by the same names. ``observation_keys`` are also
            the parts of ``env``'s observation that a flat one in the file consists of.

    Raises:
        ConfigError: if the file is not there, lacks an array, or does not fit ``env``.
        OSError: if the disk has no room for ``storage="memmap"``.
        RuntimeError: if the file is damaged.
        ValueError: at faults of the data, or arguments that do not fit together.
    """
    check_storage(options.get("storage", "memory"), options.get("storage_dir"))
    dataset = open_file(path, format=format, env=env, observation_keys=options.get("observation_keys"))
    if not isinstance(dataset.observation_space, gymnasium.spaces.Dict):
        options["observation_keys"] = None
    return load_rows(dataset, **options)


def load_rows(
    dataset: Recorded,
    *,
    batch_size: int = 256,
    online_capacity: int = 0,
    online_fraction: float | None = None,
    storage: Literal["memory", "memmap"] = "memory",
    generator: torch.Generator | None = None,
    **options: Unpack[ReadOptions],
) -> ReplayBuffer:
    """Load an open dataset; see :func:`~o3f.data.minari.load_minari`."""
    options["free_rows"] = online_capacity
    if storage != "memmap":
        options["storage_dir"] = None
    rows, info = read_rows(dataset, **options)
    buffer = buffer_over(
        rows,
        info.transitions,
        online_fraction=online_fraction,
        batch_size=batch_size,
        generator=generator,
    )
    buffer.dataset_info = info  # pyright: ignore[reportAttributeAccessIssue]
    return buffer


def check_storage(storage: str, storage_dir: str | Path | None) -> None:
    """Check the arguments that say where rows are kept.

    Raises:
        ValueError: if the kind is not known, or its folder is missing.
    """
    if storage not in ("memory", "memmap"):
        raise ValueError(f"storage is {storage!r}, expected 'memory' or 'memmap'.")
    if storage == "memmap" and storage_dir is None:
        raise ValueError("storage='memmap' needs storage_dir, the folder for its files.")


def dataset_info(buffer: ReplayBuffer) -> DatasetInfo:
    """Return what was recorded about the dataset in a buffer.

    Raises:
        ValueError: if the buffer holds no dataset.
    """
    info = getattr(buffer, "dataset_info", None)
    if not isinstance(info, DatasetInfo):
        raise ValueError("This buffer was not made by load_minari or load_file, so it has no dataset_info.")
    return info
