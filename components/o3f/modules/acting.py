"""What the actors share: when to explore, around which action, within which bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypedDict

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, TensorSpec
from torchrl.envs.utils import ExplorationType, exploration_type, set_exploration_type

from o3f.modules.calls import acted
from o3f.modules.candidates import Centre


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


def base_action(
    policy: Any,
    tensordict: TensorDictBase,
    centre: Centre,
    num_candidates: int,
    action_key: NestedKey,
) -> Tensor:
    """Action(s) of the policy to put candidates around: ``[*B, A]``, or ``[*B, N, A]`` of one each."""
    if centre == "sample_per_candidate" and exploring():
        if not hasattr(policy, "get_dist"):
            raise ValueError("centre='sample_per_candidate' needs a policy with get_dist, a ProbabilisticActor.")
        samples: Tensor = policy.get_dist(tensordict).sample((num_candidates,))
        return samples.movedim(0, -2)
    with set_exploration_type(ExplorationType.DETERMINISTIC) if centre == "mean" else nullcontext():
        action = acted(policy, tensordict, action_key)
    if centre == "sample_per_candidate":
        return action.unsqueeze(-2).expand(*action.shape[:-1], num_candidates, -1)
    return action


def composite_spec(spec: TensorSpec | None, action_key: NestedKey) -> Composite | None:
    """Return the action's spec under its key, as TorchRL expects of a policy's ``spec``."""
    return spec if spec is None or isinstance(spec, Composite) else Composite({action_key: spec})


def action_bounds(spec: Composite | None, action_key: NestedKey) -> Bounds:
    """Return the bounds ``low`` and ``high`` (``[A]``) of a spec's action, -1 and 1 without a spec.

    Raises:
        ValueError: if the spec holds no action, or one that is not a bounded vector of floats.
    """
    if spec is None:
        return {"low": torch.tensor(-1.0), "high": torch.tensor(1.0)}
    leaf = spec.get(action_key, None)
    if not isinstance(leaf, Bounded) or not leaf.dtype.is_floating_point:
        raise ValueError(f"The spec of {action_key!r} must be a bounded vector of floats, got {leaf}.")
    space: Any = leaf.space
    low, high = (bound.expand(leaf.shape).reshape(-1, leaf.shape[-1])[0] for bound in (space.low, space.high))
    if not bool((low.isfinite() & high.isfinite()).all()):
        raise ValueError(f"The bounds of {action_key!r} must be finite, got low={low}, high={high}.")
    return {"low": low, "high": high}
