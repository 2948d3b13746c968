"""Crashes, signals and second processes: nothing is lost, and the same command goes on exactly."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from o3f.algorithms import IQLLearner
from o3f.cli.signals import StopSignals
from o3f.errors import CheckpointError, ResourceError, Stopped
from o3f.runs import checkpoint
from o3f.runs.checkpoint import checkpoints, load_latest, save
from o3f.runs.folder import RunFolder
from o3f.runs.lock import lock_folder
from o3f.runs.logger import RunLogger
from o3f.training import loop
from o3f.training import offline as pretraining
from o3f.training.exploration import KINDS
from recipes import finetune
from tests.faults.kills import COVERING, campaign, forked, started
from tests.faults.moments import Moment
from tests.support import recipe_runs as runs
from tests.support.boxes import Box, in_child, steps_in
from tests.support.recipe_runs import (
    SHORT,
    TINY,
    assert_each_step_once,
    assert_same_run,
    command,
    part,
    rows,
    run,
    run_stopped,
    settings,
)

REALLY_KILLED = ["iql", "lapo", "sac_from_cql"]
#: Half of SHORT, in episodes half as long: checkpoints at 25, 50 and 60.
HALVED = ["task.env.max_episode_steps=25", "online.steps=60", "online.evaluate_every=15"]


def test_f01_the_covering_list_covers() -> None:
    composed = [settings("finetune", *SHORT, *overrides) for overrides in COVERING.values()]
    learners = {path.stem for path in (runs.ROOT / "conf/algorithm").glob("*.yaml")}
    assert {config.algorithm.name for config in composed} == learners
    assert {config.exploration.kind for config in composed} == set(KINDS)
    assert {config.online.online_fraction for config in composed} == {None, 0.5, 1.0}
    assert {config.dataset.storage for config in composed} == {"memory", "memmap"}


@pytest.mark.parametrize(
    "name", [name if name == "iql" else pytest.param(name, marks=pytest.mark.slow) for name in REALLY_KILLED]
)
def test_f01_a_run_killed_twice_ends_like_one_that_was_not(name: str, place: Path) -> None:
    """SIGKILL to a process, once inside a save, once between steps; then the same command, as a user starts it.

    The killed ones are forked where a few seconds count, and started anew like the last one in the slow tests.
    """
    draw, overrides = random.Random(name), [*SHORT, *COVERING[name]]
    undisturbed = run("finetune", *overrides, "runs=undisturbed")
    inside_save: Moment = ("o3f.runs.checkpoint", draw.choice(["publish", "write_text"]), draw.randint(3, 5))
    between_steps: Moment = ("o3f.cli.signals", "StopSignals.check", draw.randint(1, 60))
    start = forked if name == "iql" else started
    assert campaign(undisturbed, overrides, [inside_save, between_steps], start, last=started) == 2


@pytest.mark.parametrize("name", [name for name in COVERING if name not in REALLY_KILLED])
@pytest.mark.filterwarnings("ignore:Dataset 'me/reacher-v0' was made in Reacher-v5 with other settings:UserWarning")
def test_f01_every_other_kind_of_run_goes_on_exactly(name: str, place: Path) -> None:
    overrides, pretraining_steps = [*SHORT, *COVERING[name], *HALVED], 20
    if name == "sac":  # from scratch
        overrides, pretraining_steps = [*overrides, "online.random_steps=35"], 0
    undisturbed = run("finetune", *overrides, "runs=undisturbed")
    for last, checks in ((25, pretraining_steps + 33), (50, 29)):  # after each but the last checkpoint
        run_stopped(StopSignals, "check", checks, *overrides)
        (saved,) = Path("runs/default").rglob("checkpoints")
        assert steps_in(saved)[-1] == last
    folder = run("finetune", *overrides)
    assert_same_run(undisturbed, folder)
    assert_each_step_once(folder)


def test_f01_pretraining_goes_on_exactly(place: Path) -> None:
    undisturbed = run("pretrain", *TINY, "runs=undisturbed")
    run_stopped(IQLLearner, "update", 17, *TINY, recipe="pretrain")
    folder = run("pretrain", *TINY)
    assert_same_run(undisturbed, folder)
    assert [step for step, *_ in rows(folder, "train/loss/value")] == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [
        (IQLLearner, "update", 30),  # before the first checkpoint
        (RunFolder, "finish", 1),  # after the last one
        (checkpoint, "publish", 1),
        (checkpoint, "_prune", 3),
    ],
)
def test_f01_the_edges_of_a_run(
    owner: Any, name: str, count: int, pretrained: str, undisturbed: Path, place: Path
) -> None:
    run_stopped(owner, name, count, *SHORT, pretrained)
    folder = run("finetune", *SHORT, pretrained)
    assert_same_run(undisturbed, folder)
    assert_each_step_once(folder)


def test_f01_a_begun_run_needs_its_pretraining_no_more(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stopped(IQLLearner, "update", 80, *TINY)
    shutil.rmtree(*Path("runs").glob("pretrained-*"))
    monkeypatch.setattr(pretraining, "pretrain", None)
    folder = run("finetune", *TINY)
    assert part(folder, "learner")["updates"] == 80


def test_f02_a_signal_while_a_run_begins_ends_it_in_order(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the first file on, which others wait for before they stop a run: here while its log is opened."""

    def opened(*args: Any, **kwargs: Any) -> RunLogger:
        os.kill(os.getpid(), signal.SIGTERM)
        return RunLogger(*args, **kwargs)

    monkeypatch.setattr(loop, "RunLogger", opened)
    assert command("pretrain", *TINY) == 143
    assert "stopped by SIGTERM after step 1. The same command goes on from" in capsys.readouterr().err
    assert len(list(Path("runs").rglob("*.ckpt"))) == 1


