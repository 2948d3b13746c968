"""The tensors in a file of weights; nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from o3f.errors import ConfigError, optional, require

#: Most bytes that a file's arrays may unpack to; an agent's take some megabytes, and a small file can claim any size.
MAX_BYTES = 2**30

_UNREADABLE = (OSError, EOFError, ValueError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_safetensors(path: Path, entry: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors by name, and this entry of the header; the empty string where there is none.

    Raises:
        ConfigError: the file cannot be read.
    """
    safetensors = optional("safetensors", "export")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(entry, "")
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ConfigError(f"{path} is no readable safetensors file: {error}") from error


def read_npz(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an ``.npz`` file by name, which must hold floating-point numbers.

    Raises:
        ConfigError: the file cannot be read, would unpack to more than a gibibyte, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        require(size <= MAX_BYTES, f"{path} would unpack to {size:,} bytes, expected at most {MAX_BYTES:,}.")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(_floats(path, name, arrays[name]) for name in arrays)
    except ConfigError:
        raise
    except _UNREADABLE as error:
        raise ConfigError(f"{path} is no readable .npz file of plain arrays: {error}") from error


def _floats(path: Path, name: str, array: Any) -> tuple[str, Tensor]:
    kind = getattr(array, "dtype", None)  # np.load gives bytes for what is no array
    require(
        kind is not None and kind.kind == "f",
        f"{path}: {name} holds {kind or 'no array'}, expected floating-point numbers.",
    )
    return name, torch.from_numpy(array.astype(np.float64))
