"""Messages and exit codes for what goes wrong in a recipe."""

from __future__ import annotations

import contextlib
import errno
import linecache
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf

from o3f.cli.keys import keys_of
from o3f.errors import did_you_mean, first_lines

_COMPOSITION = (HydraException, yaml.YAMLError)
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)


def report(error: Exception, explanation: str | None = None, *, prefix: str = "") -> int:
    """Print one message on the standard error; the stack trace of what looks like a defect goes into a file.

    Args:
        error: what was raised.
        explanation: printed instead of the error's own words.
        prefix: names the job of a sweep.

    Returns:
        The exit code, see :mod:`o3f.errors`.
    """
    code = exit_code(error)
    told = explanation or (fault(error) if code == 1 and not _is_message(error) else words(error))
    print(f"error: {f'[{prefix}] ' if prefix else ''}{told}", file=sys.stderr)
    return code


def fault(error: Exception) -> str:
    """Return what is said of an error that nobody expected; its stack trace goes into a file."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((each for each in reversed(frames) if "site-packages" not in each.filename), frames[-1])
    said = f"{type(error).__name__}: {first_lines(words(error))}, at {frame.filename}:{frame.lineno}."
    trace = "".join(traceback.format_exception(error))
    try:
        descriptor, file = tempfile.mkstemp(prefix="o3f-fault-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8") as written:
            written.write(trace)
    except OSError:
        return f"{said}\n{trace}"
    return f"{said}\nUnless that is code of your own, it is a fault of o3f: please report it, with {file}."


def end_output(code: int) -> int:
    """Write what is left for the standard output; return the exit code, another one than 0 where that fails."""
    try:
        sys.stdout.flush()
    except OSError as error:  # a full disk, or a pipe whose reader has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python would try again, and complain
        print(f"error: the standard output cannot be written: {error}", file=sys.stderr)
        return code or exit_code(error)
    return code


def exit_code(error: Exception) -> int:
    """Return the exit code that stands for ``error``."""
    if isinstance(error, _COMPOSITION):
        return 2
    # torch's error is known by its name: importing torch takes seconds, and most messages come without it.
    exhausted = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if exhausted or "can't allocate memory" in str(error):
        return 4
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        return 4
    return int(getattr(error, "exit_code", 1))


def explain_overrides(arguments: Sequence[str], folder: Path, config_name: str) -> str | None:
    """Name the first override of a command line that fits nothing, and what it may have meant.

    Args:
        arguments: the command line without the program's name.
        folder: the folder of configurations.
        config_name: the primary configuration.

    Returns:
        None where every key and every choice of a group exists, so that the trouble is another.
    """
    pairs = [argument.partition("=")[::2] for argument in arguments if "=" in argument]
    pairs = [(key, value) for key, value in pairs if key[:1].isalpha() and key.split(".")[0] != "hydra"]
    groups = {key: value for key, value in pairs if (folder / key).is_dir()}
    folders = [folder, *_own_folders(arguments)]
    for group, value in groups.items():
        found = [(each / group, file) for each in folders for file in (each / group).rglob("*.yaml")]
        choices = sorted(file.relative_to(top).with_suffix("").as_posix() for top, file in found)
        for choice in value.split(","):
            if choice not in choices:
                return f"{group}={choice}: no such choice.{did_you_mean(choice, choices)}"
    known = _known_keys(folder, config_name, [f"{group}={value.split(',')[0]}" for group, value in groups.items()])
    for key, _ in pairs:
        if known and key not in known and key not in groups:
            keys = keys_of(folder, config_name)
            if keys is not None and keys.elsewhere(key):
                return f"{key}: {config_name} does not read it, another recipe does; leave it out."
            added = f" +{key}=... adds it." if keys is not None and key not in keys.known and keys.reads(key) else ""
            return f"{key}: no such key.{added or did_you_mean(key, known)}"
    return None


def _own_folders(arguments: Sequence[str]) -> list[Path]:
    """The folders of configurations that a command line adds."""
    following = zip(arguments, [*arguments[1:], ""], strict=False)
    dashes = ("--config-dir", "-cd")
    named = [after if option in dashes else option.removeprefix("--config-dir=") for option, after in following]
    return [Path(name) for name in named if Path(name).is_dir()]


def _known_keys(folder: Path, config_name: str, groups: list[str]) -> list[str]:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(folder)):
            config = OmegaConf.to_container(compose(config_name, overrides=groups))
    except _COMPOSITION:
        return []
    return sorted(_names(config))


def _names(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{key}"
        yield from _names(value, f"{prefix}{key}.")


def words(error: Exception) -> str:
    """Return what an error says, without the name of its class where it says something."""
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: {str(error).splitlines()[0]}{quoted_form(error.override or '')}"
    words = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    cause = f"\n{error.__cause__}" if isinstance(error, HydraException) and error.__cause__ else ""
    return (words or type(error).__name__) + cause


def quoted_form(override: str) -> str:
    r"""Return how a text that Hydra's grammar has not, a path for example, is given; empty where quotes do not help.

    Examples:
        >>> quoted_form("dataset.path=data/a=1.npz")
        '\nIf the value is this text: \'dataset.path="data/a=1.npz"\''
    """
    key, _, value = override.partition("=")
    quoted = f'{key}="{value}"'
    with contextlib.suppress(HydraException):
        if OverridesParser.create().parse_override(quoted).value() == value:
            return f"\nIf the value is this text: {shlex.quote(quoted)}"
    return ""


def _is_message(error: Exception) -> bool:
    """Whether the text is meant for the user: a file error, or raised as such by this project's own code."""
    if isinstance(error, OSError):
        return True
    frame = list(traceback.walk_tb(error.__traceback__))[-1]
    ours = frame[0].f_globals.get("__name__", "").partition(".")[0] in ("o3f", "recipes", "__main__")
    return ours and linecache.getline(frame[0].f_code.co_filename, frame[1]).lstrip().startswith("raise ")
