"""Behaviours from a config: a fixed table of kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensordict.nn import TensorDictModuleBase

from o3f.collection.behaviours.gaussian_mlp import GaussianMLP
from o3f.collection.behaviours.policies import GaussianMLPBehaviour, PolicyBehaviour, UniformBehaviour
from o3f.collection.behaviours.rollout import Behaviour
from o3f.collection.behaviours.waypoint import WaypointBehaviour
from o3f.data.observations import observation_layout
from o3f.envs import EnvConfig
from o3f.envs.wrappers import Env

LoadPolicy = Callable[[str], TensorDictModuleBase]


@dataclass(frozen=True)
class BehaviourConfig:
    """Which behaviour; what a kind does not use is ignored.

    Args:
        kind: ``random`` (uniform), ``npz`` (Gaussian MLPs from files), ``run`` (the policy of a run folder)
            or ``waypoint`` (a goal-reaching ant in a maze).
        path: an ``.npz`` file; for ``npz`` also a list of them, used in turn; for ``run`` the folder.
        sample: False acts with the mean (``npz``, ``run``).
        noise: standard deviation of Gaussian noise added to the action (``npz``, ``waypoint``).
        goals: cells (row, column) to walk to (``waypoint``); None takes those marked in the maze.
        position_noise: spread of starts and goals in their cells (``waypoint``).
    """

    kind: str
    path: str | Sequence[str] | None = None
    sample: bool = True
    noise: float = 0.0
    goals: Sequence[Sequence[int]] | None = None
    position_noise: float = 0.25


def make_behaviour(
    config: BehaviourConfig, env: Env, env_config: EnvConfig, load_policy: LoadPolicy | None = None
) -> Behaviour:
    """Build the behaviour for an environment.

    Args:
        config: which behaviour.
        env: from :func:`o3f.envs.make_raw_env` with ``env_config``.
        env_config: says which observation keys the policies read and, for ``waypoint``, the rewarded goal
            (``reset_options["goal_cell"]`` and ``goal_radius``).
        load_policy: reads the policy of a run folder, for ``run``.

    Raises:
        ValueError: if the kind is unknown, or lacks a path or a goal, or does not fit the environment.
        FileNotFoundError: if a file does not exist.
    """
    (action_dim,) = env.action_space.shape or (0,)
    if config.kind == "random":
        return UniformBehaviour(action_dim)
    if config.kind not in ("npz", "run", "waypoint"):
        raise ValueError(f"A behaviour's kind is random, npz, run or waypoint, found '{config.kind}'.")
    if not config.path:
        what = "a run folder" if config.kind == "run" else "an .npz file with a Gaussian MLP policy"
        raise ValueError(f"Behaviour '{config.kind}' needs a path: {what} (task.behaviour.path=...).")
    paths = [config.path] if isinstance(config.path, str) else list(config.path)
    layout = observation_layout(env.observation_space, env_config.observation_keys)
    if config.kind == "run":
        if load_policy is None:
            raise ValueError("Behaviour 'run' needs load_policy, which reads the policy of a run folder.")
        return PolicyBehaviour(load_policy(paths[0]), layout, sample=config.sample)
    policies = [GaussianMLP.load(path) for path in paths]
    for policy in policies:
        if policy.action_dim != action_dim:
            raise ValueError(f"The policy has {policy.action_dim} actions, {env_config.id} {action_dim}.")
    if config.kind == "npz":
        return GaussianMLPBehaviour(policies, layout, sample=config.sample, noise=config.noise)
    return _waypoint(config, policies[0], env, env_config)


def _waypoint(config: BehaviourConfig, policy: GaussianMLP, env: Env, env_config: EnvConfig) -> Behaviour:
    goal = (env_config.reset_options or {}).get("goal_cell")
    if goal is None or env_config.goal_radius is None:
        raise ValueError(
            f"Behaviour 'waypoint' needs reset_options.goal_cell and goal_radius; {env_config.id} has"
            f" {goal} and {env_config.goal_radius}."
        )
    return WaypointBehaviour(
        policy,
        env,
        target=(int(goal[0]), int(goal[1])),
        radius=env_config.goal_radius,
        goals=None if config.goals is None else [(int(row), int(column)) for row, column in config.goals],
        noise=config.noise,
        position_noise=config.position_noise,
    )
