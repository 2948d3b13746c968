"""Minari datasets as TorchRL replay buffers: loading, checks, reward and observation rules."""

from __future__ import annotations

from o3f.data.observations import ObservationLayout, observation_layout
from o3f.data.rewards import RewardRule, return_range_scale

__all__ = ["ObservationLayout", "RewardRule", "observation_layout", "return_range_scale"]
