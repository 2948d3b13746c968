"""SIGTERM and SIGINT: the first one ends a run after the step at hand, the second one at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, ClassVar

from o3f.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Remembers the first signal of a ``with`` block; a second one ends the process there and then.

    Blocks may be nested (fine-tuning may pre-train first): the signal is for all of them. Does nothing outside the
    main thread, where Python does not let signals be handled.

    Attributes:
        received: the signal, or None as long as there was none.

    Examples:
        >>> with StopSignals() as stop:
        ...     stop.check(step=1, saved=0)
        ...     stop.received is None
        True
    """

    received: signal.Signals | None = None
    _open: ClassVar[list[StopSignals]] = []
    _before: ClassVar[dict[signal.Signals, Any]] = {}

    def check(self, step: int, saved: int) -> None:
        """End the run where a signal asks for it; call it between two steps.

        Args:
            step: the last one done.
            saved: step of the newest checkpoint, which the next process goes on from.

        Raises:
            Stopped: there was a signal.
        """
        if self.received is not None:
            again = f"; {step - saved} steps after it will be done again" if step > saved else ""
            raise Stopped(
                f"stopped by {self.received.name} after step {step}. The same command goes on from"
                f" {f'the checkpoint of step {saved}' if saved else 'the start'}{again}.",
                self.received,
            )

    @classmethod
    def check_all(cls, step: int, saved: int) -> None:
        """:meth:`check` all open blocks, for code that is within them but does not know them."""
        for each in cls._open:
            each.check(step, saved)

    @classmethod
    def _handle(cls, number: int, _: FrameType | None) -> None:
        if any(each.received is not None for each in cls._open):
            os._exit(128 + number)
        for each in cls._open:
            each.received = signal.Signals(number)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            if self._open:
                self.received = self._open[0].received
            self._open.append(self)
            if len(self._open) == 1:
                self._before.update({number: signal.signal(number, self._handle) for number in _SIGNALS})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in self._open:
            self._open.remove(self)
            for number, handler in () if self._open else self._before.items():
                signal.signal(number, handler)
