"""What a run has done so far, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class Counters:
    """What a run counts; a checkpoint holds it.

    Attributes:
        step: at hand, or the last one done.
        saved: step of the newest checkpoint.
        episode: how many episodes have ended.
        starts: how often the processes of several environments were started.
        failures: how often an environment failed in a step.
        failures_in_a_row: since the last episode that ended by itself.

    Examples:
        >>> counters = Counters(step=3, failures=1)
        >>> counters.load_state_dict({"step": 5, "saved": 4})
        >>> counters.step, counters.saved, counters.failures
        (5, 4, 0)
    """

    step: int = 0
    saved: int = 0
    episode: int = 0
    starts: int = 0
    failures: int = 0
    failures_in_a_row: int = 0

    def state_dict(self) -> dict[str, int]:
        """Return the numbers by their names."""
        return asdict(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over saved numbers; what an older checkpoint does not have is 0."""
        for field in fields(self):
            setattr(self, field.name, int(state_dict.get(field.name, 0)))
