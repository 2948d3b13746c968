"""Modules that act: critics, policies, candidate samplers, scorers, selectors and the actors made of them."""

from o3f.modules.ensemble import EnsembleQValue
from o3f.modules.generic_ensemble import GenericEnsemble
from o3f.modules.mlp import mlp
from o3f.modules.policies import TanhMeanGaussian, gaussian_policy, value_network

__all__ = ["EnsembleQValue", "GenericEnsemble", "TanhMeanGaussian", "gaussian_policy", "mlp", "value_network"]
