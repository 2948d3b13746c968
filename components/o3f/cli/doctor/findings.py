"""What a check found, and how findings are shown."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: ``"note"`` is worth knowing, ``"missing"`` can be had, ``"broken"`` is there and does not work.
        text: what was found.
        todo: what to do about it: a command or a sentence.
    """

    state: State
    text: str
    todo: str = ""


Check = Callable[[], Iterable[Finding]]


def examine(check: Check) -> list[Finding]:
    """Return a check's findings; where it fails, that is the last one, and no other check is the worse for it."""
    found: list[Finding] = []
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # what packages say when they are imported
            found.extend(check())
    except Exception as error:
        told = str(error).strip().splitlines() or ["no message"]
        found.append(Finding("broken", f"{getattr(check, '__name__', 'a check')}: {type(error).__name__}: {told[0]}"))
    return found


def report(core: Mapping[str, Check], others: Mapping[str, Check], say: Callable[[str], None] = print) -> int:
    """Run the checks and print their findings.

    Args:
        core: by heading; what nothing works without.
        others: by heading.
        say: prints a line.

    Returns:
        The exit code: 1 if anything in ``core`` is missing or broken, else 0.
    """
    works = True
    for heading, check in {**core, **others}.items():
        say(heading)
        for finding in examine(check):
            say(f"  {finding.state:8}{finding.text}")
            if finding.todo:
                say(f"  {'':8}-> {finding.todo}")
            works &= heading not in core or finding.state in ("ok", "note")
    say("The core works." if works else "The core does not work: see what is missing or broken above.")
    return 0 if works else 1