def test_f02_sigterm_ends_a_run_after_its_step_and_nothing_is_lost(
    pretrained: str, undisturbed: Path, place: Path
) -> None:
    after_the_checkpoint_of_50 = ("o3f.cli.signals", "StopSignals.check", 63)
    code, output = started([*SHORT, pretrained], after_the_checkpoint_of_50, signal.SIGTERM)
    assert code == 143, output
    assert "stopped by SIGTERM after step 63" in output
    assert "goes on from the checkpoint of step 50; 13 steps after it will be done again" in output
    (folder,) = Path("runs").glob("default/*/seed0")
    assert rows(folder) == [row for row in rows(undisturbed) if row[0] <= 63]  # flushed
    assert run("finetune", *SHORT, pretrained) == folder
    assert_same_run(undisturbed, folder)


def send_at(patch: pytest.MonkeyPatch, step: int, *numbers: signal.Signals) -> None:
    """Send signals to this process just before the ``step``-th check for them."""
    check, calls = StopSignals.check, iter(range(1, 10**6))

    def signalled(self: StopSignals, **steps: int) -> None:
        for number in numbers if next(calls) == step else ():
            os.kill(os.getpid(), number)
        check(self, **steps)

    patch.setattr(StopSignals, "check", lambda self, step, saved: signalled(self, step=step, saved=saved))


def test_f02_ctrl_c_in_pretraining_saves_the_step_at_hand(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    undisturbed = run("pretrain", *TINY, "runs=undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        send_at(patch, 13, signal.SIGINT)
        assert command("pretrain", *TINY) == 130
    told = capsys.readouterr().err
    assert "stopped by SIGINT after step 13. The same command goes on from the checkpoint of step 10" in told
    with pytest.MonkeyPatch.context() as patch:
        received_early = property(lambda self: signal.SIGINT)
        patch.setattr(StopSignals, "received", received_early)
        assert command("pretrain", *TINY) == 130
    assert "after step 11. The same command goes on from the checkpoint of step 11." in capsys.readouterr().err
    assert_same_run(undisturbed, run("pretrain", *TINY))


def test_f02_a_second_signal_ends_the_process_at_once() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):

        def work(number: signal.Signals = number) -> None:
            with StopSignals() as stop:
                os.kill(os.getpid(), number)
                assert stop.received == number
                os.kill(os.getpid(), number)
            os._exit(1)

        assert in_child(work) == 128 + number


def test_f02_a_signal_ends_the_whole_sweep(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        send_at(patch, 3, signal.SIGTERM)
        assert command("pretrain", *TINY, "seed=0,1", "-m") == 143
    assert "stopped by SIGTERM after step 3" in capsys.readouterr().err
    assert [path.name for path in Path("runs").glob("*/*/*")] == ["seed0"]


def test_f02_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped, match="goes on from the start; 4 steps"):
            stop.check(step=4, saved=0)
    assert signal.getsignal(signal.SIGTERM) is before


def test_f03_a_kill_at_any_moment_of_a_save_leaves_a_good_checkpoint(tmp_path, monkeypatch):
    """Kill at each rename and each fsync: of a new step, and of a step saved again."""
    seen = set()
    for step in (2, 1):
        for kill_at in range(100):
            folder = tmp_path / f"{step}-{kill_at}"
            save(folder, 1, {"box": Box(1)})

            def work(folder=folder, step=step, kill_at=kill_at):
                calls = iter(range(1000))

                def deadly(call):
                    def wrapped(*args, **kwargs):
                        if next(calls) == kill_at:
                            os.kill(os.getpid(), signal.SIGKILL)
                        return call(*args, **kwargs)

                    return wrapped

                for name in ("replace", "fsync"):
                    monkeypatch.setattr(os, name, deadly(getattr(os, name)))
                save(folder, step, {"box": Box(9)})

            exit_code = in_child(work)
            box = Box(0)
            load_latest(folder, {"box": box})
            seen.add((step, exit_code, box.value))
            if exit_code == 0:
                assert box.value == 9
                break
            assert exit_code == -signal.SIGKILL
            save(folder, step, {"box": Box(9)})
            assert {path.suffix for path in folder.iterdir()} == {".ckpt", ".sha256", ""}
            assert len(list(folder.iterdir())) == 2 * len(checkpoints(folder)) + 1
    # Each was killed both before and after the new one took over, and ended by itself.
    assert seen == {(step, *end) for step in (1, 2) for end in ((-9, 1.0), (-9, 9.0), (0, 9.0))}


def test_f03_the_stage_of_a_killed_save_is_swept_at_the_start(config):
    with RunFolder.open(config) as run:
        (run.checkpoints / ".stage/half").mkdir(parents=True)
        (run.checkpoints / ".newest.stage").touch()
    with RunFolder.open(config) as run:
        assert list(run.checkpoints.iterdir()) == []


def test_f07_a_restore_that_fails_half_way_changes_nothing(tmp_path):
    def refuse():
        raise ValueError("wrong shape")

    save(tmp_path, 5, {"first": Box(5), "second": Box(5), "third": Box(5)})
    boxes = {"first": Box(1), "second": Box(2), "third": Box(3)}
    attempts = []
    boxes["second"].on_load = lambda: attempts or (attempts.append(1), refuse())
    before = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=r"component 'second' refuses .*step 5.*: wrong shape"):
        load_latest(tmp_path, boxes)
    assert [box.value for box in boxes.values()] == [1, 2, 3]
    assert torch.equal(before, torch.get_rng_state())


