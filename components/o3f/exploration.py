"""Ways of acting online, by name: from a policy, its critics and a config to the actor a collector calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tensordict.nn import TensorDictModuleBase
from torchrl.data import TensorSpec

from o3f.options import check_keys
from o3f.modules import (
    GaussianCandidates,
    GaussianNoiseActor,
    MeanScore,
    OptimisticActor,
    RandomRank,
    UpperConfidenceBound,
    matched_sigma,
)

Options = Mapping[str, Any]


def make_actor(
    policy: TensorDictModuleBase, critic: TensorDictModuleBase, exploration: Options, spec: TensorSpec
) -> TensorDictModuleBase:
    """Build the actor that collects data.

    Every kind is the plain policy under a deterministic exploration type, draws from torch's global stream and shares
    the parameters of ``policy`` and ``critic``, so that it always acts with the newest ones.

    Args:
        policy: writes ``action`` ``[*B, A]`` in [-1, 1].
        critic: writes ``state_action_value`` ``[*B, m]``.
        exploration: ``kind`` and its options, as in ``conf/exploration``:
            ``optimistic`` (num_candidates, sigma, omega, centre, include_base, clip_margin),
            ``noise`` (sigma), ``matched_noise`` and ``random_rank`` (num_candidates, sigma, per), ``policy``.
        spec: bounds of the action.

    Raises:
        ConfigError: if the kind or an option is unknown; the nearest names are told.
    """
    options = dict(exploration)
    kind = options.pop("kind", None)
    check_keys([kind], KINDS, "exploration.kind")
    return KINDS[str(kind)](policy, critic, options, spec)


def _optimistic(
    policy: TensorDictModuleBase, critic: TensorDictModuleBase, options: Options, spec: TensorSpec
) -> TensorDictModuleBase:
    options = dict(options)
    omega = float(options.pop("omega", 0.0))
    scorer = UpperConfidenceBound(omega) if omega else MeanScore()
    return OptimisticActor(policy, critic, sampler=GaussianCandidates(**options), scorer=scorer, spec=spec)


def _random_rank(
    policy: TensorDictModuleBase, critic: TensorDictModuleBase, options: Options, spec: TensorSpec
) -> TensorDictModuleBase:
    options = dict(options)
    scorer = RandomRank(options.pop("per", "step"))
    return OptimisticActor(policy, critic, sampler=GaussianCandidates(**options), scorer=scorer, spec=spec)


def _noise(
    policy: TensorDictModuleBase, critic: TensorDictModuleBase, options: Options, spec: TensorSpec
) -> TensorDictModuleBase:
    return GaussianNoiseActor(policy, **options, spec=spec)


def _matched_noise(
    policy: TensorDictModuleBase, critic: TensorDictModuleBase, options: Options, spec: TensorSpec
) -> TensorDictModuleBase:
    sigma = matched_sigma(float(options["sigma"]), int(options["num_candidates"]), int(spec.shape[-1]))
    return GaussianNoiseActor(policy, sigma=sigma, spec=spec)


def _policy(
    policy: TensorDictModuleBase, critic: TensorDictModuleBase, options: Options, spec: TensorSpec
) -> TensorDictModuleBase:
    return policy


KINDS: dict[str, Callable[[TensorDictModuleBase, TensorDictModuleBase, Options, TensorSpec], Any]] = {
    "optimistic": _optimistic,
    "noise": _noise,
    "matched_noise": _matched_noise,
    "random_rank": _random_rank,
    "policy": _policy,
}
