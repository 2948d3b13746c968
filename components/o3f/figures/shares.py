"""A recipe that takes several run folders, at work on them in several processes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from o3f.cli.commands import arguments
from o3f.cli.signals import StopSignals
from o3f.errors import ResourceError
from o3f.figures.launch import POLL_SECONDS, end, one_thread, stopped


def in_shares(recipe: str, folders: Sequence[Path], overrides: Sequence[str], jobs: int) -> None:
    """Call a recipe with ``run=[...]``, each process with its share of the folders.

    Args:
        recipe: its name.
        folders: of runs.
        overrides: the other settings.
        jobs: processes at a time.

    Raises:
        Stopped: by a signal; the processes have ended.
        ResourceError: one failed; what it said stands above.
    """
    shares = [share for job in range(jobs) if (share := [folder.as_posix() for folder in folders[job::jobs]])]
    running: list[subprocess.Popen[bytes]] = []
    with StopSignals() as stop:
        try:
            for share in shares:
                call = arguments(recipe, f"run={share}", *overrides)
                running.append(
                    subprocess.Popen(call, stdout=subprocess.DEVNULL, env=one_thread(), start_new_session=True)
                )
            while stop.received is None and any(process.poll() is None for process in running):
                time.sleep(POLL_SECONDS)
        finally:
            end([process for process in running if process.poll() is None])
    if stop.received is not None:
        raise stopped(stop.received)
    if failed := sum(process.returncode != 0 for process in running):
        raise ResourceError(f"{failed} processes of {recipe} failed, see above; the same command does them again.")
