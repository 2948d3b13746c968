"""What a checkpoint can store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
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


def as_stateful(component: Stateful | MutableMapping[str, Any]) -> Stateful:
    """Return ``component`` itself, or the face of a :class:`Stateful` for a plain dict (of counters, say).

    Examples:
        >>> counters = {"step": 3}
        >>> as_stateful(counters).load_state_dict({"step": 5})
        >>> counters
        {'step': 5}
    """
    if not isinstance(component, dict):
        return component  # type: ignore[return-value]

    def replace(state: Mapping[str, Any]) -> None:
        component.clear()
        component.update(state)

    return StateOf(lambda: dict(component), replace)
