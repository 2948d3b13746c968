"""From a run's configuration to its objects."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from tensordict.nn import TensorDictModuleBase
from torchrl.data import ReplayBuffer

from o3f.adapters import Agent, check_agent
from o3f.algorithms import Learner, make_learner
from o3f.collection import Settings
from o3f.data import (
    ReturnRule,
    RewardRule,
    check_environment,
    check_maze,
    dataset_info,
    load_file,
    load_minari,
    make_buffer,
    open_dataset,
)
from o3f.envs import EnvConfig, make_gym_env, make_raw_env
from o3f.errors import ConfigError, require
from o3f.modules import OptimisticActor
from o3f.objectives import BestOfNValue, DistillationLoss
from o3f.runs.identity import leaves, plain
from o3f.training.exploration import coefficients, make_actor
from o3f.training.schedules import Schedule

#: Keys of ``config.algorithm`` that are no hyper-parameters of a learner.
RECIPE_KEYS = ("name", "batch_size", "updates_per_step", "offline_steps")


def env_config(config: DictConfig) -> EnvConfig:
    """Return the environment of ``config.task.env``."""
    settings: Any = OmegaConf.to_container(config.task.env, resolve=True)
    return EnvConfig(**settings)


def reward_rule(config: DictConfig) -> RewardRule:
    """Return what the learner sees of the rewards, ``config.task.reward``."""
    reward = config.task.reward
    counted = config.task.dataset.get("rewards") == "tasks_counted"
    return RewardRule(reward.scale, reward.shift, running_sum=counted)


def collection(config: DictConfig) -> Settings:
    """Return what ``config`` says of collecting."""
    collector, online = config.collector, config.online
    return Settings(
        env_config(config),
        config.seed,
        steps=online.steps,
        random_steps=online.random_steps,
        max_failures=online.max_env_failures,
        device=config.device,
        num_workers=config.num_workers,
        **plain(collector),
    )


def learner(config: DictConfig, agent: Agent | None = None) -> Learner:
    """Build the learner of ``config.algorithm`` for the task's environment.

    Torch's global stream is seeded with ``config.seed`` first: equal configurations, equal initial weights. The
    networks of ``agent`` take the place of those drawn.

    Raises:
        ConfigError: the agent does not fit the task or the algorithm.
    """
    with contextlib.closing(make_gym_env(env_config(config), seed=config.seed)) as env:
        observation_dim, action_dim = (
            int(np.prod(space.shape or ())) for space in (env.observation_space, env.action_space)
        )
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    if agent is not None:
        check_agent(agent, config.algorithm.name, observation_dim, action_dim)
        for network in (agent.policy, agent.critic, agent.value):
            if network is not None:
                network.to(device)
    settings = hyper_parameters(config)
    try:
        return make_learner(config.algorithm.name, observation_dim, action_dim, settings, device, agent)
    except ValueError as error:
        raise ConfigError(f"{agent.origin}: {error}" if agent else str(error)) from error


def hyper_parameters(config: DictConfig) -> dict[str, Any]:
    """Return ``config.algorithm`` without what the recipes and not the learner read."""
    settings: Any = OmegaConf.to_container(config.algorithm, resolve=True)
    return {key: value for key, value in settings.items() if key not in RECIPE_KEYS}


def buffer(
    config: DictConfig,
    *,
    online_capacity: int = 0,
    online_fraction: float | None = None,
    balanced: bool = False,
    folder: Any = None,
) -> tuple[ReplayBuffer, RewardRule, dict[str, Any]]:
    """Load the dataset into a buffer with room for online rows.

    Args:
        config: its ``dataset``, ``task`` and ``offline.batch_size``; ``dataset=none`` means no dataset,
            ``dataset=path`` a file.
        online_capacity: number of online rows.
        online_fraction: share of each batch drawn from them; None is uniform over all rows.
        balanced: draw by how near rows are to what is collected now.
        folder: where memory-mapped storage goes.

    Returns:
        The buffer, the reward rule for the online rows, and what the run records of the dataset.

    Raises:
        ValueError: faults of the data, or a dataset of another environment.
        FileNotFoundError: the dataset is not here; the message says how to get it.
        ConfigError: there is no such file, or it does not fit the environment.
    """
    rule = reward_rule(config)
    sizes: Any = {"online_capacity": online_capacity, "online_fraction": online_fraction, "balanced": balanced}
    discount = config.algorithm.discount if config.algorithm.get("calibrate") else None
    if config.dataset.id == "none":
        require(
            not isinstance(rule.scale, str),
            f"task.reward.scale={rule.scale} is measured on a dataset, but dataset=none: give it as a number, the one"
            " that the agent was trained with.",
        )
        returns = None if discount is None else ReturnRule(discount)
        rows = make_buffer(None, batch_size=config.offline.batch_size, return_rule=returns, **sizes)
        return rows, rule, {"dataset": None, "dataset_hash": None}
    env = env_config(config)
    options = {
        "batch_size": config.offline.batch_size,
        "reward": rule,
        "observation_keys": env.observation_keys,
        "action_scale": config.task.dataset.action_scale,
        "storage": config.dataset.storage,
        "storage_dir": folder if config.dataset.storage == "memmap" else None,
        "max_transitions": config.dataset.max_transitions,
        "clip_actions": config.dataset.clip_actions,
        "on_nonfinite": config.dataset.on_nonfinite,
        "unmarked_ends": config.dataset.unmarked_ends,
        "reset_steps": config.dataset.reset_steps,
        "rewards": config.task.dataset.get("rewards", "recorded"),
        "return_discount": discount,
        **sizes,
    }
    with contextlib.closing(make_raw_env(env)) as recorded:
        if config.dataset.get("path") is not None:
            rows = load_file(config.dataset.path, format=config.dataset.format, env=recorded, **options)
        else:
            open_dataset(config.dataset.id, download=config.dataset.download)
            check_environment(config.dataset.id, recorded)
            rows = load_minari(config.dataset.id, **options)
        info = dataset_info(rows)
        print(info.summary)
        if (most := config.dataset.max_transitions or 0) > info.transitions:
            print(f"dataset.max_transitions={most} leaves nothing out: there are {info.transitions} transitions.")
        goal = (env.reset_options or {}).get("goal_cell")
        check_maze(rows, info, recorded, env.observation_keys or (), goal)
    measured = {"reward_scale": info.reward.scale} if isinstance(rule.scale, str) else {}
    return rows, info.reward, {"dataset": info.dataset_id, "dataset_hash": info.hash, **measured, **info.changes}


def actor(config: DictConfig, learner: Learner) -> TensorDictModuleBase:
    """Build what collects, of ``config.exploration``."""
    policy: Any = learner.policy
    return make_actor(policy, learner.critic, config.exploration, policy.spec["action"])


def schedule(config: DictConfig, learner: Learner, actor: TensorDictModuleBase) -> Schedule:
    """The coefficients' course over the online steps; O3F's is that none changes."""
    # The sigma of matched noise is not that of the configuration, so a final value could not be meant.
    acting = {} if config.exploration.kind == "matched_noise" else coefficients(actor)
    groups = {"algorithm": learner.coefficients, "exploration": acting}
    named = {f"{group}.{name}": value for group, tensors in groups.items() for name, value in tensors.items()}
    to = {name: value for name, value in leaves(plain(config.schedule.to)).items() if value != {}}
    if to and config.schedule.kind == "same":
        print(f"schedule=same: {', '.join(to)} in schedule.to is not used; schedule=abrupt or linear goes there.")
    return Schedule(config.schedule.kind, to, config.schedule.steps, named)


def chooser(config: DictConfig, learner: Learner) -> OptimisticActor:
    """Return the critics' choice that a run collects with; O3F's where it collects in another way, or not at all."""
    exploration = config.get("exploration") or {}
    if "candidates" not in exploration:
        return OptimisticActor(learner.policy, learner.critic, sigma=sigma_of(config))
    policy: Any = learner.policy
    return cast(OptimisticActor, make_actor(policy, learner.critic, exploration, policy.spec["action"]))


def evaluated_choice(config: DictConfig, learner: Learner) -> OptimisticActor:
    """Return that choice around the policy's deterministic action: evaluations draw no sample of it."""
    actor = chooser(config, learner)
    actor.optimistic_eval = True
    return actor


