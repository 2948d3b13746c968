"""Full, damaged and foreign storage: told, outlived where that is possible, never a silent fresh start."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from o3f.algorithms import IQLLearner
from o3f.data.rows import allocate_rows
from o3f.errors import CheckpointError, ConfigError, SaveError
from o3f.runs import checkpoint, files
from o3f.runs import folder as runs
from o3f.runs.checkpoint import checkpoints, load_latest, save
from o3f.runs.files import AppendFile, sha256
from o3f.runs.folder import RunFolder
from o3f.runs.logger import RunLogger, read_csv
from tests.support.boxes import Box, in_child, steps_in
from tests.support.recipe_runs import SHORT, TINY, assert_same_run, command, run, run_stopped, tensorboard


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small file system in memory with some options; only root may."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
        return folder

    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


def run_to(logger: RunLogger, first: int, last: int) -> None:
    for step in range(first, last + 1):
        logger.log(step, {"loss": step / 3, "score": -step})
        logger.log_time(step, {"time/step": step / 7})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def large() -> torch.nn.Module:
    """800 kB of parameters, all of them written."""
    return torch.nn.ParameterList(torch.ones(20_000) for _ in range(10))


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_f04_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path, monkeypatch):
    save(tmp_path, 1, {"box": Box(1)})
    before = contents(tmp_path)
    monkeypatch.setattr(files, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, {"box": Box(2)})
    assert contents(tmp_path) == before


def test_f04_a_write_cut_short_raises_instead_of_killing_the_process(tmp_path):
    """A file-size limit stands for the full disk: memory-mapped payloads would die of a signal here."""
    save(tmp_path, 1, {"box": Box(1)})

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save(tmp_path, 2, {"net": large()})
        except OSError as error:
            os._exit(10 if error.errno == errno.EFBIG else 11)

    assert in_child(work) == 10
    assert steps_in(tmp_path) == [1]
    assert len(list(tmp_path.iterdir())) == 3


def test_f04_a_really_full_disk_raises_and_keeps_the_old_checkpoint(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=600k")
    save(folder, 1, {"box": Box(1)})
    before = contents(folder)

    def work() -> None:
        try:
            save(folder, 2, {"net": large()})
        except OSError as error:
            os._exit(10 if error.errno == errno.ENOSPC else 11)
        os._exit(12)

    assert in_child(work) == 10
    assert contents(folder) == before
    box = Box(0)
    assert load_latest(folder, {"box": box}) == {"step": 1}
    assert box.value == 1


@pytest.mark.parametrize("told", ["No space left on device (28)", "Disk quota exceeded (122)"])
def test_f04_a_full_file_system_in_memory_is_a_full_disk(
    told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where tensors are mapped torch raises RuntimeError, as for defects; others of it stay what they are."""
    save(tmp_path, 1, {"box": Box(1)})
    before = contents(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"unable to write to file <x.memmap>: {told}")

    monkeypatch.setattr(checkpoint.Checkpoint, "save", full)
    with pytest.raises(OSError, match=told[:10]):
        save(tmp_path, 2, {"box": Box(2)})
    assert contents(tmp_path) == before
    told = "shape mismatch"
    with pytest.raises(RuntimeError, match="shape mismatch"):
        save(tmp_path, 2, {"box": Box(2)})


