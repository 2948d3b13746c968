"""The networks of an agent, from wherever they come."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from o3f.modules import EnsembleQValue


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


def make_critics(
    observation_dim: int, action_dim: int, config: Any, device: torch.device | str | None
) -> EnsembleQValue:
    """Draw the critics of a learner's configuration.

    Args:
        observation_dim: O.
        action_dim: A.
        config: with ``hidden_sizes``, ``num_critics``, ``layer_norm``, ``init`` and ``normalise``.
        device: of the critics.
    """
    return EnsembleQValue(
        observation_dim,
        action_dim,
        config.num_critics,
        tuple(config.hidden_sizes),
        layer_norm=config.layer_norm,
        init=config.init,
        normalise=config.normalise,
        device=device,
    )


def fill_missing(drawn: Agent, given: Agent | None) -> Agent:
    """Return the parts of ``given`` where it has them, else those of ``drawn``."""
    names = [field.name for field in fields(Agent)]
    parts = {name: getattr(given, name, None) for name in names}
    return Agent(**{name: getattr(drawn, name) if part is None else part for name, part in parts.items()})