def sigma_of(config: DictConfig) -> Any:
    """Return the sigma that the run collected with; its task's where there is none, or one of latents."""
    exploration = config.get("exploration") or {}
    acts = "sigma" in exploration and exploration.get("candidates") != "latent"
    sigma = exploration["sigma"] if acts else config.task.sigma
    return list(sigma) if isinstance(sigma, ListConfig) else sigma


def change_objective(learner: Learner, actor: TensorDictModuleBase, config: DictConfig) -> None:
    """Install what changes more than acting, where it is asked for.

    Raises:
        ConfigError: the actor's choice is not the critics' alone.
    """
    online, kind = config.online, config.exploration.kind
    require(
        kind in ("optimistic", "ucb", "ascent") or not (online.distil_weight or online.target_candidates),
        "online.distil_weight and online.target_candidates train on what the critics choose: they need"
        f" exploration=optimistic, ucb or ascent, found {kind}.",
    )
    if online.distil_weight:
        learner.actor_term = DistillationLoss(learner.policy, cast(OptimisticActor, actor), online.distil_weight)
    if online.target_candidates:
        fewer = {**config.exploration, "num_candidates": online.target_candidates}
        policy: Any = learner.policy
        best = cast(OptimisticActor, make_actor(policy, learner.critic, fewer, policy.spec["action"]))
        moved, best_moved = coefficients(actor), coefficients(best)
        for name in moved:  # a schedule moves what acts: what the targets choose with is the same tensor
            best_moved[name].data = moved[name]
        learner.next_value = BestOfNValue(best, learner.target_critic, *learner.target_rule)
