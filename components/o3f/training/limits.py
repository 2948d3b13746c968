"""The limits of ``conf/exploration`` for hardware, and the table of vetoes that a configuration may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensordict.nn import TensorDictModuleBase

from o3f.modules.action_limits import ActionLimits, Veto
from o3f.options import check_keys, require, require_range

#: Vetoes by name. A configuration names one, it never imports code: put yours here before you call a recipe's main.
VETOES: dict[str, Veto] = {}

#: The options of a kind of exploration that has candidates; each may be missing, which is null.
LIMITS = ("max_displacement", "max_change", "veto")


def check_limits(options: Mapping[str, Any], action_dim: int) -> dict[str, Any]:
    """Return the limits among ``options`` that are set, as arguments of :class:`~o3f.modules.ActionLimits`.

    Raises:
        ConfigError: a number below 0, not one per action dimension, or a veto that is not in :data:`VETOES`.
    """
    limits = {name: options[name] for name in LIMITS if options.get(name) is not None}
    for name in ("max_displacement", "max_change"):
        if name in limits:
            given = limits[name]
            numbers = [given] if isinstance(given, int | float | str) else list(given)
            for number in numbers:
                require_range({"exploration": {name: number}}, f"exploration.{name}", "[0, inf)")
            require(
                len(numbers) in (1, action_dim),
                f"exploration.{name}: found {len(numbers)} numbers for {action_dim} action dimensions.",
            )
            limits[name] = numbers[0] if len(numbers) == 1 else numbers
    if "veto" in limits:
        check_keys([limits["veto"]], VETOES, "exploration.veto")
        limits["veto"] = VETOES[limits["veto"]]
    return limits


def limited(
    limits: Mapping[str, Any], sampler: TensorDictModuleBase, selector: TensorDictModuleBase | None = None
) -> dict[str, Any]:
    """Return ``sampler`` and ``selector`` as arguments of :class:`~o3f.modules.OptimisticActor`, within the limits."""
    if not limits:
        return {"sampler": sampler, "selector": selector}
    within = ActionLimits(sampler, **limits)
    return {"sampler": within, "selector": within.choice(selector)}
