"""Every learner in the table of algorithms, at a small size: what one contract asks of all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from tensordict import TensorDict

from o3f.algorithms import ALGORITHMS, Learner, learner_type, make_learner
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM, make_batch

#: One name for each learner: some have two files in conf/algorithm.
NAMES = [name for index, (name, kind) in enumerate(ALGORITHMS.items()) if kind not in [*ALGORITHMS.values()][:index]]

#: Settings beside the defaults that draw random numbers or keep more state.
OPTIONS: dict[str, dict[str, Any]] = {
    "awac": {"num_critics": 5, "aggregation": "subset", "layer_norm": True},
    "cql": {"lagrange": "weighted_gap", "num_critics": 3, "aggregation": "subset", "num_random": 3},
    "iql": {"num_critics": 5, "actor_dropout": 0.3, "aggregation": "subset", "actor_decay_steps": 50},
    "lapo": {
        "num_critics": 2,
        "subset_size": None,
        "actor_aggregation": "first",
        "delay_value": True,
        "value_clamp": "fixed",
    },
    "sac": {"num_critics": 4, "aggregation": "subset"},
}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    *OPTIONS.items(),
    ("awac", {"weighting": "exp"}),
    ("cql", {"calibrate": True, "num_random": 3}),
]


def make(name: str, **options: Any) -> Learner:
    """A small learner whose z-scores and bounds are measured."""
    torch.manual_seed(0)
    fields = [field.name for field in dataclasses.fields(learner_type(name).config_type)]
    sizes = {field: [8, 8] for field in fields if field.endswith("hidden_sizes")}
    learner = make_learner(name, OBSERVATION_DIM, ACTION_DIM, {**sizes, **options})
    learner.prepare(make_batch(40, seed=99))
    return learner


def blocks(count: int, start: int = 0) -> list[list[TensorDict]]:
    """The batches of ``count`` updates: two each, of different sizes."""
    seeds = range(start, start + 2 * count, 2)
    return [[with_returns(5, seed), with_returns(3, seed + 1)] for seed in seeds]


def with_returns(count: int, seed: int) -> TensorDict:
    """Transitions that carry a return, half of them above what a new critic says."""
    batch = make_batch(count, seed=seed)
    return batch.set("return_to_go", batch["next", "reward"].clone())
