"""What the actors share: when to explore, around which action, within which bounds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, TypedDict, cast, runtime_checkable

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, TensorSpec
from torchrl.envs.utils import ExplorationType, exploration_type, set_exploration_type

from o3f.modules.arguments import check_per_dimension
from o3f.modules.calls import call_policy
from o3f.modules.candidates import Centre, GaussianCandidates, Spread


@runtime_checkable
class Sampler(Protocol):
    """A module that writes candidates and says around which action of the policy they lie; another takes a sample.

    With ``centre="sample_per_candidate"`` it says how many they are, too, in ``num_candidates``.
    """

    centre: Centre


class Bounds(TypedDict):
    """Lower and upper bounds of an action, ``[A]`` or one number."""

    low: Tensor
    high: Tensor


def exploring() -> bool:
    """Whether actors explore now: TorchRL's exploration type is RANDOM (its collectors set it) or not set."""
    return exploration_type() in (ExplorationType.RANDOM, None)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch a module to evaluation mode (no dropout) and every part of it back to its own mode after."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        object.__setattr__(part, "training", False)  # nn.Module's own takes ten times as long
    try:
        yield
    finally:
        for part in training:
            object.__setattr__(part, "training", True)


def centre_of(sampler: Any) -> Centre:
    """Which action of the policy a module puts its candidates around, see :class:`Sampler`."""
    return sampler.centre if isinstance(sampler, Sampler) else "sample"


def base_action(policy: Any, tensordict: TensorDictBase, sampler: Any, action_key: NestedKey) -> Tensor:
    """Action(s) of the policy to put candidates around: ``[*B, A]``, or ``[*B, N, A]`` of one each."""
    centre = centre_of(sampler)
    if centre == "sample_per_candidate" and exploring():
        if not hasattr(policy, "get_dist"):
            raise ValueError("centre='sample_per_candidate' needs a policy with get_dist, a ProbabilisticActor.")
        samples: Tensor = policy.get_dist(tensordict).sample((sampler.num_candidates,))
        return samples.movedim(0, -2)
    with set_exploration_type(ExplorationType.DETERMINISTIC) if centre == "mean" else nullcontext():
        action = call_policy(policy, tensordict, action_key)
    if centre == "sample_per_candidate":
        return action.unsqueeze(-2).expand(*action.shape[:-1], sampler.num_candidates, -1)
    return action


def spec_of(policy: Any, spec: TensorSpec | None, action_key: NestedKey) -> Composite | None:
    """Return the action's spec under its key, as TorchRL expects of a policy's ``spec``: given, or the policy's own.

    Args:
        policy: asked for its attribute ``spec``, a leaf or a composite as of TorchRL's ``ProbabilisticActor``, if
            ``spec`` is None.
        spec: the one given, a leaf or a composite.
        action_key: the action's entry.

    Returns:
        The spec, None where none is given and the policy has none, or one that is unbounded.

    Raises:
        TypeError: if ``spec`` is none of TorchRL's.
        ValueError: if ``spec`` is of another width than the policy's own.
    """
    own: Any = getattr(policy, "spec", None)
    leaf = own.get(action_key, None) if isinstance(own, Composite) else own
    if spec is not None:
        if not isinstance(spec, TensorSpec):
            raise TypeError(f"spec must be one of TorchRL's, Bounded for example, got {spec!r}.")
        given = spec if isinstance(spec, Composite) else Composite({action_key: spec})
        _check_width(given.get(action_key, None), leaf, action_key)
        return given
    if leaf is None or (leaf.dtype.is_floating_point and not _bounded(leaf)):
        return None
    action_bounds(Composite({action_key: leaf}), action_key)  # an action that is no vector of floats is told here
    return Composite({action_key: leaf})


def _check_width(given: Any, own: Any, action_key: NestedKey) -> None:
    if given is not None and own is not None and given.shape[-1:] != own.shape[-1:]:
        raise ValueError(
            f"spec= says that {action_key!r} has shape {list(given.shape)}, and the policy's own spec {list(own.shape)}"
            ". Give the spec of this policy's actions, or leave spec= out."
        )


