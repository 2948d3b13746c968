"""Optimistic offline-to-online fine-tuning, as TorchRL components."""

from __future__ import annotations

from o3f.data import check_dataset, load_minari
from o3f.modules import (
    Argmax,
    EnsembleQValue,
    GaussianCandidates,
    GaussianNoiseActor,
    MeanScore,
    OptimisticActor,
    RandomRank,
    UpperConfidenceBound,
    gaussian_policy,
    value_network,
)
from o3f.objectives import IQLLoss

__all__ = [
    "Argmax",
    "EnsembleQValue",
    "GaussianCandidates",
    "GaussianNoiseActor",
    "IQLLoss",
    "MeanScore",
    "OptimisticActor",
    "RandomRank",
    "UpperConfidenceBound",
    "check_dataset",
    "gaussian_policy",
    "load_minari",
    "value_network",
]
