"""Arguments of TorchRL's losses, so that code written for these runs with another import and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from o3f.objectives.base import BoundLoss

_ANY = (True, False)
_CQL = "this is CQL(H), not TorchRL's loss of that name; see"

#: By argument: the values that ask for what is done in any case, and the reason why others are refused.
KNOWN: dict[str, tuple[tuple[Any, ...], str]] = {
    "deactivate_vmap": (_ANY, "the critics are one batched module in any case"),
    "delay_actor": ((False,), "there is no target policy; next actions are the trained policy's"),
    "delay_qvalue": (
        (True,),
        "the critics bootstrap from target critics; for targets that equal them, step with tau=1",
    ),
    "delay_value": (_ANY, "there is no value network"),
    "deterministic_backup": ((), f"{_CQL} backup="),
    "fixed_alpha": ((False,), "leave loss.log_alpha out of the optimiser instead"),
    "lagrange_thresh": ((), f"{_CQL} lagrange_threshold="),
    "max_alpha": ((None,), "the temperature has no bounds; clamp loss.log_alpha.data after a step instead"),
    "max_q_backup": ((False,), "this backup is not implemented"),
    "min_alpha": ((None,), "the temperature has no bounds; clamp loss.log_alpha.data after a step instead"),
    "min_q_weight": ((), f"{_CQL} conservative_weight="),
    "scalar_output_mode": ((None, "exclude", "non_tensor"), "these are TorchRL's modes"),
    "skip_done_states": ((False,), "values of terminal states are computed and multiplied by 0"),
    "use_prioritized_weights": (("auto", *_ANY), "these are TorchRL's settings"),
    "value_network": ((None,), "soft actor-critic's first version, with a value network, is not implemented"),
    "with_lagrange": ((), f"{_CQL} lagrange="),
}


def take_torchrl_arguments(loss: BoundLoss, arguments: Mapping[str, Any]) -> None:
    """Accept those of TorchRL's arguments that ask for what is done anyway, refuse the others by name.

    Sets ``scalar_output_mode`` and ``use_prioritized_weights`` of the loss.

    Raises:
        TypeError: for ``gamma``, as TorchRL's losses do, and for an argument that is not one of TorchRL's.
        RuntimeError: for ``priority_key``, as TorchRL's losses do.
        ValueError: for a value that asks for something else.
    """
    options = dict(arguments)
    if options.pop("gamma", None) is not None:
        raise TypeError(
            "Passing gamma / lambda parameters through the loss constructor is a deprecated feature of TorchRL. Run"
            " loss.make_value_estimator(gamma=...)."
        )
    loss._set_deprecated_ctor_keys(priority_key=options.pop("priority_key", None))
    name = type(loss).__name__
    for argument, value in options.items():
        if argument not in KNOWN:
            raise TypeError(f"{name}.__init__() got an unexpected keyword argument {argument!r}.")
        accepted, reason = KNOWN[argument]
        if not any(value is each or (isinstance(value, str) and value == each) for each in accepted):
            raise ValueError(f"{name} does not take {argument}={value!r}: {reason}.")
    loss.scalar_output_mode = options.get("scalar_output_mode")
    loss.use_prioritized_weights = options.get("use_prioritized_weights", loss.use_prioritized_weights)
