"""The equations of the objectives as pure functions of tensors: no modules, no keys, no state."""

from __future__ import annotations

from o3f.objectives.functional.aggregation import Aggregation, aggregate_critics, draw_members, mix_extremes
from o3f.objectives.functional.conservative import Lagrange, conservative_gap, weighted_gap
from o3f.objectives.functional.losses import divergence_from_normal, expectile_loss
from o3f.objectives.functional.weights import (
    MAX_WEIGHT,
    Weighting,
    advantage_weights,
    awac_weights,
    sign_weights,
    weight_metrics,
)

__all__ = [
    "MAX_WEIGHT",
    "Aggregation",
    "Lagrange",
    "Weighting",
    "advantage_weights",
    "aggregate_critics",
    "awac_weights",
    "conservative_gap",
    "divergence_from_normal",
    "draw_members",
    "expectile_loss",
    "mix_extremes",
    "sign_weights",
    "weight_metrics",
    "weighted_gap",
]
