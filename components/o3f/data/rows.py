"""The rows of a replay buffer: their keys, where they are stored, and the hash of their content."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

Key = str | tuple[str, ...]

ROW_KEYS: Final[tuple[Key, ...]] = (
    "observation",
    "action",
    ("next", "observation"),
    ("next", "reward"),
    ("next", "done"),
    ("next", "terminated"),
    ("next", "truncated"),
)

#: A further key, of rows that carry the return of their episode from them on, see :mod:`o3f.data.returns`.
RETURN_KEY: Final = "return_to_go"

_HASH_CHUNK = 65_536


def allocate_rows(
    num_rows: int,
    observation_dim: int,
    action_dim: int,
    *,
    storage_dir: str | Path | None = None,
    returns: bool = False,
) -> TensorDict:
    """Allocate zeroed rows, in memory or in files that are as large as they will ever be.

    The files are claimed on disk before anything is written, so a full disk is an error here and not a
    crash of the process later (a page of a sparse file that cannot be written is a SIGBUS). They are
    unlinked while mapped: the folder looks empty, and the space is free again when the process ends,
    however it ends.

    Args:
        num_rows: number of rows, the ``D`` of every field ``[D, ...]``.
        observation_dim: size of the flat observation.
        action_dim: size of the action.
        storage_dir: folder for the files; ``None`` keeps the rows in memory.
        returns: with :data:`RETURN_KEY`, too, ``[D, 1]``.

    Returns:
        A locked TensorDict with exactly the keys :data:`ROW_KEYS`; float32, flags bool, reward and flags
        ``[D, 1]``.

    Raises:
        OSError: if the folder cannot hold the rows.
    """
    flag = (1, torch.bool)
    columns: dict[Key, tuple[int, torch.dtype]] = {
        "observation": (observation_dim, torch.float32),
        "action": (action_dim, torch.float32),
        ("next", "observation"): (observation_dim, torch.float32),
        ("next", "reward"): (1, torch.float32),
        ("next", "done"): flag,
        ("next", "terminated"): flag,
        ("next", "truncated"): flag,
        **({RETURN_KEY: (1, torch.float32)} if returns else {}),
    }
    rows = TensorDict({}, batch_size=[num_rows])
    for key, (width, dtype) in columns.items():
        if storage_dir is None:
            rows[key] = torch.zeros(num_rows, width, dtype=dtype)
        else:
            rows[key] = _mapped_zeros(Path(storage_dir), num_rows, width, dtype)
    return rows.lock_()


def hash_rows(rows: TensorDictBase) -> str:
    """SHA-256 of the content of rows ``[D]``: equal for equal values, wherever they are stored.

    Examples:
        >>> rows = allocate_rows(3, observation_dim=2, action_dim=1)
        >>> hash_rows(rows) == hash_rows(rows.clone())
        True
        >>> before = hash_rows(rows)
        >>> _ = rows["action"].fill_(0.5)
        >>> hash_rows(rows) == before
        False
    """
    digest = hashlib.sha256()
    for key in ROW_KEYS:
        column = rows[key]
        digest.update(f"{key}{tuple(column.shape)}{column.dtype}".encode())
        for chunk in column.split(_HASH_CHUNK):
            digest.update(chunk.contiguous().numpy().data)
    return digest.hexdigest()


def _mapped_zeros(folder: Path, num_rows: int, width: int, dtype: torch.dtype) -> Tensor:
    folder.mkdir(parents=True, exist_ok=True)
    numel = num_rows * width
    size = numel * dtype.itemsize
    path = folder / f"rows-{os.getpid()}-{os.urandom(4).hex()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        return torch.from_file(str(path), shared=True, size=numel, dtype=dtype).view(num_rows, width)
    except OSError as error:
        free = shutil.disk_usage(folder).free
        raise OSError(
            error.errno,
            f"Cannot claim {size / 1e6:.1f} MB for rows of the buffer ({free / 1e6:.1f} MB free):"
            f" {error.strerror}. Free some space, give another storage_dir, or lower online_capacity or"
            " max_transitions",
            str(folder),
        ) from error
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)
