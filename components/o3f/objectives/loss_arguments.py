"""Checks of arguments that several losses take."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

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
