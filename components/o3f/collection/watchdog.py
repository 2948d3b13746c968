"""A limit of time for what cannot be given one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from math import inf


class Watchdog:
    """Calls a function, once, while a block takes longer than it may.

    Args:
        bite: what to call, from another thread.

    Attributes:
        bitten: whether it was called, ever.

    Examples:
        >>> dog = Watchdog(lambda: print("too late"))
        >>> with dog.within(seconds=0.1):
        ...     time.sleep(0.5)
        too late
        >>> dog.close()
    """

    def __init__(self, bite: Callable[[], None]) -> None:
        self._bite = bite
        self._deadline = inf
        self._closed = threading.Event()
        self.bitten = False
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(0.1):
            if time.monotonic() > self._deadline:
                self.bitten, self._deadline = True, inf
                self._bite()

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Watch a block that may take so long."""
        self._deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            self._deadline = inf

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
