"""Several runs at a time, each a process of its own with one thread; what is stopped goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from o3f.cli.commands import arguments, command
from o3f.cli.signals import StopSignals
from o3f.errors import ResourceError, Stopped
from o3f.figures.plan import PlannedRun

POLL_SECONDS = 0.2


@dataclass
class Pool:
    """Processes of runs, as many at a time as there are jobs.

    Attributes:
        jobs: how many.
        logs: folder for what the runs say.
        failed: runs that ended with an error, with the exit code.
    """

    jobs: int
    logs: Path
    failed: list[tuple[PlannedRun, int]] = field(default_factory=list)

    def complete(self, runs: Sequence[PlannedRun], report: Callable[[PlannedRun, float], None]) -> None:
        """Start what is missing, in order; a run whose pre-training another one is busy with comes later.

        Args:
            runs: finished ones are left alone.
            report: called with each run that has finished, and the seconds it took.

        Raises:
            Stopped: by a signal; the runs were asked to stop, too, and have ended.
            ResourceError: runs failed. The others are done.
        """
        waiting = [run for run in runs if not run.finished]
        running: dict[PlannedRun, tuple[subprocess.Popen[bytes], float]] = {}
        self.logs.mkdir(parents=True, exist_ok=True)
        with StopSignals() as stop:
            try:
                while (waiting or running) and stop.received is None:
                    while len(running) < self.jobs and (run := next_run(waiting, list(running))) is not None:
                        waiting.remove(run)
                        running[run] = (self._start(run), time.monotonic())
                    time.sleep(POLL_SECONDS)
                    for run, (process, since) in list(running.items()):
                        if process.poll() is not None:
                            del running[run]
                            if process.returncode:
                                self.failed.append((run, process.returncode))
                            else:
                                report(run, time.monotonic() - since)
            finally:
                end([process for process, _ in running.values()])
        if stop.received is not None:
            raise stopped(stop.received)
        if self.failed:
            raise ResourceError(self._failures())

    def _start(self, run: PlannedRun) -> subprocess.Popen[bytes]:
        with self._log(run).open("ab") as log:
            return subprocess.Popen(
                arguments("finetune", *run.overrides),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=one_thread(),
                start_new_session=True,  # Ctrl-C is for this process, which passes it on once: twice would be a kill
            )

    def _log(self, run: PlannedRun) -> Path:
        return self.logs / f"{run.task.replace('/', '-')}-{run.arm}-seed{run.seed}.log"

    def _failures(self) -> str:
        lines = [f"  {run}: exit code {code}, see {self._log(run)}" for run, code in self.failed]
        first = command("finetune", *self.failed[0][0].overrides)
        return "\n".join(
            [f"{len(lines)} runs failed; the others are done, launch=false shows them:", *lines, f"One alone: {first}"]
        )


def next_run(waiting: Sequence[PlannedRun], running: Sequence[PlannedRun]) -> PlannedRun | None:
    """Return the first run that would not wait for another one's pre-training, None where all would."""
    busy = {run.pretraining for run in running if not run.online}
    return next((run for run in waiting if run.pretraining not in busy), None)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to stop, and wait until they have."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def stopped(number: signal.Signals) -> Stopped:
    """Return what is raised after a signal."""
    return Stopped(f"stopped by {number.name}, and so are the runs; the same command goes on with them.", number)


def one_thread() -> dict[str, str]:
    """Return the environment of a process that takes one core, whichever library would take more."""
    return {**os.environ, **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}}
