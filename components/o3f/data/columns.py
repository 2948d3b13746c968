"""Which arrays of a D4RL, OGBench or plain file are what."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from o3f.data.arrays import Array
from o3f.data.spans import Flags
from o3f.errors import ConfigError

Names = str | dict[str, Any]
Flag = tuple[str, bool] | None

_TERMINATED, _TRUNCATED = ("terminals", "terminations"), ("timeouts", "truncations")
_OF_OGBENCH = ("masks", "valids", "qpos")
_RELABEL = (
    "OGBench's files have no rewards of their own: those of one task come with its package:"
    "\n    _, data, _ = ogbench.make_env_and_datasets('antmaze-large-navigate-singletask-v0')"
    "\n    numpy.savez('FILE.npz', **data)"
)


@dataclass(frozen=True)
class Columns:
    """The names of the arrays in a file.

    Attributes:
        path: the file.
        values: names of observations, actions, rewards and, if there are any, next observations; parts of a ``Dict``
            observation by key.
        terminated: name of the marks of steps without a future, and whether 0 marks; None where there are none.
        truncated: the same of steps that were cut off.
        holders: the same of rows that hold the last observation of an episode and no step.
    """

    path: Path
    values: dict[str, Names]
    terminated: Flag
    truncated: Flag
    holders: Flag = None

    def read(self, arrays: Mapping[str, Array], rows: slice) -> dict[str, Any]:
        """Read rows of all values, in the structure of their names."""
        return {name: _read(arrays, names, rows) for name, names in self.values.items()}

    def sizes(self, arrays: Mapping[str, Array]) -> tuple[Any, int]:
        """Return the size of observations, by key where they have parts, and of actions."""
        return _sizes(arrays, self.values["observations"]), _sizes(arrays, self.values["actions"])

    def flag(self, arrays: Mapping[str, Array], name: str) -> Flags:
        """Read one kind of marks, ``[N]``.

        Raises:
            ConfigError: if a value is neither 0 nor 1.
        """
        count = arrays[next(_leaves(self.values["actions"]))].shape[0]
        source: Flag = getattr(self, name)
        if source is None:
            return np.zeros(count, dtype=bool)
        values = arrays[source[0]][:].reshape(count)
        if not np.isin(values, (0, 1)).all():
            raise ConfigError(f"'{source[0]}' of {self.path} has values that are neither 0 nor 1, so it marks nothing.")
        return values.astype(bool) ^ source[1]

    def jumps(self, arrays: Mapping[str, Array], block: int) -> Flags | None:
        """Compare the next observations with the observations of the rows that follow, ``[N]``, as float32.

        Raises:
            ConfigError: if there are no next observations, and no marks of episodes that were cut off.
        """
        if "next_observations" not in self.values:
            if self.truncated is None:
                raise ConfigError(
                    f"{self.path} has no timeouts (or truncations) and no next_observations: where an episode was cut"
                    " off, the next one would look like its continuation. Add timeouts, all 0 if every episode ends in"
                    f" a terminal state. {found(arrays)}"
                )
            return None
        now, then = (list(_leaves(self.values[name])) for name in ("observations", "next_observations"))
        count = arrays[now[0]].shape[0]
        differs = np.zeros(count, dtype=bool)
        with np.errstate(over="ignore"):
            for start in range(0, count - 1, block):
                stop = min(start + block, count - 1)
                for left, right in zip(then, now, strict=True):
                    expected = arrays[left][start:stop].astype(np.float32)
                    observed = arrays[right][start + 1 : stop + 1].astype(np.float32)
                    unequal = (expected != observed) & ~(np.isnan(expected) & np.isnan(observed))
                    differs[start:stop] |= unequal.any(axis=1)
        return differs


def find_columns(path: Path, arrays: Mapping[str, Array], format: str) -> Columns:
    """Find what is needed among the arrays of a file, and check types and lengths.

    Args:
        path: the file.
        arrays: of the file.
        format: see :func:`~o3f.data.array_files.open_file`.

    Raises:
        ConfigError: naming what is missing or does not fit, and all arrays found.
    """
    for names in (_TERMINATED, _TRUNCATED):
        _check_agreement(path, arrays, names)
    needed = {"observations": _tree(arrays, "observations"), "actions": _tree(arrays, "actions")}
    terminals = _first(arrays, _TERMINATED)
    missing = [name for name, names in needed.items() if not names] + (["terminals"] if terminals is None else [])
    if missing or terminals is None:
        raise ConfigError(f"{path} has no {', no '.join(missing)}. {found(arrays)}")
    ogbench = format == "ogbench" or (
        format == "auto" and ("rewards" not in arrays or any(name in arrays for name in _OF_OGBENCH))
    )
    if "rewards" not in arrays:
        raise ConfigError(f"{path} has no rewards. {found(arrays)}" + (f"\n{_RELABEL}" if ogbench else ""))
    values: dict[str, Names] = {**needed, "rewards": "rewards"}
    if following := _tree(arrays, "next_observations"):
        values["next_observations"] = following
    columns = _flags(path, arrays, values, terminals, ogbench)
    _check(columns, arrays)
    if ogbench:
        _warn_of_unread(columns, arrays, terminals)
    return columns


def _flags(path: Path, arrays: Mapping[str, Array], values: dict[str, Names], terminals: str, ogbench: bool) -> Columns:
    if not ogbench:
        truncated = _first(arrays, _TRUNCATED)
        return Columns(path, values, (terminals, False), None if truncated is None else (truncated, False))
    done = ("masks", True) if "masks" in arrays else None
    if "next_observations" in values:
        return Columns(path, values, done, (terminals, False))
    return Columns(path, values, done, None, ("valids", True) if "valids" in arrays else (terminals, False))


def _warn_of_unread(columns: Columns, arrays: Mapping[str, Array], terminals: str) -> None:
    """Say which ends of episodes are lost: OGBench has no mark of where an episode was cut off but its terminals."""
    name = _first(arrays, _TRUNCATED)
    if name is None or arrays[name].shape[:1] != arrays[terminals].shape[:1]:
        return
    lost = (arrays[name][:].reshape(-1) != 0) & (arrays[terminals][:].reshape(-1) == 0)
    if lost.any():
        warnings.warn(
            f"'{name}' of {columns.path} marks {int(lost.sum())} rows that '{terminals}' does not, first row"
            f" {int(lost.argmax())}, and is not read: files of OGBench have no such array. If episodes end there, give"
            " format=d4rl.",
            stacklevel=4,
        )


def _check_agreement(path: Path, arrays: Mapping[str, Array], names: tuple[str, str]) -> None:
    """Of two arrays of the same meaning one is read: it must be no matter which."""
    if all(name in arrays for name in names):
        one, other = (arrays[name][:].reshape(-1).astype(bool) for name in names)
        if not np.array_equal(one, other):
            where = "" if len(one) != len(other) else f", first in row {int((one != other).argmax())}"
            raise ConfigError(
                f"'{names[0]}' and '{names[1]}' of {path} mean the same and differ{where}: leave out the one that does"
                " not hold."
            )


def _check(columns: Columns, arrays: Mapping[str, Array]) -> None:
    """Every array is one of numbers, with the same number of rows, and a vector or a number in each."""
    path = columns.path
    vectors = [name for key in columns.values if key != "rewards" for name in _leaves(columns.values[key])]
    flags = (columns.terminated, columns.truncated, columns.holders)
    scalars = ["rewards", *(flag[0] for flag in flags if flag is not None)]
    count = arrays[vectors[0]].shape[:1]
    for name in [*vectors, *scalars]:
        array = arrays[name]
        if array.dtype.kind not in "biuf":
            raise ConfigError(f"'{name}' of {path} is of type {array.dtype}, expected numbers; nothing is unpickled.")
        fits = len(array.shape) == 2 if name in vectors else array.shape in (count, (*count, 1))
        if not fits or array.shape[:1] != count:
            wanted = ", ".join([*map(str, count or ["N"]), *(["SIZE"] if name in vectors else [])])
            raise ConfigError(f"'{name}' of {path} has shape {array.shape}, expected [{wanted}]. {found(arrays)}")
    if count == (0,):
        raise ConfigError(f"{path} has no transitions: its arrays are empty. {found(arrays)}")
    here, after = (_sizes(arrays, columns.values.get(f"{kind}observations", "")) for kind in ("", "next_"))
    if after is not None and here != after:
        raise ConfigError(f"'observations' and 'next_observations' of {path} differ in form: {here} and {after}.")


def found(arrays: Mapping[str, Array]) -> str:
    """Say which arrays a file has."""
    return f"Found: {', '.join(f'{name} {array.shape}' for name, array in sorted(arrays.items())) or 'no arrays'}."


def _tree(arrays: Mapping[str, Array], name: str) -> Names:
    """The name of an array, or those in its group; empty if there is none."""
    if name in arrays:
        return name
    parts = {path.removeprefix(f"{name}/").split("/")[0] for path in arrays if path.startswith(f"{name}/")}
    return {part: _tree(arrays, f"{name}/{part}") for part in sorted(parts)}


def _first(arrays: Mapping[str, Array], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in arrays), None)


def _leaves(names: Names) -> Iterator[str]:
    if isinstance(names, str):
        yield names
    else:
        for part in names.values():
            yield from _leaves(part)


def _read(arrays: Mapping[str, Array], names: Names, rows: slice) -> Any:
    return arrays[names][rows] if isinstance(names, str) else {k: _read(arrays, v, rows) for k, v in names.items()}


def _sizes(arrays: Mapping[str, Array], names: Names) -> Any:
    """The size of each vector in the structure of the names."""
    if isinstance(names, dict):
        return {key: _sizes(arrays, part) for key, part in names.items()}
    return arrays[names].shape[1] if names else None