def test_f07_a_network_of_another_size_is_left_as_it_was(tmp_path):
    save(tmp_path, 5, {"net": torch.nn.Linear(3, 4), "box": Box(5)})
    net, box = torch.nn.Linear(3, 5), Box(0)
    weight = net.weight.detach().clone()
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_latest(tmp_path, {"box": box, "net": net})
    assert torch.equal(net.weight, weight)
    assert box.value == 0


def hold(config: dict[str, Any], locked: Any) -> None:
    with RunFolder.open(config):
        locked.set()
        time.sleep(60)


def test_f09_a_second_process_is_refused_with_the_pid_and_a_dead_one_is_no_obstacle(config):
    with RunFolder.open(config), pytest.raises(ResourceError, match=f"in use by process {os.getpid()} on"):
        RunFolder.open(config)
    processes = multiprocessing.get_context("fork")
    locked = processes.Event()
    holder = processes.Process(target=hold, args=(config, locked), daemon=True)
    holder.start()
    assert locked.wait(60)
    with pytest.raises(ResourceError, match=f"in use by process {holder.pid} on") as caught:
        RunFolder.open(config)
    assert caught.value.exit_code == 4
    start = time.monotonic()
    with pytest.raises(ResourceError):
        RunFolder.open(config, timeout=0.3)
    assert time.monotonic() - start >= 0.3
    holder.kill()
    holder.join()
    with RunFolder.open(config) as run:
        assert (run.path / ".owner").read_text().startswith(f"{os.getpid()} ")


def test_f09_who_waits_for_a_folder_that_is_taken_away_makes_it_again(tmp_path: Path) -> None:
    folder, found = tmp_path / "run", list[Any]()
    folder.mkdir()
    first = lock_folder(folder, 0)
    waiting = threading.Thread(target=lambda: found.append(lock_folder(folder, 60)))
    waiting.start()
    time.sleep(0.2)
    shutil.rmtree(folder, ignore_errors=True)  # as a refused run does: who waits may have made the lock anew already
    first.release()
    waiting.join()
    assert (folder / ".lock").exists()
    with pytest.raises(ResourceError, match="in use by process"):
        lock_folder(folder, 0)
    found[0].release()


def test_f12_a_finished_run_is_left_alone_and_says_its_scores(
    pretrained: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*TINY, pretrained]
    folder = run("finetune", *overrides)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if not path.name.startswith(".")}
    monkeypatch.setattr(finetune, "finetune", None)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "gone")
    assert run("finetune", *overrides) == folder
    capsys.readouterr()
    assert command("finetune", *overrides, "resume=must") == 0
    scores = json.loads((folder / "done.json").read_text())
    assert f"{folder}: {scores}" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if not path.name.startswith(".")}
    assert after == before
