"""How many candidates and critics are scored."""

from __future__ import annotations

import itertools

GRID = list(itertools.product((10, 100, 1_000, 10_000), (2, 5, 10, 20)))


def name(num_candidates: int, num_critics: int) -> str:
    """The case's name."""
    return f"N={num_candidates}, m={num_critics}"
