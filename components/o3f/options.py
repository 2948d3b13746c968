"""Checks of what a user configures, with the nearest names and the allowed range in the message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from o3f.errors import ConfigError


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
        require(name in known, f"{where}: {name!r} is not known.{did_you_mean(str(name), known)}")


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
