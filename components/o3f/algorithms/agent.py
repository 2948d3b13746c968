"""The networks of an agent, from wherever they come."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Agent:
    """A policy, and what there is beside it.

    Args:
        policy: writes ``action`` ``[*B, A]`` in [-1, 1], with ``get_dist`` and a ``spec``; a
            ``ProbabilisticActor``.
        critic: an :class:`~o3f.modules.EnsembleQValue` or a :class:`~o3f.modules.GenericEnsemble`.
        value: V(s), writes ``state_value`` ``[*B, 1]``.
        temperature: α, the weight of the entropy in soft actor-critic and CQL.
        origin: where it comes from, for messages.
    """

    policy: Any
    critic: Any = None
    value: Any = None
    temperature: float | None = None
    origin: str = "networks"


def fill_missing(drawn: Agent, given: Agent | None) -> Agent:
    """Return the parts of ``given`` where it has them, else those of ``drawn``."""
    names = [field.name for field in fields(Agent)]
    parts = {name: getattr(given, name, None) for name in names}
    return Agent(**{name: getattr(drawn, name) if part is None else part for name, part in parts.items()})
