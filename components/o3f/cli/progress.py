"""Progress on a terminal; in a pipe or a log file only the lines that say something."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A progress bar with the elapsed and the remaining time, for use in a ``with`` block.

    Args:
        title: what is going on.
        total: number of steps.
        done: steps done before, by a run that is resumed.
        enabled: False draws no bar; nor is one drawn where the standard output is not a terminal.

    Examples:
        >>> with Progress("online", total=2, enabled=False) as progress:
        ...     progress.advance()
        ...     progress.say("step 1: return 3.0")
        step 1: return 3.0
    """

    def __init__(self, title: str, total: int, done: int = 0, enabled: bool = True) -> None:
        self._console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
        self._drawn = enabled and self._console.is_terminal
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._drawn,
        )
        self._task = self._bar.add_task(title, total=total, completed=done)

    def advance(self, steps: int = 1) -> None:
        """Count steps done."""
        if self._drawn:
            self._bar.advance(self._task, steps)

    def say(self, line: str) -> None:
        """Print a line, above the bar."""
        self._console.print(line)
        self._console.file.flush()

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class Stopwatch:
    """Rates of work over wall-clock time, without the pauses.

    Examples:
        >>> clock = Stopwatch()
        >>> with clock.paused():
        ...     pass
        >>> clock.rate(100) > 0
        True
    """

    def __init__(self) -> None:
        self._since = time.monotonic()

    def rate(self, count: int) -> float:
        """Return ``count`` over the seconds since the last call (or the start), and start anew."""
        before, self._since = self._since, time.monotonic()
        return count / max(self._since - before, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the block's time out."""
        start = time.monotonic()
        yield
        self._since += time.monotonic() - start
