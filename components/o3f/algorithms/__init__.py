"""Base algorithms: from sizes and a configuration to a learner."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from o3f.algorithms.agent import Agent
from o3f.algorithms.awac import AWACConfig, AWACLearner
from o3f.algorithms.bc import BCConfig, BCLearner
from o3f.algorithms.cql import CQLConfig, CQLLearner
from o3f.algorithms.iql import IQLConfig, IQLLearner
from o3f.algorithms.lapo import LAPOConfig, LAPOLearner
from o3f.algorithms.learner import Learner
from o3f.algorithms.sac import SACConfig, SACLearner
from o3f.errors import check_keys, require

__all__ = [
    "ALGORITHMS",
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

#: Every learner by the name that ``algorithm.name`` gives it.
ALGORITHMS: dict[str, type[Learner]] = {
    "awac": AWACLearner,
    "bc": BCLearner,
    "cql": CQLLearner,
    "iql": IQLLearner,
    "lapo": LAPOLearner,
    "lapo_original": LAPOLearner,  # a name of its own for the run folder
    "sac": SACLearner,
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
        name: one of :data:`ALGORITHMS`.
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
    check_keys(config, [field.name for field in dataclasses.fields(kind.config_type)], f"algorithm {name}")
    compile = config.get("compile", False)
    require(compile in (True, False, "auto"), f"compile must be True, False or 'auto', found {compile!r}.")
    for field in dataclasses.fields(kind.config_type):
        given = config.get(field.name, False)
        require(
            field.type != "bool" or isinstance(given, bool), f"{field.name} must be true or false, found {given!r}."
        )
    takes = [other for other, each in ALGORITHMS.items() if each.accepts_agent]
    require(
        agent is None or kind.accepts_agent,
        f"algorithm={name} has networks of its own and cannot start from {agent.origin if agent else None}: use"
        f" {', '.join(takes[:-1])} or {takes[-1]}.",
    )
    settings = kind.config_type(**config)
    learner: Learner = kind(observation_dim, action_dim, settings, device, *([agent] if agent else []))
    return learner


def learner_type(name: str) -> type[Learner]:
    """Return the class of an algorithm, which says what its policies are like and what it can start from.

    Raises:
        ConfigError: for an unknown name; the message has the nearest ones.

    Examples:
        >>> learner_type("sac").squashed
        True
    """
    check_keys([name], ALGORITHMS, "algorithm")
    return ALGORITHMS[name]
