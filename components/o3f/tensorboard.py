"""Figures as TensorBoard records, encoded in this thread.

``torch.utils.tensorboard.SummaryWriter`` hands each scalar to a thread, which costs tens of times as much,
and whose death (a full disk) is a printed stack trace and may hang the next flush. The records are the same.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from textwrap import indent
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import text

Row = tuple[int, str, float]


def encode_start(texts: Mapping[str, str]) -> bytes:
    """Return the beginning of an event file: version, start of a session, texts by title.

    The start makes a TensorBoard that is running forget what it read from earlier files of the folder.
    """
    return _records(
        [
            Event(wall_time=time.time(), file_version="brain.Event:2"),
            Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)),
            *(Event(wall_time=time.time(), summary=_text(title, body)) for title, body in texts.items()),
        ]
    )


def encode_rows(rows: Sequence[Row]) -> bytes:
    """Return ``(step, tag, value)`` rows as records, one for all rows of a step (values in float32)."""
    return _records(
        Event(
            wall_time=time.time(),
            step=step,
            summary=Summary(value=[Summary.Value(tag=tag, simple_value=value) for _, tag, value in group]),
        )
        for step, group in groupby(rows, key=lambda row: row[0])
    )


def _text(title: str, body: str) -> Any:
    # Indented, Markdown shows it as it is.
    return text(title, indent(body, "    "))  # type: ignore[no-untyped-call]


def _records(events: Iterable[Event]) -> bytes:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()
