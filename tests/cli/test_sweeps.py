"""Sweeps through Hydra's launchers: all jobs run, failures are listed, a rerun does what is missing."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor

from o3f.cli.sweeps import Outcome, missing_launcher, outcomes, report_sweep
from tests.support.recipe_runs import ROOT, SCRATCH, TINY, command, run

PLAIN = [*TINY, *SCRATCH, "online.steps=40", "online.evaluate_every=20"]
SWEEP = [*PLAIN, "algorithm.tau=0.1,7,0.2", "name=tau${algorithm.tau}"]


def finished() -> list[str]:
    return sorted(path.parts[1] for path in Path("runs").rglob("done.json"))


def test_joblib_runs_all_jobs_in_processes_and_lists_what_failed(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run("finetune", *PLAIN, "algorithm.tau=0.1", "name=tau0.1")
    before = Path("runs/tau0.1/Reacher-v5-sac-policy/seed0/metrics.csv").stat().st_mtime_ns
    capfd.readouterr()
    assert command("finetune", *SWEEP, "launcher=joblib", "hydra.launcher.n_jobs=2", "-m") == 1
    told = capfd.readouterr()
    assert finished() == ["tau0.1", "tau0.2"]
    assert Path("runs/tau0.1/Reacher-v5-sac-policy/seed0/metrics.csv").stat().st_mtime_ns == before
    (folder,) = Path("runs/sweeps").iterdir()
    head, job, where = told.err.strip().splitlines()[-3:]
    assert head == "1 of 3 runs of the sweep failed; the same command does these again and no other:"
    assert job == "  job 1  algorithm.tau=7  exit code 2: tau must be a number in (0, 1], found 7."
    assert where == f"    run folder runs/tau7/Reacher-v5-sac-policy/seed0, log {folder}/1.log"
    logs = [Path(folder, f"{job}.log").read_text() for job in range(3)]
    assert "is finished already" in logs[0]
    assert "error: [algorithm.tau=7] tau must be" in logs[1]
    assert "Fine-tuned: runs/tau0.2" in logs[2]
    assert "Fine-tuned" not in told.out  # which is in the logs, one line for each job instead
    assert f"[algorithm.tau=0.2] done; {folder}/2.log" in told.out
    get_reusable_executor().shutdown(wait=True)  # its idle processes would stay for minutes, also for other tests


@pytest.mark.slow
def test_submitit_runs_jobs_of_its_own(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails at once: that its error and its exit code come back is what differs from joblib."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # here the recipe is a module, which the job imports
    assert command("finetune", *PLAIN, "algorithm.tau=7", "launcher=submitit_local", "-m") == 1
    job = capfd.readouterr().err.strip().splitlines()[-2]
    assert " ".join(job.split()) == "job 0 exit code 2: tau must be a number in (0, 1], found 7."
    (folder,) = Path("runs/sweeps").iterdir()
    assert "error: tau must be" in Path(folder, "0.log").read_text()


def test_a_job_that_was_killed_is_listed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed, done = Outcome(1, "seed=1", log="1.log"), Outcome(0, "seed=0", code=0, error="")
    assert report_sweep([done]) == 0
    assert report_sweep([done, killed]) == 1
    assert "  job 1  seed=1  ended without a word: killed" in capsys.readouterr().err


@pytest.mark.slow
def test_sigterm_ends_the_command_and_its_processes(place: Path) -> None:
    call = [
        sys.executable,
        str(ROOT / "recipes/finetune.py"),
        *PLAIN,
        "online.steps=100000",
        "online.updates_per_step=9",
    ]
    process = subprocess.Popen(
        [*call, "seed=0,1", "launcher=joblib", "hydra.launcher.n_jobs=2", "-m"], stderr=subprocess.PIPE, text=True
    )
    while len(list(Path("runs").rglob("metrics.csv"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    workers = [int(file.read_text().split()[0]) for file in Path("runs").rglob(".owner")]
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 143, told
    assert "the same command goes on" in told
    assert workers
    for worker in workers:
        assert not Path(f"/proc/{worker}").exists() or "\nState:\tZ" in Path(f"/proc/{worker}/status").read_text()


@pytest.mark.parametrize(
    ("launcher", "extra"),
    [("joblib", "sweep"), ("submitit", "sweep"), ("submitit_local", "sweep"), ("ray", "ray-sweep")],
)
def test_a_launcher_that_is_not_installed_is_named_with_the_command(
    launcher: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert f'pip install "o3f[{extra}]"' in (missing_launcher(["seed=0,1", f"launcher={launcher}", "-m"]) or "")
    assert missing_launcher(["seed=0,1", "-m"]) is None


def test_outcomes_are_read_by_number(tmp_path: Path) -> None:
    for number in (10, 2):
        tmp_path.joinpath(f"{number}.json").write_text(f'{{"job": {number}, "overrides": "seed={number}", "code": 0}}')
    assert [outcome.job for outcome in outcomes(tmp_path)] == [2, 10]
    assert re.match("seed=2", outcomes(tmp_path)[0].overrides)
