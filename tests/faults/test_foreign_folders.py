"""A run's folder from elsewhere, or changed by hand: nothing outside is written, nothing is lost unsaid."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from o3f.errors import CheckpointError, ConfigError
from o3f.runs.files import AppendFile, scratch_folder, write_text
from o3f.runs.folder import RunFolder
from o3f.runs.identity import read_settings
from o3f.runs.logger import RunLogger
from tests.support.boxes import Box
from tests.support.recipe_runs import TINY, command


@pytest.fixture
def begun(config: dict[str, Any]) -> Path:
    """The folder of a run with a checkpoint."""
    with RunFolder.open(config) as run:
        run.save(1, {"box": Box(1)}, last=False)
        return run.path


def test_f82_a_run_is_not_opened_where_links_lead_out(begun: Path, config: dict[str, Any], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    for name in (".lock", ".owner", ".done.json.stage", "metrics.csv", "checkpoints/.stage", "events.out.tfevents.1.a"):
        (begun / name).unlink(missing_ok=True)
        (begun / name).symlink_to(outside / "mine")
        with pytest.raises(ConfigError, match=r"is a symbolic link, to .*mine: a run writes into its own folder alone"):
            RunFolder.open(config)
        (begun / name).unlink()
    shutil.rmtree(begun / "checkpoints")
    (begun / "checkpoints").symlink_to(outside)
    with pytest.raises(ConfigError, match="is a symbolic link"):
        RunFolder.open(config)
    assert [path.name for path in outside.iterdir()] == ["mine"]
    assert (outside / "mine").read_text() == "mine"


def test_f82_no_single_file_is_written_through_a_link(tmp_path: Path) -> None:
    """Where the folder was not looked at first: evaluate and diagnose write one file, a logger may be used alone."""
    folder, mine = tmp_path / "run", tmp_path / "mine"
    folder.mkdir()
    mine.write_text("mine")
    for name in (".evaluation.json.stage", "evaluation.json", "events.out.tfevents.1.a", "metrics.csv"):
        (folder / name).symlink_to(mine)
    write_text(folder / "evaluation.json", "{}")
    RunLogger(folder).flush()
    assert mine.read_text() == "mine"
    assert (folder / "evaluation.json").read_text() == "{}"
    assert not (folder / "events.out.tfevents.1.a").exists()
    (folder / "log").symlink_to(mine)
    file = AppendFile(folder / "log")
    file.add(b"more")
    with pytest.raises(OSError):
        file.write()
    assert mine.read_text() == "mine"


def test_f82_what_a_kill_left_of_a_write_is_swept(begun: Path, config: dict[str, Any]) -> None:
    (begun / ".done.json.0123456789abcdef.stage").write_text("{")
    RunFolder.open(config).close()
    assert not list(begun.glob(".*.stage"))
    assert (begun / "config.yaml").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &one [1, 2]\nb: *one\n", "refers to parts of itself"),
        ("a: " + "[" * 25 + "]" * 25 + "\n", "more than 20 deep"),
        ("a: " + "1" * 100_000 + "\n", "no plain file of at most 100000 bytes"),
        ("", "holds no named values"),
        ("- seed", "holds no named values"),
        ("seed: [1", "cannot be read"),
    ],
)
def test_f83_a_configuration_from_elsewhere_is_read_within_limits(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_settings(file)


def test_f83_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="no plain file"):
        read_settings(tmp_path / "config.yaml")


def test_f84_a_change_that_is_refused_leaves_the_run_as_it_was(begun: Path, config: dict[str, Any]) -> None:
    changed = {**config, "task": {"name": "hopper-medium", "sigma": 0.3}, "resume_allow": ["task.sigma"]}
    before = (begun / "config.yaml").read_bytes()
    with pytest.warns(UserWarning, match=r"task.sigma: 0.2 -> 0.3"):
        run = RunFolder.open(changed)
    with run, pytest.raises(CheckpointError, match="no component"):
        run.load({"other": Box(0)})
    assert (begun / "config.yaml").read_bytes() == before
    RunFolder.open(config).close()  # the original command goes on
    with pytest.warns(UserWarning, match="task.sigma"):
        run = RunFolder.open(changed)
    with run:
        box = Box(0)
        assert run.load({"box": box})
        run.save(2, {"box": box}, last=True)
    assert read_settings(begun / "config.yaml")["task"]["sigma"] == 0.3
    with pytest.raises(ConfigError, match=r"task.sigma: 0.3 -> 0.2"):
        RunFolder.open(config)


def test_f85_a_folder_of_checkpoints_that_is_gone_is_no_fresh_start(begun: Path, config: dict[str, Any]) -> None:
    shutil.rmtree(begun / "checkpoints")
    with RunFolder.open(config) as run, pytest.raises(CheckpointError, match=r"checkpoints is gone.*from a backup"):
        run.load({"box": Box(0)})
    fresh = {**config, "seed": 4}
    with RunFolder.open(fresh) as run:
        assert not run.load({"box": Box(0)})


@pytest.mark.parametrize("kept", ["checkpoints", "done.json"])
def test_f10_a_configuration_that_is_gone_is_no_leave_for_another(kept: str, config: dict[str, Any]) -> None:
    with RunFolder.open(config) as run:
        if kept == "done.json":
            run.finish({"score": 1.0})
        else:
            run.save(1, {"box": Box(1)}, last=False)
    (run.path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"config.yaml is gone from a folder that holds a run.*Restore that file"):
        RunFolder.open({**config, "task": {"name": "hopper-medium", "sigma": 0.3}})
    assert not (run.path / "config.yaml").exists()


def test_f10_what_a_run_was_begun_on_is_compared_or_missed(config: dict[str, Any]) -> None:
    with RunFolder.open(config) as run:
        run.record_environment(dataset_hash="one")
        run.save(1, {"box": Box(1)}, last=False)
    (run.path / "env.json").unlink()
    with RunFolder.open(config) as run, pytest.raises(ConfigError, match=r"env.json is gone.*on which data it was"):
        run.record_environment(dataset_hash="two")
    assert not (run.path / "env.json").exists()


@pytest.mark.parametrize("cut", [True, False])
def test_f85_metrics_that_are_lost_are_told(cut: bool, begun: Path, config: dict[str, Any]) -> None:
    with RunFolder.open(config) as run:
        logger = RunLogger(begun, 1)
        for step in range(2, 6):
            logger.log(step, {"loss": step / 3})
        logger.flush()
        run.save(5, {"box": Box(1)}, last=False)
        logger.log(6, {"loss": 2.0})  # of after the checkpoint: to be done again, and not missed
        logger.flush()
    file = begun / "metrics.csv"
    with RunFolder.open(config) as run:
        assert run.load({"box": Box(0)})
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], *([] if cut else [b"4,lo?s\n", *lines[4:]])]))
    with RunFolder.open(config) as run, pytest.warns(UserWarning, match=r"lost metrics.*the last row is of step 3"):
        assert run.load({"box": Box(0)})


def test_f88_what_a_killed_process_left_in_the_temporary_folder_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid, host in ((gone.pid, socket.gethostname()), (os.getpid(), socket.gethostname()), (gone.pid, "elsewhere")):
        (tmp_path / f"o3f-test-{pid}-{host}-x").mkdir()
    with scratch_folder("o3f-test") as folder:
        assert folder.is_dir()
        assert not (tmp_path / f"o3f-test-{gone.pid}-{socket.gethostname()}-x").exists()
    kept = {f"o3f-test-{os.getpid()}-{socket.gethostname()}-x", f"o3f-test-{gone.pid}-elsewhere-x"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_f28_a_file_of_data_that_was_renamed_is_the_same_data(config: dict[str, Any]) -> None:
    with RunFolder.open(config) as run:
        run.record_environment(dataset="a.npz", dataset_hash="one")
        run.save(1, {"box": Box(1)}, last=False)
    with RunFolder.open(config) as run:
        run.record_environment(dataset="b.npz", dataset_hash="one")  # and no warning, which would be an error
        with pytest.raises(ConfigError, match=r"dataset: a.npz -> b.npz, dataset_hash: one -> two"):
            run.record_environment(dataset="b.npz", dataset_hash="two")


@pytest.mark.parametrize("recipe", ["pretrain", "finetune"])
def test_f91_a_refusal_before_the_first_step_leaves_no_folder(
    recipe: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(recipe, *TINY, "dataset.id=me/mistyped-v0", "name=mine", "runs=all") == 1
    assert "me/mistyped-v0" in capsys.readouterr().err
    assert not Path("all").exists()


def test_f91_what_was_there_or_holds_work_stays(config: dict[str, Any]) -> None:
    def refused(*written: str) -> Path:
        run = RunFolder.open(config)
        for name in written:
            (run.path / name).mkdir(parents=True)
        run.__exit__(ConfigError, ConfigError("refused"), None)
        return run.path

    runs = Path(config["runs"])
    runs.mkdir()
    assert not refused("storage").exists()
    assert list(runs.iterdir()) == []
    path = refused("nonfinite")
    assert (path / "config.yaml").exists()
    assert refused() == path
    assert path.exists()
    shutil.rmtree(path)
    (path.parent / "seed4").mkdir()
    refused()
    assert [each.name for each in path.parent.iterdir()] == ["seed4"]
