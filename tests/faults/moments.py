"""A signal that a process sends to itself at a chosen moment."""

from __future__ import annotations

import importlib
import os
import random
import threading
from typing import Any

#: The n-th call of a function (one of a step, of a save, of a log ...), or so many seconds from now.
Moment = tuple[str, str, int] | float


def arm(moment: Moment, number: int) -> None:
    """Send the signal to this process when the moment has come."""
    if isinstance(moment, float):
        threading.Timer(moment, os.kill, (os.getpid(), number)).start()
        return
    module, name, count = moment
    owner, calls = importlib.import_module(module), iter(range(1, 10**9))
    *path, last = name.split(".")
    for each in path:
        owner = getattr(owner, each)
    original = getattr(owner, last)

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == count:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, last, counted)


def random_moment(draw: random.Random, seconds: float) -> Moment:
    """A moment of a run that takes so many seconds, half of them within a save."""
    moments: list[Moment] = [
        draw.uniform(0.0, seconds),
        ("o3f.cli.signals", "StopSignals.check", draw.randint(1, 90)),
        ("o3f.runs.checkpoint", draw.choice(["publish", "write_text", "_prune", "_coordinator"]), draw.randint(1, 3)),
        ("os", draw.choice(["fsync", "replace"]), draw.randint(1, 20)),
        ("o3f.runs.files", "AppendFile.write", draw.randint(1, 12)),
        ("o3f.training.reporting", "evaluate", draw.randint(1, 3)),
    ]
    return draw.choice([*moments[:3], *moments])
