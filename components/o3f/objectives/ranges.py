"""Where each coefficient and hyper-parameter may lie: the one table, for losses, learners and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from o3f.errors import number, require_range

#: By name, in the mathematical notation of :func:`~o3f.errors.require_range`.
RANGES = {
    "actor_dropout": "[0, 1)",
    "advantage_weight": "[0, 1]",
    "alpha_init": "(0, inf)",
    "conservative_weight": "[0, inf)",
    "discount": "[0, 1]",
    "expectile": "(0, 1)",
    "kl_weight": "[0, inf)",
    "lagrange_threshold": "(-inf, inf)",
    "lam": "(0, inf)",
    "max_latent": "(0, inf)",
    "min_weight": "[0, 1]",
    "omega": "(-inf, inf)",
    "sigma": "[0, inf)",
    "target_entropy": "(-inf, inf)",
    "target_noise": "[0, inf)",
    "target_noise_clip": "[0, inf)",
    "tau": "(0, 1]",
    "temperature": "[0, inf)",
    "weight_decay": "[0, inf)",
    **dict.fromkeys(
        (f"{owner}learning_rate" for owner in ("", "actor_", "critic_", "temperature_", "lagrange_")), "(0, inf)"
    ),
}

#: Whole numbers from 1 on.
COUNTS = frozenset({"actor_decay_steps", "latent_dim", "num_critics", "num_random", "subset_size"})

#: May be None, which has a meaning of its own.
NULLABLE = frozenset({"actor_decay_steps", "latent_dim", "subset_size", "target_entropy"})


def check_ranges(values: Mapping[str, Any]) -> None:
    """Check the numbers among ``values`` that stand in the table.

    Raises:
        ConfigError: naming the number, its range and what was found.

    Examples:
        >>> check_ranges({"expectile": 0.7, "hidden_sizes": [256, 256], "actor_decay_steps": None})
        >>> check_ranges({"expectile": 1.0})
        Traceback (most recent call last):
        ...
        o3f.errors.ConfigError: expectile must be a number in (0, 1), found 1.0.
    """
    for name, value in values.items():
        if value is None and name in NULLABLE:
            continue
        if name in COUNTS:
            require_range(values, name, "[1, inf)", integer=True)
        elif name in RANGES:
            require_range(values, name, RANGES[name])


def coefficients_in_range(**values: Any) -> dict[str, float]:
    """Return coefficients as floats.

    Raises:
        ConfigError: naming the one that is no number, or out of its range in the table.

    Examples:
        >>> coefficients_in_range(expectile=0.7)
        {'expectile': 0.7}
    """
    return {name: number(name, value, RANGES[name]) for name, value in values.items()}
