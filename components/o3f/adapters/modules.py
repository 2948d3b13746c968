"""Agents of plain PyTorch modules, with whatever is inside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import Tensor, nn
from torch.distributions import Normal
from torchrl.data import Bounded, Composite
from torchrl.envs.utils import ExplorationType
from torchrl.modules import IndependentNormal, ProbabilisticActor

from o3f.adapters.networks import DETERMINISTIC_STD
from o3f.algorithms.agent import Agent
from o3f.errors import ConfigError, require
from o3f.modules import EnsembleQValue, GenericEnsemble


def from_modules(
    policy: nn.Module,
    critics: nn.Module | Sequence[nn.Module] | None = None,
    value: nn.Module | None = None,
    temperature: float | None = None,
    *,
    action_dim: int | None = None,
    origin: str = "modules",
) -> Agent:
    """Build an agent of modules; they are not copied, but critics are.

    Args:
        policy: a TensorDictModule with ``get_dist`` and ``spec`` (a ``ProbabilisticActor``), or a module that gives,
            from ``[*B, O]``, the mean and standard deviation of a Gaussian over actions in [-1, 1] (a pair, or a
            ``torch.distributions.Normal``), or the action itself, which gets a standard deviation of 0.1.
        critics: an ensemble of ours; or a list of modules of one architecture, each giving ``[*B, 1]`` or ``[*B]`` from
            observation and action, or writing ``state_action_value``.
        value: gives ``[*B, 1]`` or ``[*B]`` from the observation, or writes ``state_value``.
        temperature: of soft actor-critic and CQL.
        action_dim: A, needed with a policy that is a plain module.
        origin: where they come from, for messages.

    Raises:
        ConfigError: a part is none of these.

    Examples:
        >>> agent = from_modules(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), action_dim=2)
        >>> agent.policy(torch.zeros(4, 3))[-1].shape
        torch.Size([4, 2])
    """
    if not isinstance(policy, nn.Module):
        raise ConfigError(f"{origin}: policy must be an nn.Module, found a {type(policy).__name__}.")
    return Agent(_policy(policy, action_dim, origin), _critics(critics, origin), _value(value), temperature, origin)


class _GaussianOf(nn.Module):
    """Mean and standard deviation from what a policy returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(observation)
        if isinstance(found, Normal):
            return found.loc, found.scale
        if isinstance(found, Tensor):
            return found, torch.full_like(found, DETERMINISTIC_STD)
        loc, scale = found
        return loc, scale.expand_as(loc)


class _Column(nn.Module):
    """``[*B, 1]`` from a network that gives ``[*B, 1]`` or ``[*B]``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, observation: Tensor, *others: Tensor) -> Tensor:
        found: Tensor = self.network(observation, *others)
        return found if found.ndim == observation.ndim else found.unsqueeze(-1)


def _policy(policy: nn.Module, action_dim: int | None, origin: str) -> Any:
    if isinstance(policy, TensorDictModuleBase):
        complete = hasattr(policy, "get_dist") and getattr(policy, "spec", None) is not None
        require(
            complete, f"{origin}: the policy needs get_dist and a spec of its action: make it a ProbabilisticActor."
        )
        return policy
    if action_dim is None:
        raise ConfigError(f'{origin}: a policy that is a plain module needs its number of actions: "action_dim".')
    return ProbabilisticActor(
        TensorDictModule(_GaussianOf(policy), in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        out_keys=["action"],
        spec=Composite({"action": Bounded(low=-1.0, high=1.0, shape=torch.Size((action_dim,)))}),
        safe=True,
        distribution_class=IndependentNormal,
        default_interaction_type=ExplorationType.RANDOM,
    )


def _critics(critics: Any, origin: str) -> EnsembleQValue | GenericEnsemble | None:
    if critics is None or isinstance(critics, EnsembleQValue | GenericEnsemble):
        return critics
    members = [critics] if isinstance(critics, nn.Module) and not isinstance(critics, nn.ModuleList) else list(critics)
    keys: Any = {"in_keys": ["observation", "action"], "out_keys": ["state_action_value"]}
    wrapped: list[Any] = [
        each if isinstance(each, TensorDictModuleBase) else TensorDictModule(_Column(each), **keys) for each in members
    ]
    try:
        return EnsembleQValue.from_modules(wrapped)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _value(value: nn.Module | None) -> Any:
    if value is None or isinstance(value, TensorDictModuleBase):
        return value
    return TensorDictModule(_Column(value), in_keys=["observation"], out_keys=["state_value"])
