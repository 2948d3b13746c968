"""Does an agent fit a task and an algorithm? Tried out on two observations before anything else happens."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import TanhNormal

from o3f.algorithms import learner_type
from o3f.algorithms.agent import Agent
from o3f.errors import ConfigError, require


def check_agent(agent: Agent, algorithm: str, observation_dim: int, action_dim: int) -> None:
    """Check the networks' inputs and outputs, and that the algorithm can train such a policy.

    Args:
        agent: on the CPU.
        algorithm: its name.
        observation_dim: O of the task.
        action_dim: A of the task.

    Raises:
        ConfigError: saying what was found and what was expected.
    """
    task = f"the task has {observation_dim} observations and {action_dim} actions"
    try:
        shapes, action, dist = _try(agent, observation_dim)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{agent.origin}: {task}, {_inputs(agent.policy)}: {error}") from error
    expected = {"action": [2, action_dim], "state_action_value": [2, getattr(agent.critic, "num_critics", 0)]}
    expected["state_value"] = [2, 1]
    for name, shape in shapes.items():
        require(
            shape == expected[name],
            f"{agent.origin}: {task}; {name} of two of them has shape {shape}, expected {expected[name]}.",
        )
    inside = bool(torch.isfinite(action).all()) and float(action.abs().max()) <= 1.0
    require(inside, f"{agent.origin}: its actions must lie in [-1, 1], found {action.flatten()[:6].tolist()}.")
    squashed, wanted = isinstance(dist, TanhNormal), learner_type(algorithm).squashed
    # The density of one that is not squashed must exist at the bounds of the actions.
    trains = "a Gaussian squashed by a tanh" if wanted else "a Gaussian that is not squashed"
    require(
        squashed == wanted,
        f"algorithm={algorithm} trains {trains}, and the policy of {agent.origin} is a {type(dist).__name__}."
        f" Use algorithm={'sac or cql' if squashed else 'iql, awac or bc'}.",
    )


@torch.no_grad()
def _try(agent: Agent, observation_dim: int) -> tuple[dict[str, list[int]], Tensor, Any]:
    """The shapes of what the networks give for two observations, the actions, and their distribution."""
    rows: Any = TensorDict({"observation": torch.zeros(2, observation_dim)}, [2])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        agent.policy(rows)
        dist = agent.policy.get_dist(rows.select("observation"))
    for network in (agent.critic, agent.value):
        if network is not None:
            network(rows)
    names = (
        ["action"] + ["state_action_value"] * (agent.critic is not None) + ["state_value"] * (agent.value is not None)
    )
    return {name: list(rows[name].shape) for name in names}, rows["action"], dist


def _inputs(policy: nn.Module) -> str:
    first = next((part for part in policy.modules() if isinstance(part, nn.Linear)), None)
    return "the policy failed" if first is None else f"its policy takes {first.in_features}"
