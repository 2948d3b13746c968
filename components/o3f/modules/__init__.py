"""Modules that act: critics, policies, candidate samplers, scorers, selectors and the actors made of them."""

from o3f.modules.candidates import GaussianCandidates
from o3f.modules.ensemble import EnsembleQValue
from o3f.modules.generic_ensemble import GenericEnsemble
from o3f.modules.mixed_candidates import MixedCandidates
from o3f.modules.mlp import mlp
from o3f.modules.noise import GaussianNoiseActor, matched_sigma
from o3f.modules.noise_source import NoiseSource
from o3f.modules.optimistic_actor import OptimisticActor
from o3f.modules.policies import TanhMeanGaussian, gaussian_policy, value_network
from o3f.modules.scorers import MeanScore, RandomRank, Thompson, UpperConfidenceBound
from o3f.modules.selectors import Argmax, Softmax

__all__ = [
    "Argmax",
    "EnsembleQValue",
    "GaussianCandidates",
    "GaussianNoiseActor",
    "GenericEnsemble",
    "MeanScore",
    "MixedCandidates",
    "NoiseSource",
    "OptimisticActor",
    "RandomRank",
    "Softmax",
    "TanhMeanGaussian",
    "Thompson",
    "UpperConfidenceBound",
    "gaussian_policy",
    "matched_sigma",
    "mlp",
    "value_network",
]
