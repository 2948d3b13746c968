"""Why O3F needs a base algorithm that does not push critics down outside the data: who can be asked there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from o3f.algorithms import Learner, make_learner
from tests.support import bandit

RATES: dict[str, dict[str, Any]] = {
    "cql": {"critic_learning_rate": 1e-3, "actor_learning_rate": 1e-3},
    "iql": {"learning_rate": 1e-3},
    "lapo": {"learning_rate": 1e-3},
}
EDGE = torch.tensor([[0.0]])


def train_on_bandit(name: str) -> Learner:
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [64, 64], "num_critics": 2, "init": "default"}
    learner = make_learner(name, 1, 1, {**sizes, **RATES[name]})
    learner.prepare(bandit.make_rows(1000))
    for seed in range(400):
        learner.update([bandit.make_rows(64, seed=seed)])
    return learner


def test_conservative_critics_rank_upside_down_off_the_data() -> None:
    critic, beyond = train_on_bandit("cql").critic, bandit.grid(0.1, 1.0)
    values = bandit.mean_values(critic, beyond)
    assert bandit.rank_agreement(values, beyond) < 0.2
    assert values.mean() < bandit.mean_values(critic, EDGE) - 1


@pytest.mark.parametrize("name", ["iql", "lapo"])
def test_critics_of_actor_constrained_algorithms_are_right_on_the_data_and_not_pushed_down_off_it(name: str) -> None:
    critic = train_on_bandit(name).critic
    covered, beyond = bandit.grid(*bandit.COVERED), bandit.grid(0.1, 1.0)
    values = bandit.mean_values(critic, covered)
    assert bandit.rank_agreement(values, covered) > 0.95
    torch.testing.assert_close(values, bandit.reward(covered).squeeze(-1), atol=0.1, rtol=0)
    assert bandit.mean_values(critic, beyond).mean() > bandit.mean_values(critic, EDGE)
