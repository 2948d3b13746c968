"""Optimistic offline-to-online fine-tuning, as TorchRL components."""

from __future__ import annotations

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