def test_f04_memory_mapped_rows_claim_their_space_at_the_start(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=600k")
    with pytest.raises(OSError, match="No space left") as caught:
        allocate_rows(100_000, observation_dim=8, action_dim=2, storage_dir=folder)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("failing", [[50], [50, 100], [100]])
def test_f04_a_run_outlives_failed_saves(
    failing: list[int], pretrained: str, undisturbed: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_at_times(folder: Path, step: int, *args: Any) -> Path:
        return no_space() if step in failing else save(folder, step, *args)

    monkeypatch.setattr(runs, "save", full_at_times)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        folder = run("finetune", *SHORT, pretrained)
    assert [str(each.message).split(" (")[0] for each in told] == [f"cannot save step {step}" for step in failing]
    assert steps_in(folder / "checkpoints") == [step for step in (50, 100, 120) if step not in failing]
    assert_same_run(undisturbed, folder)


def test_f04_three_failed_saves_in_a_row_end_the_run_and_the_same_command_goes_on(
    pretrained: str, undisturbed: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    often = [*SHORT, "online.steps=210", pretrained]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        patch.setattr(runs, "save", lambda folder, step, *args: save(folder, step, *args) if step == 50 else no_space())
        assert command("finetune", *often) == 1
    assert "3 checkpoints in a row could not be saved: [Errno 28] No space left on device" in capsys.readouterr().err
    failed = [str(each.message) for each in told if "cannot save" in str(each.message)]
    assert len(failed) == 2
    assert "going on, the newest checkpoint is that of step 50" in failed[0]
    (folder,) = Path("runs").rglob("checkpoints")
    assert steps_in(folder) == [50]
    assert_same_run(run("finetune", *often, "runs=undisturbed"), run("finetune", *often))


def test_f04_a_success_in_between_starts_the_count_anew(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = iter([no_space, no_space, save, no_space, no_space, no_space])
    monkeypatch.setattr(runs, "save", lambda *args: next(outcomes)(*args))
    with RunFolder.open(config) as folder:
        for step in (1, 2, 4, 5):
            if step == 4:
                folder.save(3, {"box": Box(3)}, last=False)
            with pytest.warns(UserWarning, match=f"cannot save step {step}"):
                folder.save(step, {"box": Box(step)}, last=False)
        with pytest.raises(SaveError, match="the newest checkpoint is that of step 3"):
            folder.save(6, {"box": Box(6)}, last=False)
        assert SaveError.exit_code == 1


def test_f04_the_last_checkpoint_of_a_run_must_be_saved(pretrained: str, place: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "save", lambda folder, step, *args: save(folder, step, *args) if step < 120 else no_space())
        assert command("finetune", *SHORT, pretrained) == 4
    assert not list(Path("runs").rglob("done.json"))


def test_f05_a_full_disk_while_logging_warns_once_and_loses_nothing(tmp_path, monkeypatch):
    logger = RunLogger(tmp_path)
    run_to(logger, 0, 1)
    logger.flush()
    write, broken = os.write, True

    def half(descriptor, data):
        """A disk that takes half of what it gets, then nothing."""
        if not broken:
            return write(descriptor, data)
        write(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    run_to(logger, 2, 3)
    with pytest.warns(UserWarning, match="cannot log .*No space left.*going on"):
        logger.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_to(logger, 4, 5)
        logger.flush()
    assert [row[0] for row in read_csv(tmp_path / "timing.csv")] == [0, 1]
    broken = False
    logger.flush()
    assert [row[0] for row in read_csv(tmp_path / "timing.csv")] == list(range(6))
    assert [step for step, _ in tensorboard(tmp_path)["loss"]] == list(range(6))


def test_f05_a_block_is_written_whole_or_not_at_all(tmp_path):
    """A file-size limit makes the system take a part of the block only."""
    path = tmp_path / "file"
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        file = AppendFile(path)
        file.add(b"a" * 100)
        file.write()
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, 1000))
        file.add(b"b" * 100)
        try:
            file.write()
        except OSError:
            after_failure = path.read_bytes()
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            file.write()
            os._exit(0 if after_failure == b"a" * 100 else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.read_bytes() == b"a" * 100 + b"b" * 100


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: -file.stat().st_size // 3])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def flip_tensor(file: Path) -> None:
    """Flip a bit of the stored number itself."""
    data = file.read_bytes()
    number = torch.full((6,), 2.0).numpy().tobytes()
    assert data.count(number) == 1
    file.write_bytes(data.replace(number, torch.full((6,), 3.0).numpy().tobytes()))


DAMAGE = {
    "flip": flip,
    "cut": cut,
    "zero": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "grown": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "missing": Path.unlink,
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("step_000000000002.ckpt", damage) for damage in DAMAGE.values()),
        *(("step_000000000002.ckpt.sha256", DAMAGE[name]) for name in ("flip", "cut", "zero", "zeros", "missing")),
    ],
)
def test_f06_a_damaged_newest_falls_back_and_none_good_stops(
    name: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    for step in (1, 2):
        save(tmp_path, step, {"box": Box(step)})
    damage(tmp_path / name)
    box = Box(0)
    with pytest.warns(UserWarning, match=r"step_000000000002\.ckpt (is damaged|was removed)"):
        assert load_latest(tmp_path, {"box": box}) == {"step": 1}
    assert box.value == 1
    checkpoints(tmp_path)[0].write_bytes(b"damaged too")
    box, before = Box(0), torch.get_rng_state()
    with (
        pytest.warns(UserWarning, match="is damaged|was removed"),
        pytest.raises(CheckpointError, match=r"none of the \d checkpoints .* delete the run folder") as caught,
    ):
        load_latest(tmp_path, {"box": box})
    assert caught.value.exit_code == 3
    assert box.value == 0
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("damage", [DAMAGE[name] for name in ("cut", "zero", "zeros", "missing")])
def test_f06_the_note_of_the_newest_is_no_obstacle(damage: Callable[[Path], object], tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step, {"box": Box(step)})
    damage(tmp_path / "newest")
    assert load_latest(tmp_path, {"box": Box(0)}) == {"step": 2}


def test_f06_a_bit_of_a_weight(tmp_path: Path) -> None:
    """Found by the digest, and by the archive's own sums where somebody made a new digest."""
    for forged in (False, True):
        for step in (1, 2):
            save(tmp_path, step, {"box": Box(step)})
        newest = checkpoints(tmp_path)[1]
        flip_tensor(newest)
        if forged:
            Path(f"{newest}.sha256").write_text(sha256(newest))
        box = Box(0)
        with pytest.warns(UserWarning, match="damaged"):
            load_latest(tmp_path, {"box": box})
        assert box.value == 1


def test_f06_a_damaged_checkpoint_costs_a_run_no_more_than_time(
    pretrained: str, undisturbed: Path, place: Path
) -> None:
    run_stopped(IQLLearner, "update", 110, *SHORT, pretrained)
    (newest,) = Path("runs").rglob("step_000000000100.ckpt")
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="damaged"):
        folder = run("finetune", *SHORT, pretrained)
    assert_same_run(undisturbed, folder)


@pytest.mark.parametrize("remove", ["damage", "remove"])
def test_f06_a_run_whose_checkpoints_are_lost_is_never_begun_anew(
    remove: str, pretrained: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stopped(IQLLearner, "update", 110, *SHORT, pretrained)
    (folder,) = Path("runs").rglob("checkpoints")
    for file in checkpoints(folder):
        file.write_bytes(b"") if remove == "damage" else file.unlink()
    before = contents(folder.parent / "checkpoints"), (folder.parent / "metrics.csv").read_bytes()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert command("finetune", *SHORT, pretrained) == 3
    assert "delete the run folder to start anew" in capsys.readouterr().err
    assert before == (contents(folder.parent / "checkpoints"), (folder.parent / "metrics.csv").read_bytes())


@pytest.mark.parametrize("name", ["config.yaml", "env.json", "done.json"])
@pytest.mark.parametrize("damage", [DAMAGE[name] for name in ("cut", "zero", "zeros")])
def test_f06_damaged_notes_of_a_run_stop_with_the_file_s_name(
    name: str, damage: Callable[[Path], object], config: dict[str, Any]
) -> None:
    with RunFolder.open(config) as folder:
        folder.record_environment(dataset_hash="abc")
        folder.save(1, {"box": Box(1)}, last=True)
        folder.finish({"return": 1.0})
    damage(folder.path / name)

    def read_all() -> None:
        with RunFolder.open(config) as again:
            again.record_environment(dataset_hash="abc")
            assert again.scores

    with pytest.raises((CheckpointError, ConfigError), match=f"{folder.path}|{name}"):
        read_all()


@pytest.mark.parametrize(
    "content", [{}, {"return": math.nan}, {"step": "x"}, {"a": {"b": 1}}, {"step": 3, "return": None}]
)
def test_f06_a_done_json_of_other_content_is_no_finished_run(content: Any, config: dict[str, Any]) -> None:
    with RunFolder.open(config) as folder:
        folder.finish({"step": 3, "return": 1.0})
        assert folder.scores == {"step": 3, "return": 1.0}
        (folder.path / "done.json").write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=r"done\.json is not what a finished run writes.* Delete that file"):
            assert folder.scores
        (folder.path / "done.json").write_text("[" * 3000)
        with pytest.raises(CheckpointError, match="damaged"):
            assert folder.scores


def test_f10_what_may_change_is_a_key_from_the_beginning(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"resume_allow: 'sigm' is not known\. Did you mean .*sigma"):
        RunFolder.open({**config, "resume_allow": ["sigm"]})


def test_f08_files_are_on_the_disk_before_they_are_published(tmp_path, monkeypatch):
    def plain(name: str) -> str:
        return re.sub(r"\.[0-9a-f]{16}(?=\.stage$)", "", name)  # the part that nobody can foresee

    calls = []
    fsync, replace = files.fsync, os.replace
    monkeypatch.setattr(files, "fsync", lambda path: (calls.append(("fsync", plain(path.name))), fsync(path)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (calls.append(("replace", Path(b).name)), replace(a, b)))
    save(tmp_path / "c", 3, {"box": Box(3)})
    published = calls[calls.index(("replace", "step_000000000003.ckpt.sha256")) - 1 :]
    assert published == [
        ("fsync", ".step_000000000003.ckpt.sha256.stage"),
        ("replace", "step_000000000003.ckpt.sha256"),
        ("fsync", "c"),
        ("fsync", "step_000000000003.ckpt"),
        ("replace", "step_000000000003.ckpt"),
        ("fsync", "c"),
        ("fsync", ".newest.stage"),
        ("replace", "newest"),
        ("fsync", "c"),
    ]


def test_f10_another_configuration_is_refused_with_the_differences(config):
    with RunFolder.open(config) as folder:
        folder.save(1, {"box": Box(1)}, last=True)
    other = {
        **config,
        "algorithm": {"name": "iql", "temperature": 3.0},
        "task": {"name": "hopper-medium", "sigma": 0.1},
    }
    with pytest.raises(ConfigError) as caught:
        RunFolder.open(other)
    assert str(caught.value).splitlines()[1:4] == [
        "  task.sigma: 0.2 -> 0.1",
        "  algorithm.expectile: 0.7 -> (absent)",
        "  algorithm.temperature: (absent) -> 3.0",
    ]
    assert "name=" in str(caught.value)
    assert caught.value.exit_code == 2
    RunFolder.open(config).close()  # the refusal let go of the lock and changed nothing


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("algorithm.expectile=0.8", "algorithm.expectile: 0.7 -> 0.8"),
        ("task.env.kwargs={reward_control_weight: 2}", "task.env.kwargs"),
        ("+task.env.kwargs.reward_control_weight=2", "task.env.kwargs"),
        ("offline.batch_size=8", "offline.batch_size: 16 -> 8"),
        ("exploration.sigma=0.3", "exploration.sigma: 0.2 -> 0.3"),
    ],
)
def test_f10_a_run_is_not_continued_as_another(
    override: str, told: str, begun: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(begun, "runs")
    before = contents(next(Path("runs").rglob("checkpoints")))
    assert command("finetune", *BEGUN, override) == 2
    assert told in capsys.readouterr().err
    assert contents(next(Path("runs").rglob("checkpoints"))) == before


def test_f10_what_is_allowed_to_change_changes_with_a_warning(begun: Path, place: Path) -> None:
    shutil.copytree(begun, "runs")
    change = ["exploration.sigma=0.3", "evaluation.episodes=2"]
    with pytest.raises(ConfigError, match=r"\n  exploration.sigma: 0.2 -> 0.3\n.*resume_allow"):
        run("finetune", *BEGUN, *change, "resume_allow=[evaluation.episodes]")
    with pytest.warns(UserWarning, match=r"goes on .* exploration.sigma: 0.2 -> 0.3"):
        folder = run("finetune", *BEGUN, *change, "resume_allow=[evaluation.episodes,exploration.sigma]")
    assert "sigma: 0.3" in (folder / "config.yaml").read_text()
    assert (folder / "done.json").exists()


BEGUN = [*TINY, "dataset=none", "algorithm=iql", "pretrained=none"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run from scratch, stopped after its first checkpoint."""
    root = tmp_path_factory.mktemp("begun") / "runs"
    run_stopped(IQLLearner, "update", 55, *BEGUN, f"runs={root}")
    assert steps_in(next(root.rglob("checkpoints"))) == [50]
    return root


def rewrite(archive: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Change the members of an archive and make the digest fit."""
    with zipfile.ZipFile(archive) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    with zipfile.ZipFile(archive, "w") as new:
        for name, data in members.items():
            new.writestr(name, data)
    Path(f"{archive}.sha256").write_text(sha256(archive))


def test_f10_a_newer_format_is_refused_and_not_taken_for_damage(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step, {"box": Box(step)})

    def newer(members: dict[str, bytes]) -> None:
        members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), "format_version": 2}).encode()

    rewrite(checkpoints(tmp_path)[1], newer)
    with pytest.raises(CheckpointError, match=r"step_0+2\.ckpt was written by a newer version of torchrl"):
        load_latest(tmp_path, {"box": Box(0)})


