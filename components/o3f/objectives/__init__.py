"""Losses, and their equations as pure functions."""

from __future__ import annotations

from o3f.objectives.awac import AWACLoss
from o3f.objectives.best_of_n import BestOfNValue, DistillationLoss
from o3f.objectives.cql import CQLLoss
from o3f.objectives.functional import advantage_weights, aggregate_critics, awac_weights, expectile_loss
from o3f.objectives.iql import IQLLoss
from o3f.objectives.lapo import LAPOLoss
from o3f.objectives.sac import SACLoss
from o3f.objectives.value_clamp import ValueClamp

__all__ = [
    "AWACLoss",
    "BestOfNValue",
    "CQLLoss",
    "DistillationLoss",
    "IQLLoss",
    "LAPOLoss",
    "SACLoss",
    "ValueClamp",
    "advantage_weights",
    "aggregate_critics",
    "awac_weights",
    "expectile_loss",
]
