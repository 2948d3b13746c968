"""Behaviour cloning: implicit Q-learning whose policy ignores the advantage."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from o3f.algorithms.iql import IQLConfig, IQLLearner
from o3f.errors import require


@dataclass(frozen=True)
class BCConfig(IQLConfig):
    """Hyper-parameters of behaviour cloning: those of IQL with an inverse temperature of 0.

    All weights of the actor's loss are then exp(0 A) = 1: the policy is the data's maximum likelihood. The
    critics are trained as in IQL, so that every exploration works on a cloned policy too.

    Args:
        temperature: 0, and nothing else.

    Raises:
        ConfigError: for another temperature, or a value out of its range.
    """

    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers' ranges."""
        super().__post_init__()
        require(
            self.temperature == 0,
            f"temperature must be 0 in behaviour cloning, found {self.temperature}. Use algorithm=iql for another.",
        )


class BCLearner(IQLLearner):
    """IQL's, without a temperature that a schedule could move away from 0."""

    config_type = BCConfig

    @property
    def coefficients(self) -> dict[str, Tensor]:
        """Those a schedule may change."""
        return {name: value for name, value in super().coefficients.items() if name != "temperature"}
