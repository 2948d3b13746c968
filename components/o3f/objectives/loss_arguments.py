"""Checks of arguments that several losses take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from tensordict import NestedKey, TensorDictBase
from torch import Tensor

Distance: TypeAlias = Literal["l2", "l1", "smooth_l1"]
Reduction: TypeAlias = Literal["mean", "sum", "none"]


def check_form(reduction: Reduction | None, loss_function: Distance = "l2") -> Reduction:
    """Return the reduction, ``"mean"`` for None.

    Raises:
        ValueError: if it or ``loss_function`` is unknown.
    """
    if reduction is not None and reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be one of {get_args(Reduction)}, got {reduction!r}.")
    if loss_function not in get_args(Distance):
        raise ValueError(f"loss_function must be one of {get_args(Distance)}, got {loss_function!r}.")
    return reduction or "mean"


def check_policy(network: Any) -> None:
    """Check that a policy tells the distribution of its actions.

    Raises:
        TypeError: if it does not.
    """
    if not hasattr(network, "get_dist"):
        raise TypeError(
            f"The policy must have get_dist, the distribution of its actions, and {type(network).__name__} has not:"
            " take o3f.modules.gaussian_policy or torchrl.modules.ProbabilisticActor."
        )


def check_shape(name: str, value: Tensor, expected: Sequence[int]) -> None:
    """Check the shape of a tensor that would be widened to another one without a word.

    Args:
        name: said in the message.
        value: what was given.
        expected: the right shape.

    Raises:
        ValueError: if it has not.
    """
    if value.shape != tuple(expected):
        raise ValueError(f"{name} has shape {list(value.shape)}, expected {list(expected)}: one for each row.")


def check_batch_size(tensordict: TensorDictBase, action: Tensor) -> None:
    """Check that a batch knows its own shape.

    Args:
        tensordict: the batch ``[*B]``.
        action: of it, ``[*B, A]``.

    Raises:
        ValueError: if it does not.
    """
    if tensordict.batch_size != action.shape[:-1]:
        raise ValueError(
            f"The batch has batch_size {list(tensordict.batch_size)} and actions {list(action.shape)}: give"
            f" TensorDict(..., batch_size={list(action.shape[:-1])})."
        )


def check_bootstrap(entries: Mapping[NestedKey, Tensor | None], next_value: Tensor, tensordict: TensorDictBase) -> None:
    """Check what a bootstrapped target is made of.

    Args:
        entries: reward, done and terminated by key, None where a batch has none.
        next_value: ``[*B]``.
        tensordict: the batch.

    Raises:
        KeyError: if one is missing.
        ValueError: if one has another shape than ``[*B, 1]``.
    """
    for key, entry in entries.items():
        if entry is None:
            found = sorted(map(str, tensordict.keys(include_nested=True, leaves_only=True)))
            raise KeyError(
                f"The batch has no {key!r}, but {', '.join(found)}. Name the entry that it has instead with"
                " loss.set_keys(reward=..., done=..., terminated=...); terminated is where a state has no future, which"
                " the end of an episode by a time limit is not."
            )
        if entry.shape != (*next_value.shape, 1):
            raise ValueError(
                f"{key!r} has shape {list(entry.shape)} where the value of the next state has"
                f" {list(next_value.shape)}: expected {[*next_value.shape, 1]}, one number for each row of the batch."
            )


def log_probability(policy: Any, action: Tensor, like: Tensor) -> Tensor:
    """The log-probability ``[*B]`` of actions ``[*B, A]``.

    Args:
        policy: a distribution.
        action: of the batch.
        like: ``[*B]``.

    Raises:
        ValueError: if the policy's actions have another width, or it does not say one number per action.
    """
    event = getattr(policy, "event_shape", None)
    if event and event != action.shape[-len(event) :]:
        raise ValueError(f"The policy's actions have {list(event)} components, the batch's {list(action.shape)}.")
    log_prob: Tensor = policy.log_prob(action)
    if log_prob.shape != like.shape:
        raise ValueError(
            f"The policy's log-probability has shape {list(log_prob.shape)} where there are"
            f" {list(like.shape)} actions; expected one number per action, as of an Independent distribution."
        )
    return log_prob


def state_value(value: Tensor) -> Tensor:
    """V ``[*B]`` of what a value network wrote.

    Raises:
        ValueError: if that is not ``[*B, 1]``.
    """
    if value.shape[-1:] != (1,):
        raise ValueError(f"The value network wrote {list(value.shape)}, expected [*B, 1]: one value of each state.")
    return value.squeeze(-1)


def refuse_mappings(loss: Any, arguments: tuple[Any, ...]) -> None:
    """Refuse a batch that is no TensorDict, which TorchRL would take for the first of the entries.

    Raises:
        TypeError: naming what was given.
    """
    if len(arguments) == 1 and not isinstance(arguments[0], TensorDictBase):
        raise TypeError(
            f"{type(loss).__name__} takes a TensorDict, got {type(arguments[0]).__name__}: give"
            " TensorDict(entries, batch_size=[B]), or every entry by its name."
        )
