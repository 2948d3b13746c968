"""Losses, and their equations as pure functions."""

from __future__ import annotations

from o3f.objectives.functional import advantage_weights, aggregate_critics, expectile_loss
from o3f.objectives.iql import IQLLoss
from o3f.objectives.sac import EnsembleSACLoss

__all__ = ["EnsembleSACLoss", "IQLLoss", "advantage_weights", "aggregate_critics", "expectile_loss"]
