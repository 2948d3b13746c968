"""Base algorithms: from sizes and a configuration to a learner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from o3f.algorithms.agent import Agent
from o3f.algorithms.awac import AWACConfig, AWACLearner
from o3f.algorithms.bc import BCConfig, BCLearner
from o3f.algorithms.cql import CQLConfig, CQLLearner
from o3f.algorithms.iql import IQLConfig, IQLLearner
from o3f.algorithms.lapo import LAPOConfig, LAPOLearner
from o3f.algorithms.learner import Learner, read_config
from o3f.algorithms.sac import SACConfig, SACLearner
from o3f.errors import check_keys, require

__all__ = [
    "AWACConfig",
    "AWACLearner",
    "Agent",
    "BCConfig",
    "BCLearner",
    "CQLConfig",
    "CQLLearner",
    "IQLConfig",
    "IQLLearner",
    "LAPOConfig",
    "LAPOLearner",
    "Learner",
    "SACConfig",
    "SACLearner",
    "learner_type",
    "make_learner",
]

_ALGORITHMS: dict[str, tuple[type[Any], type[Learner]]] = {
    "awac": (AWACConfig, AWACLearner),
    "bc": (BCConfig, BCLearner),
    "cql": (CQLConfig, CQLLearner),
    "iql": (IQLConfig, IQLLearner),
    "lapo": (LAPOConfig, LAPOLearner),
    "lapo_original": (LAPOConfig, LAPOLearner),  # a name of its own for the run folder
    "sac": (SACConfig, SACLearner),
}


def make_learner(
    name: str,
    observation_dim: int,
    action_dim: int,
    config: Mapping[str, Any],
    device: torch.device | str | None = None,
    agent: Agent | None = None,
) -> Learner:
    """Build the learner of an algorithm.

    Args:
        name: ``"awac"``, ``"bc"``, ``"cql"``, ``"iql"``, ``"lapo"`` or ``"sac"``.
        observation_dim: length of the flat observation.
        action_dim: length of the action.
        config: hyper-parameters, the fields of :class:`IQLConfig`, :class:`SACConfig`, ...; those not given
            have their defaults.
        device: of all networks.
        agent: networks to take, on that device, instead of those drawn by ``config``; not for LAPO.

    Raises:
        ConfigError: for an unknown name or hyper-parameter (the message has the nearest names), or a value
            out of its range.

    Examples:
        >>> learner = make_learner("iql", observation_dim=3, action_dim=2, config={"num_critics": 2})
        >>> learner.critic.num_critics
        2
    """
    kind: Any = learner_type(name)
    read = read_config(_ALGORITHMS[name][0], name, config)
    takes = [other for other, (_, each) in _ALGORITHMS.items() if each.accepts_agent]
    require(
        agent is None or kind.accepts_agent,
        f"algorithm={name} has networks of its own and cannot start from {agent.origin if agent else None}: use"
        f" {', '.join(takes[:-1])} or {takes[-1]}.",
    )
    learner: Learner = kind(observation_dim, action_dim, read, device, *([agent] if agent else []))
    return learner


def learner_type(name: str) -> type[Learner]:
    """Return the class of an algorithm, which says what its policies are like and what it can start from.

    Raises:
        ConfigError: for an unknown name; the message has the nearest ones.

    Examples:
        >>> learner_type("sac").squashed
        True
    """
    check_keys([name], _ALGORITHMS, "algorithm")
    return _ALGORITHMS[name][1]
