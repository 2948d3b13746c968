"""Contender ``ours``: o3f's learners through ``update``, its replay buffer and its actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f import EnsembleQValue, OptimisticActor, gaussian_policy
from o3f.algorithms import Learner, make_learner
from o3f.cli.recipe import keep_freed_memory
from o3f.data import make_buffer

from .data import ACTION_DIM, BATCH, LAPO_BATCH, OBSERVATION_DIM, Columns, transitions
from .scoring_grid import GRID, name

Cases = dict[str, Callable[[], int]]
BLOCK = 20
keep_freed_memory()  # as every recipe does

#: Algorithm and configuration of each workload that is a gradient step.
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "iql2": ("iql", {"num_critics": 2}),
    "iql5": ("iql", {"num_critics": 5}),
    "awac": ("awac", {"actor_hidden_sizes": [256, 256]}),
    "cql": ("cql", {"hidden_sizes": [256, 256]}),
    "lapo_full": (
        "lapo",
        {"num_critics": 2, "subset_size": None, "value_clamp": "fixed", "actor_aggregation": "first"},
    ),
    "lapo_block": ("lapo", {"num_critics": 5, "subset_size": 2}),
}


def rows_of(columns: Columns) -> TensorDict:
    """The transitions as rows of a buffer."""
    tensors = {key: torch.as_tensor(column) for key, column in columns.items()}
    following = {key: tensors[key] for key in ("reward", "terminated", "truncated")}
    following["observation"] = tensors["next_observation"]
    following["done"] = tensors["terminated"] | tensors["truncated"]
    entries: Any = {"observation": tensors["observation"], "action": tensors["action"], "next": following}
    return TensorDict(entries, [len(tensors["action"])])


def learner_for(workload: str, **options: Any) -> Learner:
    """Build the learner of a workload."""
    algorithm, config = LEARNERS[workload]
    return make_learner(algorithm, OBSERVATION_DIM, ACTION_DIM, config | options)


def learning(workload: str, precision: str = "highest", **options: Any) -> Cases:
    """Sample and update; in a block, as many critic steps as batches."""
    torch.set_float32_matmul_precision(precision)
    rows = rows_of(transitions())
    buffer = make_buffer(rows, batch_size=LAPO_BATCH if workload.startswith("lapo") else BATCH)
    learner = learner_for(workload, **options)
    learner.prepare(rows)
    count = BLOCK if workload == "lapo_block" else 1

    def step() -> int:
        learner.update([buffer.sample() for _ in range(count)], report=False)
        return count

    return {"update": step}


def scorer(num_candidates: int, num_critics: int) -> Callable[[], int]:
    """Score candidates in one state, on tensors."""
    critic = EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, num_critics)
    observation, candidates = torch.randn(OBSERVATION_DIM), torch.randn(num_candidates, ACTION_DIM)

    @torch.no_grad()
    def step() -> int:
        critic.values(torch.cat([observation.expand(num_candidates, -1), candidates], -1)).mean(-1)
        return 1

    return step


def scoring() -> Cases:
    """The whole grid."""
    return {name(n, m): scorer(n, m) for n, m in GRID}


def acting() -> Cases:
    """The whole actor as a collector calls it, and its scoring alone."""
    critic = EnsembleQValue(OBSERVATION_DIM, ACTION_DIM, num_critics=5)
    actor = OptimisticActor(gaussian_policy(OBSERVATION_DIM, ACTION_DIM), critic, num_candidates=100)
    state = TensorDict({"observation": torch.randn(OBSERVATION_DIM)})

    @torch.no_grad()
    def step() -> int:
        with set_exploration_type(ExplorationType.RANDOM):
            actor(state)
        return 1

    return {"actor call": step, "scoring": scorer(100, 5)}


def online(workload: str) -> Cases:
    """The environment, which not every machine has."""
    from . import online_loop

    return online_loop.collection() if workload == "collection" else online_loop.loop()


WORKLOADS: dict[str, Callable[..., Cases]] = {
    **{workload: lambda workload=workload, **options: learning(workload, **options) for workload in LEARNERS},
    "scoring": scoring,
    "actor": acting,
    "collection": lambda: online("collection"),
    "loop": lambda: online("loop"),
}
