"""The arrays of a file or folder by name, read a block of rows at a time; nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from o3f.data.peer_files import D3RLPY, d3rlpy_arrays, torchrl_arrays
from o3f.errors import ConfigError

_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK"
_UNREADABLE = (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class Array(Protocol):
    """An array in a file; a slice reads these rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""
        ...

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]:
        """Read rows."""
        ...


@contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, Array]]:
    """Open a file for reading; it is never changed.

    Args:
        path: an HDF5 or NPZ file, told apart by its first bytes, or a folder of TorchRL's.

    Yields:
        Its arrays by name; those in groups of an HDF5 file as ``group/name``; those of d3rlpy and TorchRL by D4RL's
        names.

    Raises:
        ConfigError: if there is no such file, or it is of another kind.
        RuntimeError: if it is damaged, here or where rows are read.
    """
    if path.is_dir():
        yield _folder(path)
        return
    if not path.is_file():
        raise ConfigError(f"There is no file {path} (looked for {path.absolute()}). Expected an HDF5 or NPZ file.")
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5))
        if start == _HDF5:
            with h5py.File(path, "r", locking="best-effort") as file:
                datasets = _datasets(file)
                yield d3rlpy_arrays(path, datasets) if all(name in datasets for name in D3RLPY) else datasets
        elif start.startswith(_ZIP):
            with zipfile.ZipFile(path) as archive, ExitStack() as streams:
                names = [name for name in archive.namelist() if name.endswith(".npy")]
                members = {name: streams.enter_context(archive.open(name)) for name in names}
                yield {name.removesuffix(".npy"): _Member(name, stream) for name, stream in members.items()}
        else:
            raise ConfigError(f"{path} is neither an HDF5 nor an NPZ file: it begins with {start!r}.")
    except _UNREADABLE as error:
        raise RuntimeError(
            f"{path} cannot be read ({type(error).__name__}: {error}). It is damaged or was not copied to its end:"
            " get it again."
        ) from error


def _folder(path: Path) -> dict[str, Array]:
    try:
        return torchrl_arrays(path)
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RuntimeError(
            f"{path} cannot be read ({type(error).__name__}: {error}). It is damaged or was not copied to its end:"
            " get it again."
        ) from error


def _datasets(file: h5py.File) -> dict[str, Array]:
    found: dict[str, Array] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    file.visititems(add)
    return found


class _Member:
    """One array of an NPZ file: ``np.load`` would read all of it at once."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self._stream = stream
        try:
            version = np.lib.format.read_magic(self._stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, self._by_columns, self.dtype = header(self._stream)
        except ValueError as error:
            raise OSError(f"{name} is no array: {error}") from error
        self.shape: tuple[int, ...] = tuple(shape)
        self._start = self._stream.tell()

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        if self._by_columns and self.shape[1:]:  # no block of rows lies together
            self._stream.seek(0)
            return np.lib.format.read_array(self._stream, allow_pickle=False)[rows]
        if self.dtype.hasobject:
            raise ConfigError("an array of objects would have to be unpickled, which is not done.")
        start, stop, _ = rows.indices(self.shape[0])
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        self._stream.seek(self._start + start * row)
        content = self._stream.read((stop - start) * row)
        if len(content) < (stop - start) * row:
            raise EOFError("the array is shorter than its header says")
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])
