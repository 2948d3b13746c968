"""What a worker's environment raises and warns of, for the process of the run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from o3f.envs.wrappers import Env, Reset, Step, Wrapper
from o3f.errors import ActionError, EnvironmentFailure

_KNOWN = {error.__name__: error for error in (ActionError, EnvironmentFailure)}
_WARNINGS, _END = ".warnings", "\0"


class Noting(Wrapper):
    """Writes what an environment raises and warns of into files, because no process can do so in another one.

    The process of a worker then ends without a trace of its own: the process of the run says what happened.
    """

    def __init__(self, env: Env, file: Path) -> None:
        super().__init__(env)
        self.file = file

    def step(self, action: Any) -> Step:
        """Step."""
        with self._noting():
            return self.env.step(action)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Reset."""
        with self._noting():
            return self.env.reset(seed=seed, options=options)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            with noting_warnings(self.file):
                yield
        except Exception as error:
            note_error(self.file, error, str(error))
            raise SystemExit(1) from error


@contextlib.contextmanager
def noting_warnings(file: Path) -> Iterator[None]:
    """Append the warnings of the block to ``file`` with the suffix ``.warnings``."""
    with warnings.catch_warnings(record=True) as caught:
        for kind in (RuntimeWarning, UserWarning):  # TorchRL turns all of them off in its workers
            warnings.simplefilter("always", kind)
        try:
            yield
        finally:
            if caught:
                with file.with_suffix(_WARNINGS).open("a", encoding="utf-8") as notes:
                    notes.writelines(f"{warning.message}{_END}" for warning in caught)


@contextlib.contextmanager
def noting_making(file: Path) -> Iterator[None]:
    """Note that an environment could not be made, and why."""
    try:
        with noting_warnings(file):
            yield
    except Exception as error:
        what = (
            f"The environment of worker {file.name}: {error}\nThe one that the run looks at first, in its own process,"
            " could. If a simulator needs a port, a licence, a display or a device for itself alone, use"
            " collector=single, or num_workers=1."
        )
        note_error(file, EnvironmentFailure(), what)
        raise


def note_error(file: Path, error: Exception, message: str) -> None:
    """Write the kind of an error and its message."""
    file.write_text(f"{type(error).__name__}\n{message}", encoding="utf-8")


def warn_noted(folder: Path) -> None:
    """Give the warnings that workers' environments have given since the last time."""
    for file in sorted(folder.glob(f"*{_WARNINGS}")):
        told = file.read_text(encoding="utf-8").split(_END)[:-1]
        file.unlink()
        for message in told:
            warnings.warn(f"Worker {file.stem}: {message}", RuntimeWarning, stacklevel=3)


def raise_noted(folder: Path) -> None:
    """Raise what a worker's environment has raised, if any did: our own errors as such, others as RuntimeError."""
    for file in sorted(file for file in folder.iterdir() if file.suffix != _WARNINGS):
        kind, _, message = file.read_text(encoding="utf-8").partition("\n")
        raise _KNOWN[kind](message) if kind in _KNOWN else RuntimeError(f"worker {file.name}: {kind}: {message}")
