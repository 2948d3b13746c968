"""Files of d3rlpy and folders of TorchRL as arrays with D4RL's names, read as they lie; nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from o3f.errors import ConfigError

D3RLPY = ("columns", "num_episodes", "version")
"""Arrays that a dataset has which ``d3rlpy.dataset.ReplayBuffer.dump`` wrote."""

_KEYS = ("observation", "achieved_goal", "desired_goal")
_META, _LENGTH = "meta.json", "storage_metadata.json"


@dataclass(frozen=True)
class Joined:
    """Arrays of one episode each as one array.

    Args:
        parts: the arrays, in order, or numbers of which one stands for the last row of an episode.
        lengths: rows of each.
        last: takes a number to the value of the last row; the others are 0. None where parts have a value a row.
    """

    parts: Sequence[Any]
    lengths: Sequence[int]
    last: Callable[[Any], Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows of all parts, and what a row has."""
        return (sum(self.lengths), *(() if self.last else self.parts[0].shape[1:]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the first part."""
        return np.dtype(bool) if self.last else self.parts[0].dtype

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Read rows, of those parts only in which they lie."""
        start, stop, _ = rows.indices(self.shape[0])
        found = [np.empty((0, *self.shape[1:]), self.dtype)]
        for part, length, end in zip(self.parts, self.lengths, accumulate(self.lengths), strict=True):
            first, beyond = max(start - end + length, 0), min(stop - end + length, length)
            if first < beyond:
                found.append(self._read(part, length, first, beyond))
        return np.concatenate(found)

    def _read(self, part: Any, length: int, first: int, beyond: int) -> npt.NDArray[Any]:
        if self.last is None:
            return np.asarray(part[first:beyond])
        ends: npt.NDArray[Any] = (np.arange(first, beyond) == length - 1) & bool(self.last(part[()]))
        return ends


def d3rlpy_arrays(path: Path, datasets: Mapping[str, Any]) -> dict[str, Any]:
    """Return the episodes of a d3rlpy dataset one after the other.

    An episode that did not terminate was cut off: its last action led to an observation that the file does not hold,
    so it is no transition, for d3rlpy neither.

    Raises:
        ConfigError: if observations have several parts, the form is of another version, or the arrays of an episode
            do not fit together.
    """
    count = _count(path, datasets)
    missing = [
        name
        for name in ("observations", "actions", "rewards", "terminated")
        if count == 0 or any(f"{name}_{number}" not in datasets for number in range(count))
    ]
    if missing:
        raise ConfigError(
            f"{path} is a dataset of d3rlpy (version {_text(datasets['version'])}) of {count} episode(s), without"
            f" {', '.join(missing)} in each. Observations of one vector are supported, in the form of version 2.1."
        )
    parts = {
        name: [datasets[f"{name}_{number}"] for number in range(count)]
        for name in ("observations", "actions", "rewards", "terminated")
    }
    ends = parts.pop("terminated")
    _check_episodes(path, parts)
    lengths = [part.shape[0] for part in parts["actions"]]
    return {
        **{name: Joined(each, lengths) for name, each in parts.items()},
        "terminals": Joined(ends, lengths, last=bool),
        "timeouts": Joined(ends, lengths, last=lambda terminated: not terminated),
    }


def _count(path: Path, datasets: Mapping[str, Any]) -> int:
    found = datasets["num_episodes"][()]
    try:
        if found == (count := int(found)) and count >= 0:
            return count
    except (TypeError, ValueError, OverflowError):  # the last two: no number, an infinite one
        pass
    raise ConfigError(f"'num_episodes' of {path} is {found!r}, expected the number of its episodes.")


def _check_episodes(path: Path, parts: Mapping[str, Sequence[Any]]) -> None:
    """One row too many or too few would move those of all later episodes; all rows are as wide as the first."""
    for number, actions in enumerate(parts["actions"]):
        for name, each in parts.items():
            found, expected = each[number].shape, (*actions.shape[:1], *each[0].shape[1:])
            if found != expected:
                raise ConfigError(
                    f"'{name}_{number}' of {path} has shape {found}, expected {expected}: as many rows as"
                    f" 'actions_{number}', as wide as '{name}_0'. Write the dataset again."
                )


def torchrl_arrays(folder: Path) -> dict[str, Any]:
    """Return the rows of a TorchRL buffer that ``buffer.dumps(folder)`` wrote, or of a memory-mapped TensorDict.

    Read are ``observation`` (and ``achieved_goal``, ``desired_goal`` where there are some), ``action`` and, of
    ``next``, the observation, ``reward``, ``terminated`` and ``truncated``. Rows are in the order of the storage.

    Raises:
        ConfigError: if it is no such folder, has no such keys, several batch dimensions, or rows that were never
            written.
    """
    folder = folder / "storage" if (folder / "storage" / _META).is_file() else folder
    if not (folder / _META).is_file():
        raise ConfigError(
            f"{folder} is a folder without {_META}. Expected an HDF5 or NPZ file, or a folder written by"
            " buffer.dumps(FOLDER) of TorchRL or tensordict.memmap(FOLDER)."
        )
    length, now, after = _length(folder), _tensors(folder), _tensors(folder / "next")
    keys = [key for key in _KEYS if key in now and key in after]
    wanted = {
        "action": "action" in now,
        **{f"next/{key}": key in after for key in ("reward", "terminated", "truncated")},
    }
    if missing := [*([] if keys else ["observation"]), *(key for key, there in wanted.items() if not there)]:
        names = [*now, *(f"next/{key}" for key in after)]
        raise ConfigError(f"{folder} has no {', no '.join(missing)}. Found: {', '.join(sorted(names))}.")
    rows = {"actions": now["action"], "rewards": after["reward"]}
    rows |= {"terminals": after["terminated"], "timeouts": after["truncated"]}
    for key in keys:
        suffix = "" if len(keys) == 1 else f"/{key}"
        rows |= {f"observations{suffix}": now[key], f"next_observations{suffix}": after[key]}
    return _written(folder, {name: values[:length] for name, values in rows.items()}, length)


def _length(folder: Path) -> int | None:
    """How many rows of a storage are filled; None where nothing says so."""
    path = folder / _LENGTH
    return int(json.loads(path.read_text(encoding="utf-8"))["len"]) if path.is_file() else None


def _tensors(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of one level of a memory-mapped TensorDict, mapped."""
    if not (folder / _META).is_file():
        return {}
    found: dict[str, npt.NDArray[Any]] = {}
    meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    if len(meta["shape"]) != 1:
        raise ConfigError(f"{folder} has rows of shape {meta['shape']}, expected [N]. Flatten them: reshape(-1).")
    for key in (*_KEYS, "action", "reward", "terminated", "truncated"):
        if "dtype" in (entry := meta.get(key, {})):
            dtype = _type(folder / key, entry["dtype"].removeprefix("torch."))
            found[key] = np.memmap(folder / f"{key}.memmap", dtype, "r", shape=tuple(entry["shape"]))
    return found


def _type(path: Path, name: str) -> np.dtype[Any]:
    if name in ("bfloat16", "complex32") or name.startswith(("float8", "q")):
        raise ConfigError(f"{path} is of type {name}, which is not read: convert it first, to torch.float32.")
    return np.dtype(name)


def _written(folder: Path, rows: dict[str, Any], length: int | None) -> dict[str, Any]:
    """The rows, unless the last ones are only zeros and nothing says how many were written."""
    if length is None:
        used = [np.flatnonzero(np.reshape(values, (len(values), -1)).any(axis=1)) for values in rows.values()]
        last = max((int(each[-1]) for each in used if len(each)), default=-1)
        if empty := len(rows["actions"]) - 1 - last:
            raise ConfigError(
                f"The last {empty} row(s) of {folder} are zeros throughout: a storage that was not full, and does not"
                " say how many rows it has. Write it with buffer.dumps(FOLDER)."
            )
    return rows


def _text(dataset: Any) -> str:
    value = dataset[()]
    return value.decode() if isinstance(value, bytes) else str(value)
