"""Configurations of the actors and their parts. Each field is an argument of what is built.

An actor shares its networks with a loss, and Hydra builds what is named twice twice. So these are partial, as
TorchRL's target updaters are: ``instantiate(cfg.exploration)(policy=loss.actor_network, critic=loss.critic)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from o3f.training.torchrl.modules import _MAKE, _Node


@dataclass
class OptimisticActorConfig(_Node):
    """:class:`~o3f.modules.OptimisticActor`, to be called with ``policy`` and ``critic``."""

    num_candidates: int | None = None
    sigma: Any = None
    omega: float | None = None
    sampler: Any = None
    scorer: Any = None
    selector: Any = None
    spec: Any = None
    generator: Any = None
    return_candidates: bool = False
    optimistic_eval: bool = False
    chunk_size: int = 2**10
    action_key: Any = "action"
    _partial_: bool = True
    _target_: str = _MAKE + "optimistic_actor"


@dataclass
class GaussianNoiseActorConfig(_Node):
    """:class:`~o3f.modules.GaussianNoiseActor`, to be called with ``policy``."""

    sigma: Any = 0.2
    centre: str = "sample"
    clip_margin: float = 0.0
    spec: Any = None
    generator: Any = None
    action_key: Any = "action"
    _partial_: bool = True
    _target_: str = _MAKE + "noise_actor"


@dataclass
class GaussianCandidatesConfig(_Node):
    """:class:`~o3f.modules.GaussianCandidates`."""

    num_candidates: int = 100
    sigma: Any = 0.2
    centre: str = "sample"
    include_base: bool = False
    low: Any = None
    high: Any = None
    clip_margin: float = 0.0
    generator: Any = None
    action_key: Any = "action"
    out_key: Any = "candidates"
    _target_: str = _MAKE + "gaussian_candidates"


@dataclass
class MixedCandidatesConfig(_Node):
    """:class:`~o3f.modules.MixedCandidates`."""

    num_candidates: int = 100
    sigma: Any = 0.2
    low: Any = None
    high: Any = None
    clip_margin: float = 0.0
    generator: Any = None
    action_key: Any = "action"
    out_key: Any = "candidates"
    _target_: str = _MAKE + "mixed_candidates"


@dataclass
class LatentCandidatesConfig(_Node):
    """:class:`~o3f.modules.LatentCandidates`; the actor it is a part of gives it the policy's decoder."""

    num_candidates: int = 100
    sigma: Any = 0.2
    max_latent: float = 2.0
    include_base: bool = False
    low: Any = None
    high: Any = None
    clip_margin: float = 0.0
    generator: Any = None
    latent_key: Any = "latent"
    out_key: Any = "candidates"
    _partial_: bool = True
    _target_: str = _MAKE + "latent_candidates"


@dataclass
class MeanScoreConfig(_Node):
    """:class:`~o3f.modules.MeanScore`."""

    _target_: str = "o3f.modules.MeanScore"


@dataclass
class UpperConfidenceBoundConfig(_Node):
    """:class:`~o3f.modules.UpperConfidenceBound`."""

    omega: float = 0.0
    _target_: str = _MAKE + "upper_confidence_bound"


@dataclass
class ThompsonConfig(_Node):
    """:class:`~o3f.modules.Thompson`; needs TorchRL's ``InitTracker`` in the environment."""

    per: str = "episode"
    generator: Any = None
    is_init_key: Any = "is_init"
    _target_: str = _MAKE + "thompson"


@dataclass
class RandomRankConfig(_Node):
    """:class:`~o3f.modules.RandomRank`."""

    per: str = "step"
    generator: Any = None
    is_init_key: Any = "is_init"
    _target_: str = _MAKE + "random_rank"


@dataclass
class ArgmaxConfig(_Node):
    """:class:`~o3f.modules.Argmax`."""

    action_key: Any = "action"
    _target_: str = _MAKE + "argmax"


@dataclass
class SoftmaxConfig(_Node):
    """:class:`~o3f.modules.Softmax`."""

    temperature: float = 0.1
    action_key: Any = "action"
    generator: Any = None
    _target_: str = _MAKE + "softmax"
