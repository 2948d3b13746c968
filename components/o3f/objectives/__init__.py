"""Losses, and their equations as pure functions."""

from __future__ import annotations

from o3f.objectives.functional import advantage_weights, aggregate_critics, expectile_loss

__all__ = ["advantage_weights", "aggregate_critics", "expectile_loss"]
