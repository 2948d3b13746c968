"""Figures are exact, and each step is there once, however often the run was stopped."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from o3f.errors import ConfigError
from o3f.runs import logger as logging
from o3f.runs.logger import RunLogger, read_csv


def tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: for each tag the steps and values, in order."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def event_files(folder: Path) -> list[Path]:
    return list(folder.glob("events.out.tfevents.*"))


def test_values_come_back_exactly(tmp_path):
    values = {"loss/a": 0.1 + 0.2, "loss/b": 1e-300, "x": math.inf, "y": -0.0, "z": 3}
    with RunLogger(tmp_path) as logger:
        logger.log(7, values)
        logger.log(8, {"tensor": torch.tensor(0.1), "nan": math.nan})
    rows = read_csv(tmp_path / "metrics.csv")
    assert rows[:5] == [(7, tag, float(value)) for tag, value in values.items()]
    assert str(rows[3][2]) == "-0.0"
    assert rows[5] == (8, "tensor", torch.tensor(0.1).item())
    assert math.isnan(rows[6][2])
    assert (tmp_path / "metrics.csv").read_text().splitlines()[:2] == [
        "step,tag,value",
        "7,loss/a,0.30000000000000004",
    ]
    assert tensorboard(tmp_path)["loss/a"] == [(7, torch.tensor(0.1 + 0.2).item())]


@given(st.lists(st.floats(), max_size=20))
def test_csv_is_exact_for_any_float(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("any")
    with RunLogger(folder) as logger:
        for step, value in enumerate(values):
            logger.log(step, {"tag": value})
    again = [value for _, _, value in read_csv(folder / "metrics.csv")]
    assert [repr(value) for value in again] == [repr(value) for value in values]


def test_metrics_that_are_gone_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"metrics.csv is gone, which every run writes. Restore it, or leave that"):
        read_csv(tmp_path / "metrics.csv")


def test_wall_clock_figures_live_apart(tmp_path):
    with RunLogger(tmp_path) as logger:
        logger.log(1, {"loss": 1.0})
        logger.log_time(1, {"time/update": 0.25})
        with pytest.raises(ValueError, match="log_time"):
            logger.log(1, {"time/update": 0.25})
        with pytest.raises(ValueError, match="time/"):
            logger.log_time(1, {"loss": 1.0})
        with pytest.raises(ValueError, match="a,b"):
            logger.log(1, {"a,b": 1.0})
    assert read_csv(tmp_path / "metrics.csv") == [(1, "loss", 1.0)]
    assert read_csv(tmp_path / "timing.csv") == [(1, "time/update", 0.25)]
    assert tensorboard(tmp_path) == {"loss": [(1, 1.0)], "time/update": [(1, 0.25)]}


def test_the_configuration_is_shown(tmp_path):
    RunLogger(tmp_path, settings={"seed": 3, "name": "a"}).flush()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Tensors("config/text_summary")
    assert event.tensor_proto.string_val == [b"    seed: 3\n    name: a\n"]


def run_to(logger: RunLogger, first: int, last: int) -> None:
    for step in range(first, last + 1):
        logger.log(step, {"loss": step / 3, "score": -step})
        logger.log_time(step, {"time/step": step / 7})


def test_a_resumed_run_has_each_step_once(tmp_path, monkeypatch):
    with RunLogger(tmp_path / "straight") as logger:
        run_to(logger, 0, 9)
    folder = tmp_path / "resumed"
    now = logging.time.time()  # names of event files hold the time
    monkeypatch.setattr(logging.time, "time", lambda: now)
    with RunLogger(folder) as logger:
        run_to(logger, 0, 6)
    now += 60
    with RunLogger(folder, resume_step=3) as logger:
        run_to(logger, 4, 5)
    now += 60
    with RunLogger(folder, resume_step=5) as logger:
        with pytest.raises(ValueError, match="resumed from step 5; step 5 is there already"):
            logger.log(5, {"loss": 1.0})
        run_to(logger, 6, 9)
    for name in ("metrics.csv", "timing.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert tensorboard(folder) == tensorboard(tmp_path / "straight")
    assert [step for step, _ in tensorboard(folder)["loss"]] == list(range(10))
    assert sorted(file.stat().st_size > 0 for file in event_files(folder)) == [False, True]


def test_a_fresh_start_forgets_what_a_run_without_checkpoint_logged(tmp_path):
    with RunLogger(tmp_path) as logger:
        run_to(logger, 0, 2)
    with RunLogger(tmp_path) as logger:
        run_to(logger, 0, 1)
    assert [row[0] for row in read_csv(tmp_path / "timing.csv")] == [0, 1]
    assert [step for step, _ in tensorboard(tmp_path)["score"]] == [0, 1]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_records_cut_by_a_kill_are_no_obstacle(tmp_path, cut):
    """The files end anywhere, as after a kill during a write: also in the middle of a record."""
    logger = RunLogger(tmp_path)
    run_to(logger, 0, 3)
    logger.flush()
    run_to(logger, 4, 6)
    logger.flush()
    for file in (tmp_path / "metrics.csv", tmp_path / "timing.csv", *event_files(tmp_path)):
        file.write_bytes(file.read_bytes()[:-cut])
    with RunLogger(tmp_path, resume_step=3) as resumed:
        run_to(resumed, 4, 5)
    assert read_csv(tmp_path / "metrics.csv") == [
        row for step in range(6) for row in [(step, "loss", step / 3), (step, "score", -step)]
    ]
    assert [step for step, _ in tensorboard(tmp_path)["loss"]] == list(range(6))


def test_garbage_after_a_power_loss_is_dropped(tmp_path):
    with RunLogger(tmp_path) as logger:
        run_to(logger, 0, 1)
    with (tmp_path / "timing.csv").open("ab") as file:
        file.write(b"\0\0\xff\0\n5,time/step,0.5\n")
    RunLogger(tmp_path, resume_step=9).flush()
    assert (tmp_path / "timing.csv").read_text().splitlines()[1:] == [
        "0,time/step,0.0",
        f"1,time/step,{1 / 7!r}",
    ]


def test_a_tensorboard_that_is_running_sees_each_step_once(tmp_path, monkeypatch):
    with RunLogger(tmp_path) as logger:
        run_to(logger, 0, 6)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert len(events.Scalars("loss")) == 7
    now = logging.time.time()
    monkeypatch.setattr(logging.time, "time", lambda: now + 60)  # file names hold the time in seconds
    with RunLogger(tmp_path, resume_step=3) as logger:
        run_to(logger, 4, 5)
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(6))


def test_after_a_hard_kill_what_was_flushed_is_there(tmp_path):
    child = os.fork()
    if child == 0:
        logger = RunLogger(tmp_path)
        run_to(logger, 0, 3)
        logger.flush()
        run_to(logger, 4, 6)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with RunLogger(tmp_path, resume_step=3) as logger:
        run_to(logger, 4, 5)
    assert [row[0] for row in read_csv(tmp_path / "timing.csv")] == list(range(6))
    assert [step for step, _ in tensorboard(tmp_path)["score"]] == list(range(6))


def test_figures_are_visible_within_seconds_without_a_flush(tmp_path, monkeypatch):
    clock = iter([0.0, 5.0, 10.5, 10.5, 11.0])
    monkeypatch.setattr(logging.time, "monotonic", lambda: next(clock))
    logger = RunLogger(tmp_path)
    logger.log(1, {"loss": 1.0})
    assert read_csv(tmp_path / "metrics.csv") == []
    logger.log(2, {"loss": 2.0})
    assert [row[0] for row in read_csv(tmp_path / "metrics.csv")] == [1, 2]
    logger.log(3, {"loss": 3.0})
    assert [step for step, _ in tensorboard(tmp_path)["loss"]] == [1, 2]


def test_a_value_cut_in_the_middle_is_not_taken_for_a_value(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,tag,value\n1,loss,0.5\n2,loss,0.12")
    assert read_csv(tmp_path / "metrics.csv") == [(1, "loss", 0.5)]
