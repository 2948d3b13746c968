"""Optimistic offline-to-online fine-tuning, as TorchRL components."""

from __future__ import annotations

from pathlib import Path

from o3f.data import check_dataset, load_file, load_minari
from o3f.modules import (
    Argmax,
    EnsembleQValue,
    GaussianCandidates,
    GaussianNoiseActor,
    LatentCandidates,
    LatentPolicy,
    MeanScore,
    MixedCandidates,
    OptimisticActor,
    RandomRank,
    Softmax,
    Thompson,
    UpperConfidenceBound,
    gaussian_policy,
    latent_actor,
    latent_decoder,
    latent_encoder,
    latent_policy,
    tanh_gaussian_policy,
    value_network,
)
from o3f.objectives import AWACLoss, CQLLoss, IQLLoss, LAPOLoss, SACLoss

# python -m o3f.doctor and python -m o3f.tags: what is in this folder counts as modules of the package itself.
__path__.append(str(Path(__file__).parent / "cli" / "entry_points"))

__all__ = [
    "AWACLoss",
    "Argmax",
    "CQLLoss",
    "EnsembleQValue",
    "GaussianCandidates",
    "GaussianNoiseActor",
    "IQLLoss",
    "LAPOLoss",
    "LatentCandidates",
    "LatentPolicy",
    "MeanScore",
    "MixedCandidates",
    "OptimisticActor",
    "RandomRank",
    "SACLoss",
    "Softmax",
    "Thompson",
    "UpperConfidenceBound",
    "check_dataset",
    "gaussian_policy",
    "latent_actor",
    "latent_decoder",
    "latent_encoder",
    "latent_policy",
    "load_file",
    "load_minari",
    "tanh_gaussian_policy",
    "value_network",
]
