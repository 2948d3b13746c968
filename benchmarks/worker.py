"""A worker process: builds one workload of one contender, then measures a case of it whenever it is asked.

``python worker.py FILE PACKAGE WORKLOAD OPTIONS`` speaks JSON lines: it says which cases it has, then answers each
``{"case": NAME, "seconds": S}`` with the steps done and the time they took, until its input ends. It imports the
standard library alone, so that a contender may have an interpreter of its own; whatever else a contender prints
goes to stderr. A contender is a module with ``WORKLOADS``: by name, a function of the options that returns the
cases, each a function that does some steps and returns how many.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_SECONDS = 0.3
WARM_CALLS = 2


def measure(step: Callable[[], int], seconds: float, calls: int = 1) -> dict[str, float]:
    """Call ``step`` at least ``calls`` times and for so many seconds; CPU time is that of the whole process."""
    done, steps = 0, 0
    wall, cpu = time.perf_counter(), time.process_time()
    while done < calls or time.perf_counter() - wall < seconds:
        steps += step()
        done += 1
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_ms": 1e3 * cpu / steps, "wall_ms": 1e3 * wall / steps, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """The largest resident size of this process so far; getrusage would count the parent's, from before the exec."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def main() -> None:
    """Serve the parent's questions."""
    file, package, workload, options = sys.argv[1:]
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=channel, flush=True)

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    if importlib.util.find_spec(package) is None:
        answer(missing=package)
        return
    cases = importlib.import_module(f"benchmarks.{file}").WORKLOADS[workload](**json.loads(options))
    for step in cases.values():
        measure(step, WARM_SECONDS, WARM_CALLS)
    answer(cases=list(cases))
    for line in sys.stdin:
        question = json.loads(line)
        answer(**measure(cases[question["case"]], question["seconds"]))


if __name__ == "__main__":
    main()
