"""The jobs of a sweep, in whatever process a launcher runs them: what they print, and how they ended.

A job writes ``<number>.json`` into the sweep's folder when it begins and when it ends, and, where it runs in a process
of its own, what it prints into ``<number>.log``. The files need a disk that all jobs see, and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from o3f.cli.messages import exit_code, report, words
from o3f.errors import Stopped, require
from o3f.runs.files import read_json, write_text
from o3f.runs.identity import plain, run_path

#: Package and extra of each launcher that is not Hydra's own.
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "sweep"),
    "submitit": ("hydra_plugins.hydra_submitit_launcher", "sweep"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "sweep"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray-sweep"),
}


class SweepFolder(Callback):
    """Hydra's callback that remembers, in the process of the command, where the sweep's files are.

    Attributes:
        path: the folder; None before a sweep.
    """

    path: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder; make it."""
        SweepFolder.path = Path(config.hydra.sweep.dir)
        SweepFolder.path.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class Command:
    """The command line of a sweep.

    Attributes:
        arguments: as given.
        process: its id.
    """

    arguments: tuple[str, ...]
    process: int

    def swept(self, overrides: Sequence[str]) -> str:
        r"""Return those of a job's overrides that are not on the command line word for word.

        Examples:
            >>> command = Command(("task=custom", "seed=0,1", "name=a${seed}"), process=1)
            >>> command.swept(["task=custom", "seed=1", r"name=a$\{seed\}"])
            'seed=1'
        """
        given = {_bare(argument) for argument in self.arguments}
        return " ".join(override for override in overrides if _bare(override) not in given)


@dataclass
class Outcome:
    """How a job ended.

    Attributes:
        job: its number.
        overrides: what tells it from the others.
        folder: of its run, empty for a recipe without one.
        log: file with what it printed, empty where that went to the terminal.
        code: exit code; None as long as it runs, and after it was killed.
        error: the first line.
    """

    job: int
    overrides: str
    folder: str = ""
    log: str = ""
    code: int | None = None
    error: str = "ended without a word: killed, or the machine's memory was full"


def run_job(job: Callable[[DictConfig], object], config: DictConfig, command: Command) -> None:
    """Run a job of a sweep. An error is reported and written down, not raised: the other jobs go on.

    Args:
        job: the work.
        config: of the job.
        command: that started the sweep.

    Raises:
        ConfigError: the job asks for another launcher than the one that started it.
        Stopped: by a signal, in the process of the command.
    """
    hydra = HydraConfig.get()
    require(
        SweepFolder.path in (None, Path(hydra.sweep.dir)),
        f"launcher={hydra.runtime.choices.get('launcher')} comes from a file that is chosen for each run by itself"
        f" ({command.swept(hydra.overrides.task)}), after the sweep was launched: name it on the command line, too.",
    )
    stem, elsewhere = Path(hydra.sweep.dir, str(hydra.job.num)), os.getpid() != command.process
    outcome = Outcome(int(hydra.job.num), command.swept(hydra.overrides.task), _folder(config))
    outcome.log = f"{stem}.log" if elsewhere else ""
    _write(stem, outcome)
    with printing_to(outcome.log):
        try:
            job(config)
            outcome.code, outcome.error = 0, ""
        except Exception as error:
            outcome.code, outcome.error = exit_code(error), words(error).splitlines()[0]
            report(error, prefix=outcome.overrides)
        except Stopped as stop:
            if not elsewhere:
                raise
            outcome.code, outcome.error = stop.exit_code, str(stop)
            print(stop, file=sys.stderr)
    _write(stem, outcome)
    if elsewhere:
        print(f"[{outcome.overrides}] {outcome.error or 'done'}; {outcome.log}", flush=True)


def outcomes(folder: Path) -> list[Outcome]:
    """Return what the jobs of a sweep have written, by number."""
    found = [Outcome(**read_json(file)) for file in folder.glob("*.json")]
    return sorted(found, key=lambda outcome: outcome.job)


def report_sweep(found: Sequence[Outcome]) -> int:
    """Print a table of the jobs that failed.

    Returns:
        The exit code, 0 where none did.
    """
    failed = [outcome for outcome in found if outcome.code != 0]
    if not failed:
        return 0
    print(
        f"{len(failed)} of {len(found)} runs of the sweep failed; the same command does these again and no other:",
        file=sys.stderr,
    )
    width = max(len(outcome.overrides) for outcome in failed)
    for outcome in failed:
        code = "" if outcome.code is None else f"exit code {outcome.code}: "
        print(f"  job {outcome.job}  {outcome.overrides:{width}}  {code}{outcome.error}", file=sys.stderr)
        places = {"run folder": outcome.folder, "log": outcome.log}
        if where := ", ".join(f"{what} {place}" for what, place in places.items() if place):
            print(f"    {where}", file=sys.stderr)
    return 1


def missing_launcher(arguments: Sequence[str]) -> str | None:
    """Say how to install what a command line's launcher needs; None where nothing is missing."""
    chosen = dict(argument.split("=", 1) for argument in arguments if "=" in argument).get("launcher", "")
    module, extra = LAUNCHERS.get(chosen, ("", ""))
    if not module or (importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(module)):
        return None
    return f'launcher={chosen} needs a package that is not installed. Try: pip install "o3f[{extra}]"'


@contextlib.contextmanager
def printing_to(file: str) -> Iterator[None]:
    """Send what this process and its children print to the end of a file; to where it went before if empty."""
    if not file:
        yield
        return
    streams = {1: sys.stdout, 2: sys.stderr}
    saved = {number: os.dup(number) for number in streams}
    try:
        with Path(file).open("ab", buffering=0) as log:
            for number, stream in streams.items():
                stream.flush()
                os.dup2(log.fileno(), number)
        yield
    finally:
        for number, stream in streams.items():
            stream.flush()
            os.dup2(saved[number], number)
            os.close(saved[number])


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is at hand is put in order, and launchers take processes along.

    A training run has an answer of its own, :class:`~o3f.cli.signals.StopSignals`.
    """

    def stop(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise Stopped(f"stopped by {name}; a run goes on from its last checkpoint with the same command.", number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _bare(override: str) -> str:
    """The same text for an override as it was typed and as Hydra hands it on."""
    return override.replace("\\", "").replace(" ", "")


def _folder(config: DictConfig) -> str:
    with contextlib.suppress(Exception):  # the configuration may be what is wrong, or have no run
        return str(run_path(plain(config)))
    return ""


def _write(stem: Path, outcome: Outcome) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_text(stem.with_name(f"{stem.name}.json"), json.dumps(asdict(outcome)))
