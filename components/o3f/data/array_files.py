"""D4RL, OGBench and plain files of arrays, in the form in which Minari datasets are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt

from o3f.data.arrays import Array, open_arrays
from o3f.data.columns import Columns, find_columns
from o3f.data.file_checks import check_fits
from o3f.data.spans import Span, d4rl_spans, ogbench_spans
from o3f.errors import ConfigError

Format = Literal["auto", "d4rl", "ogbench"]

FORMATS = ("auto", "d4rl", "ogbench")
BLOCK = 16_384
"""Rows in memory at a time, unless one episode has more."""


@dataclass(frozen=True)
class FileEpisode:
    """One episode of a file, with the fields of ``minari.EpisodeData``."""

    id: int
    observations: Any
    actions: npt.NDArray[Any]
    rewards: npt.NDArray[Any]
    terminations: npt.NDArray[np.bool_]
    truncations: npt.NDArray[np.bool_]
    infos: Mapping[str, Any] = field(default_factory=dict)
    dropped_rows: int = 0


class FileDataset:
    """A file of flat arrays, with those attributes of a ``minari.MinariDataset`` that reading needs.

    Args:
        path: the file.
        columns: names of its arrays.
        spans: its episodes.
        observation_space: of its observations.
        action_space: bounds of its actions.
    """

    env_spec = None

    def __init__(
        self,
        path: Path,
        columns: Columns,
        spans: Sequence[Span],
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.spaces.Box,
    ) -> None:
        self.id = path.name
        self.columns = columns
        self.spans = spans
        self.observation_space = observation_space
        self.action_space = action_space
        self.total_steps = sum(span.steps for span in spans)
        self.storage = SimpleNamespace(data_path=path, metadata={})

    def iterate_episodes(self, indices: Sequence[int] | None = None) -> Iterator[FileEpisode]:
        """Read episodes, all or those of ascending ``indices``, a block of rows in memory at a time."""
        with open_arrays(self.storage.data_path) as arrays:
            start, block = 0, {}
            stop = 0
            wanted = list(range(len(self.spans)) if indices is None else indices)
            for place, index in enumerate(wanted):
                span = self.spans[index]
                if span.final >= stop:
                    start, stop = span.start, self._block_end(wanted[place:])
                    block = self.columns.read(arrays, slice(start, stop))
                yield _episode(index, span, block, start)

    def _block_end(self, indices: Sequence[int]) -> int:
        """The row after those to read with the first of these episodes."""
        first = self.spans[indices[0]]
        stop = first.final + 1
        for index in indices[1:]:
            if self.spans[index].final >= first.start + BLOCK:
                break
            stop = self.spans[index].final + 1
        return stop


def open_file(
    path: str | Path,
    *,
    format: Format = "auto",
    env: gymnasium.Env[Any, Any] | None = None,
    observation_keys: Sequence[str] | None = None,
) -> FileDataset:
    """Find the episodes of a D4RL, OGBench or plain file; only its flags are read, and next observations compared.

    The file is HDF5 or NPZ, with ``N`` rows in each array:

    - ``observations`` ``[N, O]``, or ``observations/KEY`` for each part of a ``Dict`` observation; ``actions``
      ``[N, A]``; ``rewards`` ``[N]``;
    - ``"d4rl"``, also of plain files: ``terminals`` (or ``terminations``), after which there is no future, and
      ``timeouts`` (or ``truncations``), where an episode was cut off; ``next_observations`` is optional, see
      :func:`~o3f.data.spans.d4rl_spans` for what is dropped without it;
    - ``"ogbench"``: ``terminals`` marks the row that holds the last observation of an episode, which was cut off
      there; ``masks`` (optional) is 0 where the task was done. With ``next_observations``, as OGBench's own loader
      returns it, ``terminals`` marks the last step; with ``valids``, those rows that hold a step.

    Datasets of d3rlpy (HDF5, version 2.1) and folders that TorchRL's ``buffer.dumps(folder)`` wrote are read under
    these names, see :mod:`o3f.data.peer_files`; for Stable-Baselines3 there is :func:`~o3f.data.sb3_arrays`.

    All other arrays are left alone. ``"auto"`` takes a file with ``masks``, ``valids``, or ``qpos`` beside
    ``observations``, or without ``rewards``, for OGBench's.

    Args:
        path: the file, or a folder of TorchRL's.
        format: the meaning of its flags.
        env: the environment the data are of: its observations must be as long, and its unwrapped action bounds are
            those of the data. None takes bounds of -1 and 1, as in all files of D4RL and OGBench.
        observation_keys: parts of ``env``'s ``Dict`` observation that a flat observation in the file consists of.

    Raises:
        ConfigError: if there is no such file, an array is missing or has another length, or the data do not fit the
            environment.
        RuntimeError: if the file is damaged.
    """
    if format not in FORMATS:
        raise ConfigError(f"format is {format!r}, expected one of {', '.join(FORMATS)}.")
    path = Path(path).expanduser()
    with open_arrays(path) as arrays:
        columns = find_columns(path, arrays, format)
        observations, action_space = check_fits(path, *columns.sizes(arrays), env, observation_keys)
        spans = _spans(arrays, columns)
    return FileDataset(path, columns, spans, observations, action_space)


def _spans(arrays: Mapping[str, Array], columns: Columns) -> list[Span]:
    flags = {name: columns.flag(arrays, name) for name in ("terminated", "truncated")}
    if columns.holders is not None:
        return ogbench_spans(flags["terminated"], columns.flag(arrays, "holders"))
    return d4rl_spans(**flags, jumps=columns.jumps(arrays, BLOCK))


def _episode(index: int, span: Span, block: Mapping[str, Any], first: int) -> FileEpisode:
    start, stop = span.start - first, span.start + span.steps - first
    last = np.arange(span.steps) == span.steps - 1
    return FileEpisode(
        id=index,
        observations=_observations(block, start, stop, span.final - first),
        actions=block["actions"][start:stop],
        rewards=block["rewards"][start:stop].reshape(span.steps),
        terminations=last & span.terminated,
        truncations=last & span.truncated,
        dropped_rows=span.dropped,
    )


def _observations(block: Mapping[str, Any], start: int, stop: int, final: int) -> Any:
    """Those of the steps and the one after them, of each part."""
    following, row = (block["next_observations"], stop - 1) if "next_observations" in block else (None, final)

    def join(values: Any, after: Any) -> Any:
        if isinstance(values, dict):
            return {key: join(part, None if after is None else after[key]) for key, part in values.items()}
        return np.concatenate([values[start:stop], (values if after is None else after)[row : row + 1]])

    return join(block["observations"], following)
