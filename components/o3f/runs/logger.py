"""A run's metrics: exact in CSV, drawn by TensorBoard, each step once however often the run was stopped.

::

    metrics.csv    step,tag,value    what the run computed: equal for equal runs, so the files can be compared
    timing.csv     step,tag,value    wall-clock metrics, tags time/*: never equal
    events.out.tfevents.*            both, and the configuration, for TensorBoard

The CSV files are the record. At every start the TensorBoard file is written anew from them, which is simpler
and safer than repairing one that a kill cut in the middle of a record.
"""

from __future__ import annotations

import os
import re
import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

from o3f.errors import require
from o3f.runs.files import AppendFile, write_text
from o3f.runs.tensorboard import Encoder, Row

_HEADER = "step,tag,value\n"
_SECONDS_IN_MEMORY = 10.0
_TAG = re.compile(r"[\w./-]+")


class RunLogger:
    """Writes metrics to ``metrics.csv``, ``timing.csv`` and TensorBoard.

    For each step to be there exactly once: log everything of a step, :meth:`flush`, then save the checkpoint
    of that step; when the run is resumed pass the step of the checkpoint, and log later steps only. A full
    disk never stops the run: what cannot be written waits in memory.

    Args:
        folder: the run folder; created if missing.
        resume_step: rows of later steps (logged between the checkpoint and the kill) are dropped; None, for a
            fresh start, drops all rows.
        settings: the resolved configuration, nested, which TensorBoard shows as text and in its tab HParams, where
            runs that differ in the seed alone are one row; None shows none.
        prefix: in TensorBoard before each tag, so that offline gradient steps and online agent steps do not share an
            axis; the CSV files have the tags alone.

    Examples:
        >>> import tempfile
        >>> with RunLogger(tempfile.mkdtemp()) as logger:
        ...     logger.log(1, {"loss/value": 0.5})
        ...     logger.log_time(1, {"time/update": 0.01})
        >>> read_csv(logger.folder / "metrics.csv")
        [(1, 'loss/value', 0.5)]
    """

    def __init__(
        self,
        folder: str | Path,
        resume_step: int | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        prefix: str = "",
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume_step = -1 if resume_step is None else resume_step
        self._warned = False
        kept = [_keep_until(self.folder / name, self._resume_step) for name in ("metrics.csv", "timing.csv")]
        self._metrics = AppendFile(self.folder / "metrics.csv")
        self._timing = AppendFile(self.folder / "timing.csv")
        self._events = AppendFile(_new_event_file(self.folder))
        self._encoder = Encoder(prefix)
        self._events.add(self._encoder.start(self.folder, settings or {}))
        self._events.add(b"".join(self._encoder.rows(rows) for rows in kept))
        self._write()

    def log(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Record what the run computed.

        Args:
            step: later than the step resumed from.
            values: metrics by tag (numbers or 0-d tensors); wall-clock metrics belong in :meth:`log_time`.
        """
        if any(tag.startswith("time/") for tag in values):
            raise ValueError(f"tags time/* belong in log_time, found {list(values)}.")
        self._add(self._metrics, step, values)

    def log_time(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Record wall-clock metrics, all of them with tags ``time/...``."""
        if not all(tag.startswith("time/") for tag in values):
            raise ValueError(f"log_time takes tags time/* only, found {list(values)}.")
        self._add(self._timing, step, values)

    def flush(self) -> None:
        """Put everything logged so far on the disk; call it before saving a checkpoint."""
        self._write(durable=True)

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):  # not where it was stopped, to be continued
            self._events.add(self._encoder.end(succeeded=kind is None))
        self.flush()

    def _add(self, file: AppendFile, step: int, values: Mapping[str, SupportsFloat]) -> None:
        if step <= self._resume_step:
            raise ValueError(f"the run was resumed from step {self._resume_step}; step {step} is there already.")
        if bad := [tag for tag in values if not _TAG.fullmatch(tag)]:
            raise ValueError(f"tags are made of A-Z a-z 0-9 _ . / - only, found {bad}.")
        rows = [(step, tag, float(value)) for tag, value in values.items()]
        file.add(_csv(rows).encode())
        self._events.add(self._encoder.rows(rows))
        if time.monotonic() - self._written > _SECONDS_IN_MEMORY:
            self._write()

    def _write(self, *, durable: bool = False) -> None:
        self._written = time.monotonic()
        for file in (self._metrics, self._timing, self._events):
            try:
                file.write(durable=durable)
            except OSError as error:
                if not self._warned:
                    warnings.warn(f"cannot log ({error}); going on, and trying again later.", stacklevel=2)
                self._warned = True


def read_csv(path: str | Path) -> list[Row]:
    """Return the rows ``(step, tag, value)`` of a ``metrics.csv`` or ``timing.csv``, exactly as logged.

    Rows from the first incomplete one on, which a kill or a power loss left, are not returned.

    Raises:
        ConfigError: there is no such file.
    """
    require(Path(path).exists(), f"{path} is gone, which every run writes. Restore it, or leave that run out.")
    complete = Path(path).read_text(encoding="utf-8", errors="replace").rpartition("\n")[0].splitlines()
    rows: list[Row] = []
    for line in complete[1:]:
        try:
            step, tag, value = line.split(",")
            rows.append((int(step), tag, float(value)))
        except ValueError:
            break
    return rows


def readable_size(path: Path, last_step: int) -> int:
    """Return how many bytes of a CSV file can be read as rows of steps up to ``last_step``, its header included."""
    rows = read_csv(path) if path.exists() else []
    return len(_HEADER + _csv([row for row in rows if row[0] <= last_step]))


def _new_event_file(folder: Path) -> Path:
    for stale in folder.glob("events.out.tfevents.*"):
        # Emptied first, removed one start later: a TensorBoard that is reading a file which disappears never
        # moves on to the next one.
        if stale.stat().st_size and not stale.is_symlink():
            os.truncate(stale, 0)
        else:
            stale.unlink()
    return folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"


def _keep_until(path: Path, last_step: int) -> list[Row]:
    rows = [row for row in read_csv(path) if row[0] <= last_step] if path.exists() else []
    write_text(path, _HEADER + _csv(rows))
    return rows


def _csv(rows: Sequence[Row]) -> str:
    # repr is the shortest text that reads back as the same float.
    return "".join(f"{step},{tag},{value!r}\n" for step, tag, value in rows)
