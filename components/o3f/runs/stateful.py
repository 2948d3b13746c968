"""What a checkpoint can store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Stateful(Protocol):
    """Anything with a state: modules, optimisers, learners, samplers, ..."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return tensors, arrays, numbers, strings and nested dicts, lists and tuples of them."""
        ...

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take over such a state."""
        ...


@dataclass(frozen=True)
class StateOf:
    """Gives a getter and a setter the face of a :class:`Stateful`.

    Args:
        get: returns the state.
        set: takes it over (tensordicts come back as plain nested dicts).

    Examples:
        >>> clock = {"step": 3}
        >>> StateOf(lambda: dict(clock), clock.update).state_dict()
        {'step': 3}
    """

    get: Callable[[], Mapping[str, Any]]
    set: Callable[[Any], Any]

    def state_dict(self) -> Mapping[str, Any]:
        """Return the getter's state."""
        return self.get()

    def load_state_dict(self, state_dict: Any) -> None:
        """Pass the state to the setter."""
        self.set(state_dict)
