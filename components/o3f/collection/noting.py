"""What a worker's environment raises, for the process of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from o3f.envs.wrappers import Env, Reset, Step, Wrapper
from o3f.errors import ActionError, EnvironmentFailure

_KNOWN = {error.__name__: error for error in (ActionError, EnvironmentFailure)}


class Noting(Wrapper):
    """Writes what an environment raises into a file, because no process can raise anything in another one."""

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
            yield
        except Exception as error:
            self.file.write_text(f"{type(error).__name__}\n{error}", encoding="utf-8")
            raise


def raise_noted(folder: Path) -> None:
    """Raise what a worker's environment has raised, if any did: our own errors as such, others as RuntimeError."""
    for file in sorted(folder.iterdir()):
        kind, _, message = file.read_text(encoding="utf-8").partition("\n")
        raise _KNOWN[kind](message) if kind in _KNOWN else RuntimeError(f"worker {file.name}: {kind}: {message}")
