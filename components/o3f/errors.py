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

import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class O3FError(Exception):
    """Something that the person at the command line can mend: its message is for them, and shown without a trace."""

    exit_code: int = 1


class ConfigError(O3FError, ValueError):
    """The configuration cannot be used as given."""

    exit_code = 2


class CheckpointError(O3FError, RuntimeError):
    """No checkpoint can be restored."""

    exit_code = 3


class ResourceError(O3FError, RuntimeError):
    """Something needed is exhausted or in use by another process."""

    exit_code = 4


class SaveError(O3FError, RuntimeError):
    """Checkpoints cannot be saved any more."""

    exit_code = 1


class ActionError(O3FError, ValueError):
    """A policy gave an action that no environment may receive: NaN, or out of bounds."""

    exit_code = 5


class DivergenceError(O3FError, RuntimeError):
    """The numbers of a run leave what can be right."""

    exit_code = 5


class EnvironmentFailure(O3FError, RuntimeError):
    """An environment failed too often."""

    exit_code = 1


class EvaluationError(O3FError, RuntimeError):
    """There is no score, because an environment failed; training can go on."""

    exit_code = 1


class ExportError(O3FError, RuntimeError):
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


def require(condition: bool, message: str) -> None:
    """Raise :class:`~o3f.errors.ConfigError` with ``message`` unless ``condition`` holds.

    Examples:
        >>> require(256 <= 1000, "batch_size must not exceed the buffer's size.")
    """
    if not condition:
        raise ConfigError(message)


def require_range(config: Mapping[Any, Any], key: str | Sequence[str], interval: str, *, integer: bool = False) -> None:
    """Raise :class:`~o3f.errors.ConfigError` unless the number at ``key`` lies in ``interval``.

    Args:
        config: nested configuration.
        key: dotted, or its parts where one of them has a dot.
        interval: as written in mathematics: ``(0, 1)``, ``[0, inf)``, ...
        integer: whether it must be a whole number.

    Examples:
        >>> require_range({"algorithm": {"expectile": 1.5}}, "algorithm.expectile", "(0, 1)")
        Traceback (most recent call last):
        ...
        o3f.errors.ConfigError: algorithm.expectile must be a number in (0, 1), found 1.5.
    """
    value: Any = config
    for part in key.split(".") if isinstance(key, str) else key:
        value = value[part]
    key = key if isinstance(key, str) else ".".join(key)
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    kind = "whole number" if integer else "number"
    fits = isinstance(value, int if integer else (int, float)) and not isinstance(value, bool)
    fits = fits and (low <= value if interval[0] == "[" else low < value)
    fits = fits and (value <= high if interval[-1] == "]" else value < high)
    require(fits, f"{key} must be a {kind} in {interval}, found {value!r}.")


def number(name: str, value: Any, interval: str = "(-inf, inf)") -> float:
    """Return ``value`` as a float: a number of Python, numpy or torch, not a text or a list that holds one.

    Args:
        name: said in the message.
        value: what was given.
        interval: as of :func:`require_range`.

    Raises:
        ConfigError: (a ValueError) if it is none, or not in the interval.

    Examples:
        >>> number("expectile", 0.7, "(0, 1)")
        0.7
        >>> number("expectile", "high", "(0, 1)")
        Traceback (most recent call last):
        ...
        o3f.errors.ConfigError: expectile must be a number in (0, 1), found 'high'.
    """
    # Arrays and tensors of one number say it; neither package is imported for that.
    plain = value.item() if getattr(value, "shape", None) in ((), (1,)) else value
    require_range({name: plain}, (name,), interval)
    return float(plain)


def check_device(name: Any) -> None:
    """Raise :class:`~o3f.errors.ConfigError` unless torch can hold a tensor on a device of that name here.

    Examples:
        >>> check_device("cpu")
    """
    import torch  # here, because it takes seconds, and messages should not

    try:
        if name is None or torch.empty(1, device=name).is_meta:
            raise TypeError("expected cpu, cuda or cuda:NUMBER")
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ConfigError(f"device={name} cannot be used here: {first_lines(error, 1)}") from error


def check_keys(given: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Raise :class:`~o3f.errors.ConfigError` unless every name in ``given`` is in ``known``.

    Examples:
        >>> check_keys({"expectle": 0.8}, ["discount", "expectile"], "algorithm")
        Traceback (most recent call last):
        ...
        o3f.errors.ConfigError: algorithm: 'expectle' is not known. Did you mean expectile?
    """
    known = list(known)
    for name in given:
        if name not in known:  # what is near is looked for only then, for that takes tens of milliseconds
            raise ConfigError(f"{where}: {name!r} is not known.{did_you_mean(str(name), known)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean a or b?"`` with the nearest names, or all names where none is near.

    Dotted names are compared by their last part, too.

    Examples:
        >>> did_you_mean("expectle", ["algorithm.expectile", "seed"])
        ' Did you mean algorithm.expectile?'
        >>> did_you_mean("xyz", ["seed", "task"])
        ' There are: seed, task.'
    """

    def likeness(option: str) -> float:
        tails = name.rpartition(".")[2], option.rpartition(".")[2]
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in ((name, option), tails))

    ranked = sorted(known, key=likeness, reverse=True)
    near = [option for option in ranked[:3] if likeness(option) >= 0.7]
    return f" Did you mean {' or '.join(near)}?" if near else f" There are: {', '.join(sorted(ranked))}."


def first_lines(error: object, count: int = 3) -> str:
    r"""Return the beginning of a text that may go on for pages, as those of mismatched tensors do.

    Examples:
        >>> first_lines("a\nb\nc", 2)
        'a\nb ...'
    """
    lines = [line[:300] for line in str(error).splitlines()]
    return "\n".join(lines[:count]) + (" ..." if len(lines) > count else "")


def optional(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its name.
        extra: the extra of this package that brings it.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} cannot be imported ({error}). Try: pip install "o3f[{extra}]"') from error
