"""The runs of a figure as Hydra multiruns, on whatever machines a launcher has."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

from o3f.cli.commands import arguments
from o3f.cli.signals import StopSignals
from o3f.errors import ResourceError
from o3f.figures.launch import POLL_SECONDS, end, stopped
from o3f.figures.plan import PlannedRun


def sweeps(runs: Sequence[PlannedRun]) -> list[list[str]]:
    """Return the overrides of as few multiruns as there are different settings, each over tasks and seeds.

    Args:
        runs: finished ones are left out, unless another task of theirs lacks that seed: they end at once.
    """
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for run in runs:
        if not run.finished:
            swept = dict(part.split("=", 1) for part in run.overrides if part.startswith(("task=", "seed=")))
            fixed = tuple(part for part in run.overrides if not part.startswith(("task=", "seed=")))
            values = groups.setdefault(fixed, {"task": [], "seed": []})
            for name, value in swept.items():
                values[name] += [value] if value not in values[name] else []
    return [
        [*fixed, *(f"{name}={','.join(each)}" for name, each in values.items())] for fixed, values in groups.items()
    ]


def complete_by_launcher(
    runs: Sequence[PlannedRun], launcher: str, settings: Sequence[str], report: Callable[[], None]
) -> None:
    """Start what is missing, an arm after the other, its tasks and seeds wherever the launcher takes them.

    Args:
        runs: finished ones are left alone.
        launcher: of ``conf/launcher``.
        settings: more overrides, for example ``hydra.launcher.partition=short``.
        report: called after each multirun.

    Raises:
        Stopped: by a signal, which the multirun was sent, too.
        ResourceError: runs failed. The others are done.
    """
    failed = 0
    for overrides in sweeps(runs):
        with StopSignals() as stop:
            call = arguments("finetune", *overrides, f"launcher={launcher}", *settings, "-m")
            process = subprocess.Popen(call, start_new_session=True)
            try:
                while stop.received is None and process.poll() is None:
                    time.sleep(POLL_SECONDS)
            finally:
                end([process] if process.poll() is None else [])
        if stop.received is not None:
            raise stopped(stop.received)
        failed += process.returncode != 0
        report()
    if failed:
        raise ResourceError(f"{failed} multiruns ended with errors, see above; the same command does what is missing.")
