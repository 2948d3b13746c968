"""Errors meant for the person who runs a recipe: one message, no stack trace, a documented exit code.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | any other error |
| 2 | configuration: unknown key, value out of range, another config in the same run folder |
| 3 | checkpoint: none readable, or it does not fit the objects to restore |
| 4 | resources: memory, disk space, a run folder in use by another process |
| 130 | interrupted from the keyboard |
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
