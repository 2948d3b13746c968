"""Contender ``plain``: what a careful user writes in PyTorch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .data import ACTION_DIM, BATCH, LAPO_BATCH, OBSERVATION_DIM, transitions
from .plain_awac import PlainAWAC
from .plain_cql import PlainCQL
from .plain_iql import PlainIQL
from .plain_lapo import PlainLAPO
from .plain_networks import Arrays, mlp
from .scoring_grid import GRID, name

Cases = dict[str, Callable[[], int]]


def learning(learner: Any, batch: int = BATCH) -> Cases:
    """Sample and update."""
    arrays = Arrays(transitions())

    def step() -> int:
        learner.update(arrays.sample(batch))
        return 1

    return {"update": step}


def lapo() -> Cases:
    """The full step; the columns are about standard normal, so their z-scores cost the same."""
    return learning(PlainLAPO(-400.0, 400.0), LAPO_BATCH)


def scoring() -> Cases:
    """Mean over critics that are evaluated one after another."""
    return {name(n, m): scorer(n, m) for n, m in GRID}


def scorer(num_candidates: int, num_critics: int) -> Callable[[], int]:
    """One state, ``num_candidates`` actions."""
    critics = [mlp(OBSERVATION_DIM + ACTION_DIM, 256, 256, 1) for _ in range(num_critics)]
    observation, candidates = torch.randn(OBSERVATION_DIM), torch.randn(num_candidates, ACTION_DIM)

    @torch.no_grad()
    def step() -> int:
        sa = torch.cat([observation.expand(num_candidates, -1), candidates], -1)
        torch.stack([critic(sa) for critic in critics]).mean(0)
        return 1

    return step


WORKLOADS: dict[str, Callable[[], Cases]] = {
    "iql2": lambda: learning(PlainIQL(2)),
    "iql5": lambda: learning(PlainIQL(5)),
    "awac": lambda: learning(PlainAWAC()),
    "cql": lambda: learning(PlainCQL()),
    "lapo_full": lapo,
    "lapo_block": lapo,  # what a block is compared with is the same full step
    "scoring": scoring,
}
