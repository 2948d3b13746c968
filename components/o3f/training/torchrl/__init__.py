"""This package in TorchRL's own Hydra tree: ``import o3f.training.torchrl`` before ``@hydra.main`` registers all of it.

The groups are TorchRL's where it has one (``loss``, ``model``, ``exploration``, ``replay_buffer``, ``env``,
``trainer``), so that a configuration takes ``loss@loss: o3f_iql`` beside ``optimizer@optimizer: adam``; the others
are ``candidates``, ``scorer`` and ``selector`` (the parts of an actor) and ``learner``.
"""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore

from o3f.training.torchrl.actors import (
    ArgmaxConfig,
    GaussianCandidatesConfig,
    GaussianNoiseActorConfig,
    LatentCandidatesConfig,
    MeanScoreConfig,
    MixedCandidatesConfig,
    OptimisticActorConfig,
    RandomRankConfig,
    SoftmaxConfig,
    ThompsonConfig,
    UpperConfidenceBoundConfig,
)
from o3f.training.torchrl.data import FileConfig, GymEnvConfig, LearnerConfig, MinariConfig
from o3f.training.torchrl.losses import AWACLossConfig, CQLLossConfig, IQLLossConfig, LAPOLossConfig, SACLossConfig
from o3f.training.torchrl.make import policy_of
from o3f.training.torchrl.modules import (
    EnsembleQValueConfig,
    GaussianPolicyConfig,
    LatentActorConfig,
    LatentDecoderConfig,
    LatentEncoderConfig,
    LatentPolicyConfig,
    TanhGaussianPolicyConfig,
    ValueNetworkConfig,
)
from o3f.training.torchrl.trainer import O3FTrainerConfig, make_trainer

__all__ = ["GROUPS", "make_trainer", "policy_of"]

#: What is registered: configurations by group and name.
GROUPS: dict[str, dict[str, type[Any]]] = {
    "loss": {
        "o3f_awac": AWACLossConfig,
        "o3f_cql": CQLLossConfig,
        "o3f_iql": IQLLossConfig,
        "o3f_lapo": LAPOLossConfig,
        "o3f_sac": SACLossConfig,
    },
    "model": {
        "o3f_ensemble_qvalue": EnsembleQValueConfig,
        "o3f_gaussian_policy": GaussianPolicyConfig,
        "o3f_latent_actor": LatentActorConfig,
        "o3f_latent_decoder": LatentDecoderConfig,
        "o3f_latent_encoder": LatentEncoderConfig,
        "o3f_latent_policy": LatentPolicyConfig,
        "o3f_tanh_gaussian_policy": TanhGaussianPolicyConfig,
        "o3f_value": ValueNetworkConfig,
    },
    "exploration": {"o3f_noise_actor": GaussianNoiseActorConfig, "o3f_optimistic_actor": OptimisticActorConfig},
    "candidates": {
        "o3f_gaussian": GaussianCandidatesConfig,
        "o3f_latent": LatentCandidatesConfig,
        "o3f_mixed": MixedCandidatesConfig,
    },
    "scorer": {
        "o3f_mean": MeanScoreConfig,
        "o3f_random_rank": RandomRankConfig,
        "o3f_thompson": ThompsonConfig,
        "o3f_ucb": UpperConfidenceBoundConfig,
    },
    "selector": {"o3f_argmax": ArgmaxConfig, "o3f_softmax": SoftmaxConfig},
    "env": {"o3f_gym": GymEnvConfig},
    "replay_buffer": {"o3f_file": FileConfig, "o3f_minari": MinariConfig},
    "learner": {"o3f": LearnerConfig},
    "trainer": {"o3f": O3FTrainerConfig},
}

for _group, _nodes in GROUPS.items():
    for _name, _node in _nodes.items():
        ConfigStore.instance().store(group=_group, name=_name, node=_node, provider="o3f")
