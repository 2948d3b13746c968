"""The parent's side of a worker: start it, ask it, and keep what it said when it fails."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Worker:
    """One contender with one workload, in a process of its own.

    Args:
        settings: the contender's ``file``, ``package``, ``python`` and ``options``.
        workload: what it shall build.
    """

    def __init__(self, settings: Any, workload: str) -> None:
        self.state = "started"
        self.reason = ""
        self.cases: list[str] = []
        self.answers: dict[str, list[dict[str, float]]] = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (a pipe that nobody reads would stop it)
        program = [settings["python"] or sys.executable, str(Path(__file__).with_name("worker.py"))]
        given = [settings["file"], settings["package"], workload, json.dumps(settings["options"])]
        try:
            self._process: Any = subprocess.Popen(
                [*program, *given],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=os.environ | ONE_THREAD,
            )
        except OSError as error:
            self._process = None
            self.fail(str(error))

    def wait_until_warm(self) -> None:
        """Read which cases it has, or that its package is missing."""
        answer = self._read()
        if "missing" in answer:
            self.state, self.reason = "not installed", answer["missing"]
        elif answer:
            self.state, self.cases = "measured", answer["cases"]
            self.answers = {case: [] for case in self.cases}

    def ask(self, case: str, seconds: float) -> None:
        """Measure a case once more, unless the worker has failed."""
        if self.state != "measured":
            return
        with contextlib.suppress(BrokenPipeError):  # the missing answer tells
            print(json.dumps({"case": case, "seconds": seconds}), file=self._process.stdin, flush=True)
        answer = self._read()
        if answer:
            self.answers[case].append(answer)

    def fail(self, reason: str) -> None:
        """Take it out of the contest."""
        self.state, self.reason, self.cases = "failed", reason, []

    def close(self) -> None:
        """End its input, and with that the process."""
        if self._process is not None:
            self._process.communicate()
        self._errors.close()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()

    def _read(self) -> dict[str, Any]:
        line = "" if self._process is None else self._process.stdout.readline()
        if line:
            return dict(json.loads(line))
        if self._process is not None:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip()
            self.fail(said.splitlines()[-1] if said else f"exit code {self._process.returncode}")
        return {}
