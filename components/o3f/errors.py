"""Errors meant for the person who runs a recipe: one message, no stack trace, a documented exit code.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | any other error; a sweep with failed runs; a checkpoint that could not be saved three times in a row |
| 2 | configuration: unknown key, value out of range, another config in the same run folder |
| 3 | checkpoint: none readable, or it does not fit the objects to restore |
| 4 | resources: memory, disk space, a run folder in use by another process |
| 5 | diverged |
| 130, 143 | stopped by SIGINT (Ctrl-C), SIGTERM |
"""

from __future__ import annotations


class ConfigError(ValueError):
    """The configuration cannot be used as given."""

    exit_code = 2


class CheckpointError(RuntimeError):
    """No checkpoint can be restored."""

    exit_code = 3


class ResourceError(RuntimeError):
    """Something needed is exhausted or in use by another process."""

    exit_code = 4


class SaveError(RuntimeError):
    """Checkpoints cannot be saved any more."""

    exit_code = 1


class ActionError(ValueError):
    """A policy gave an action that no environment may receive: NaN, or out of bounds."""

    exit_code = 5


class DivergenceError(RuntimeError):
    """The numbers of a run leave what can be right."""

    exit_code = 5


class EnvironmentFailure(RuntimeError):
    """An environment failed too often."""

    exit_code = 1


class EvaluationError(RuntimeError):
    """There is no score, because an environment failed; training can go on."""

    exit_code = 1


class ExportError(RuntimeError):
    """An exported policy does not act as the run does; nothing was written."""

    exit_code = 1


class Stopped(KeyboardInterrupt):
    """A signal asked the run to end; no ``Exception``, so that a sweep ends with its run.

    Args:
        message: what was done, and how to go on.
        number: of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number
