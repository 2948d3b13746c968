"""Optimistic offline-to-online fine-tuning, as TorchRL components.

Importing the package alone imports neither torch nor TorchRL; the first use of a name below does.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_ROOMS = ("modules", "objectives", "data")

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


def __getattr__(name: str) -> Any:
    """Import what is asked for: a name of ``__all__`` from its room, or a room."""
    if name in _ROOMS:
        return importlib.import_module(f"o3f.{name}")
    if name in __all__:
        for room in _ROOMS:
            module = importlib.import_module(f"o3f.{room}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'o3f' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