def _bounded(leaf: Any) -> bool:
    space: Any = getattr(leaf, "space", None)
    return isinstance(leaf, Bounded) and bool((space.low.isfinite() & space.high.isfinite()).all())


def action_bounds(spec: Composite | None, action_key: NestedKey) -> Bounds | None:
    """Return the bounds ``low`` and ``high`` (``[A]``) of a spec's action, None without a spec.

    Raises:
        ValueError: if the spec holds no action, or one that is not a bounded vector of floats, or the rows of a batch
            have bounds of their own.
    """
    if spec is None:
        return None
    leaf = spec.get(action_key, None)
    if not isinstance(leaf, Bounded) or not leaf.dtype.is_floating_point:
        raise ValueError(f"The spec of {action_key!r} must be a bounded vector of floats, got {leaf}.")
    space: Any = leaf.space
    rows = [bound.expand(leaf.shape).reshape(-1, leaf.shape[-1]) for bound in (space.low, space.high)]
    if not all(bool((bound == bound[:1]).all()) for bound in rows):
        raise ValueError(
            f"The bounds of {action_key!r} differ between the rows of the batch {list(leaf.shape[:-1])}; expected the"
            " same in all. Rescale the actions of each environment to common ones, [-1, 1] for example."
        )
    low, high = (bound[0] for bound in rows)
    if not bool((low.isfinite() & high.isfinite()).all()):
        raise ValueError(f"The bounds of {action_key!r} must be finite, got low={low}, high={high}.")
    return {"low": low, "high": high}


def settle_bounds(sampler: nn.Module, spec: Composite | None, action_key: NestedKey) -> None:
    """Give a sampler that was made without bounds those of the spec; hold one with bounds of its own to them.

    A sampler's own bounds may be narrower than the spec's. Samplers of other classes are asked for ``low`` and
    ``high`` if they have them.

    Raises:
        ValueError: if its own bounds are wider, so that an action could be executed that the spec forbids, or they or
            its sigma are of another width than the action.

    Warns:
        UserWarning: if neither has bounds: then -1 and 1 are assumed.
    """
    bounds = action_bounds(spec, action_key)
    # A sampler that wraps another one shows the bounds of that one, so all are settled before any is looked at.
    for part in [part for part in sampler.modules() if getattr(part, "bounds_assumed", False)]:
        if bounds is None:
            warn_of_bounds(action_key)
        else:
            cast(Spread, part).set_bounds(**bounds)
    for part in sampler.modules() if bounds is not None else ():
        if isinstance(part, GaussianCandidates):
            check_per_dimension("sigma", part.sigma, len(cast(Bounds, bounds)["low"]))
    for part in sampler.modules() if bounds is not None else ():
        if part is sampler or hasattr(part, "bounds_assumed"):
            _check_within(part, cast(Bounds, bounds), action_key)


def warn_of_bounds(action_key: NestedKey) -> None:
    """Say that -1 and 1 are assumed to be the bounds of actions."""
    warnings.warn(
        f"The bounds of {action_key!r} are not known: the policy has no bounded spec and none is given. -1 and 1 are"
        " assumed. Give the policy a spec (as ProbabilisticActor has), or an actor spec=.",
        stacklevel=4,
    )


def _check_within(sampler: Any, bounds: Bounds, action_key: NestedKey) -> None:
    own = [getattr(sampler, name, None) for name in ("low", "high")]
    if any(each is None for each in own):
        return
    low, high = (torch.as_tensor(each) for each in own)
    for name, bound in (("low", low), ("high", high)):
        check_per_dimension(f"{name} of {type(sampler).__name__}", bound, len(bounds["low"]))
    wider = (low < bounds["low"].to(low)) | (high > bounds["high"].to(high))
    if bool(wider.any()):
        raise ValueError(
            f"{type(sampler).__name__} draws {action_key!r} from {low.tolist()} to {high.tolist()}, and the spec"
            f" (given, or the policy's own) has {bounds['low'].tolist()} to {bounds['high'].tolist()}. Leave low and"
            " high out to take the spec's, give narrower ones, or pass the spec= that is true."
        )
