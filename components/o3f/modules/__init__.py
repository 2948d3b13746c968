"""Modules that act: critics, policies, candidate samplers, scorers, selectors and the actors made of them."""

from o3f.modules.action_limits import ActionLimits
from o3f.modules.ascent import CandidateAscent
from o3f.modules.candidates import GaussianCandidates, MixedCandidates
from o3f.modules.ensemble import EnsembleQValue
from o3f.modules.gaussian_policy import TanhMeanGaussian, gaussian_policy, value_network
from o3f.modules.latent_candidates import LatentCandidates
from o3f.modules.latent_networks import latent_actor, latent_decoder, latent_encoder
from o3f.modules.latent_policy import LatentPolicy, latent_policy
from o3f.modules.mlp import mlp
from o3f.modules.noise_actor import GaussianNoiseActor, matched_sigma
from o3f.modules.noise_source import NoiseSource
from o3f.modules.normalisation import Normaliser, fit_normalisers
from o3f.modules.optimistic_actor import OptimisticActor
from o3f.modules.scorers import MeanScore, RandomRank, Thompson, UpperConfidenceBound
from o3f.modules.selectors import Argmax, Softmax
from o3f.modules.stacking import GenericEnsemble
from o3f.modules.tanh_gaussian_policy import TanhGaussian, tanh_gaussian_policy

__all__ = [
    "ActionLimits",
    "Argmax",
    "CandidateAscent",
    "EnsembleQValue",
    "GaussianCandidates",
    "GaussianNoiseActor",
    "GenericEnsemble",
    "LatentCandidates",
    "LatentPolicy",
    "MeanScore",
    "MixedCandidates",
    "NoiseSource",
    "Normaliser",
    "OptimisticActor",
    "RandomRank",
    "Softmax",
    "TanhGaussian",
    "TanhMeanGaussian",
    "Thompson",
    "UpperConfidenceBound",
    "fit_normalisers",
    "gaussian_policy",
    "latent_actor",
    "latent_decoder",
    "latent_encoder",
    "latent_policy",
    "matched_sigma",
    "mlp",
    "tanh_gaussian_policy",
    "value_network",
]
