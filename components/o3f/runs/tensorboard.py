"""Metrics as TensorBoard records, encoded in this thread.

``torch.utils.tensorboard.SummaryWriter`` hands each scalar to a thread, which costs tens of times as much,
and whose death (a full disk) is a printed stack trace and may hang the next flush; its ``add_hparams`` makes a
second run folder. The records are the same.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import indent
from typing import Any

from omegaconf import OmegaConf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import (
    DataClass,  # pyright: ignore[reportAttributeAccessIssue]
    Summary,  # pyright: ignore[reportAttributeAccessIssue]
    SummaryMetadata,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.api_pb2 import Status  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,  # pyright: ignore[reportAttributeAccessIssue]
    SessionEndInfo,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import custom_scalars, text

from o3f.runs.identity import FREE_KEYS, identity
from o3f.runs.tags import TAGS

Row = tuple[int, str, float]

#: Charts of the tab "Custom scalars", the tags of their lines by heading and title.
LAYOUT = {
    "The policy and the critics' choice, evaluated": {
        name: [f"eval/{name}", f"eval_optimistic/{name}"] for name in ("score", "return")
    },
    "While collecting": {"return": ["rollout/return"], "length": ["rollout/length"]},
    "Training": {
        "mean of the critics": ["train/critic/mean"],
        "disagreement of the critics": ["train/critic/std"],
        "loss of the critics": ["train/loss/critic"],
        "loss of the policy": ["train/loss/actor"],
    },
}


class Encoder:
    """Records of one event file, in order.

    Args:
        prefix: before each tag, for runs whose steps are other ones: a chart has one axis.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._described: set[str] = set()

    def start(self, folder: Path, settings: Mapping[str, Any]) -> bytes:
        """Return the beginning: version, start of a session, the configuration as text and as hyper-parameters.

        The start makes a TensorBoard that is running forget what it read from earlier files of the folder.

        Args:
            folder: of the run; the two folders above name its group in the tab HParams.
            settings: the configuration, nested; empty: none is shown.
        """
        shown = [_text("config", OmegaConf.to_yaml(OmegaConf.create(dict(settings)))), _hparams(folder, settings)]
        summaries = [*(shown if settings else []), _layout(self._prefix)]
        return _records(
            [
                Event(wall_time=time.time(), file_version="brain.Event:2"),
                Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)),
                *(Event(wall_time=time.time(), summary=summary) for summary in summaries),
            ]
        )

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return ``(step, tag, value)`` rows, one record for all rows of a step (values in float32)."""
        return _records(
            Event(
                wall_time=time.time(),
                step=step,
                summary=Summary(value=[self._value(tag, value) for _, tag, value in group]),
            )
            for step, group in groupby(rows, key=lambda row: row[0])
        )

    def end(self, *, succeeded: bool) -> bytes:
        """Return the end of a run."""
        status = Status.STATUS_SUCCESS if succeeded else Status.STATUS_FAILURE
        info = HParamsPluginData(session_end_info=SessionEndInfo(status=status, end_time_secs=time.time()))
        value = Summary.Value(
            tag=hparams_metadata.SESSION_END_INFO_TAG,
            metadata=hparams_metadata.create_summary_metadata(info),
            tensor=hparams_metadata.NULL_TENSOR,
        )
        return _records([Event(wall_time=time.time(), summary=Summary(value=[value]))])

    def _value(self, tag: str, value: float) -> Any:
        shown = self._prefix + tag
        if tag in self._described or tag not in TAGS:
            return Summary.Value(tag=shown, simple_value=value)
        self._described.add(tag)  # TensorBoard keeps the first
        said = SummaryMetadata(
            summary_description=f"{TAGS[tag].text} [{TAGS[tag].unit}]",
            plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"),
            data_class=DataClass.DATA_CLASS_SCALAR,  # or TensorBoard's data server drops the description
        )
        return Summary.Value(tag=shown, simple_value=value, metadata=said)


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Return a configuration as TensorBoard takes it: flat, without nulls, the seed and what changes no result.

    Examples:
        >>> hyperparameters({"seed": 3, "device": "cpu", "algorithm": {"discount": 0.99, "hidden_sizes": [8, 8]}})
        {'algorithm.discount': 0.99, 'algorithm.hidden_sizes': '[8, 8]'}
    """
    shown = {key: value for key, value in identity(settings, FREE_KEYS | {"seed"}).items() if value is not None}
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in shown.items()}


def _hparams(folder: Path, settings: Mapping[str, Any]) -> Any:
    # Runs of one group differ in the seed alone: the tab shows the means of their metrics. No experiment is declared:
    # then it collects keys and metrics from all runs, and has those in front in which the runs differ.
    values = hyperparameters(settings)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    group = "/".join([*folder.absolute().parts[-3:-1], digest[:6]])
    return hparams_pb(values, trial_id=group)  # pyright: ignore[reportArgumentType]


def _layout(prefix: str) -> Any:
    charts = {
        f"{prefix}{heading}": {
            title: ["Multiline", [f"^{prefix}{tag}$" for tag in tags]] for title, tags in group.items()
        }
        for heading, group in LAYOUT.items()
    }
    return custom_scalars(charts)  # type: ignore[no-untyped-call]


def _text(title: str, body: str) -> Any:
    # Indented, Markdown shows it as it is.
    return text(title, indent(body, "    "))  # type: ignore[no-untyped-call]


def _records(events: Iterable[Event]) -> bytes:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()
