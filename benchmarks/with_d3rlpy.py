"""Contender ``d3rlpy`` (https://github.com/takuseno/d3rlpy): its own sampling and ``update``, without its logger.

It needs an older gymnasium than the rest, so it usually has an interpreter of its own:
``contenders.d3rlpy.python=PATH``. That interpreter needs NumPy, torch and d3rlpy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import d3rlpy
import numpy as np

from .data import ACTION_DIM, BATCH, DISCOUNT, OBSERVATION_DIM, TAU, transitions

Cases = dict[str, Callable[[], int]]


def learning(make: Any, **options: Any) -> Cases:
    """Sample and update with networks of 2x256, d3rlpy's own default."""
    columns = transitions()
    data = d3rlpy.dataset.MDPDataset(
        observations=columns["observation"],
        actions=columns["action"],
        rewards=columns["reward"],
        terminals=columns["terminated"][:, 0].astype(np.float32),
        timeouts=columns["truncated"][:, 0].astype(np.float32),
    )
    algorithm = make(batch_size=BATCH, gamma=DISCOUNT, tau=TAU, **options).create(device="cpu:0")
    algorithm.create_impl((OBSERVATION_DIM,), ACTION_DIM)

    def step() -> int:
        algorithm.update(data.sample_transition_batch(BATCH))
        return 1

    return {"update": step}


WORKLOADS: dict[str, Callable[[], Cases]] = {
    "iql2": lambda: learning(d3rlpy.algos.IQLConfig, n_critics=2),
    "iql5": lambda: learning(d3rlpy.algos.IQLConfig, n_critics=5),
    "awac": lambda: learning(d3rlpy.algos.AWACConfig, n_critics=2),
    # A rate of 0 leaves the multiplier of the gap out, as in d3rlpy's script that reproduces the paper.
    "cql": lambda: learning(d3rlpy.algos.CQLConfig, n_critics=2, n_action_samples=10, alpha_learning_rate=0.0),
}