def test_f10_another_version_or_thread_count_only_warns(config, monkeypatch):
    here = runs.provenance()
    with RunFolder.open(config) as run:
        run.record_environment()
        (run.path / "metrics.csv").touch()
        monkeypatch.setattr(runs, "provenance", lambda: {**here, "torch": "9.9", "threads": 77})
        with pytest.warns(UserWarning, match=r"torch: .* -> 9\.9, threads: .* -> 77.*not bit-exact"):
            run.record_environment()
        assert json.loads((run.path / "env.json").read_text())["torch"] == here["torch"]


def test_f11_a_root_that_cannot_be_written_fails_with_its_path(config, tmp_path):
    Path(config["runs"]).write_text("a file where the folder should be")
    with pytest.raises(OSError, match=str(tmp_path)):
        RunFolder.open(config)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_f11_a_folder_that_cannot_be_made_fails_before_any_work(
    number: int, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mkdir = Path.mkdir

    def refuse(self: Path, *args: Any, **options: Any) -> None:
        if self.name == "seed0":
            raise OSError(number, os.strerror(number), str(self))
        mkdir(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    code = command("finetune", *TINY)
    told = capsys.readouterr()
    assert code == (4 if number in (errno.ENOSPC, errno.EDQUOT) else 1)
    assert f"{os.strerror(number)}: 'runs/default/Reacher-v5-iql-optimistic/seed0'" in told.err
    assert re.fullmatch("(algorithm.compile=auto: .*\n)?", told.out)


@pytest.mark.parametrize("options", ["ro", "size=1m,nr_inodes=3"])
def test_f11_a_read_only_or_exhausted_file_system(
    options: str, mounted: Callable[[str], Path], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = mounted(options)
    assert command("finetune", *TINY, f"runs={folder}/runs") in (1, 4)
    told = capsys.readouterr()
    assert str(folder) in told.err
    assert re.fullmatch("(algorithm.compile=auto: .*\n)?", told.out)
