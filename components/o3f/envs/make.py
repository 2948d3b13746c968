"""Environments from a task's numbers: raw, flat and seeded, or ready for a TorchRL collector."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from torchrl.envs import EnvBase, GymWrapper

from o3f.data.actions import check_action_scale
from o3f.data.rewards import RewardRule
from o3f.envs.checks import check_interface
from o3f.envs.flat_observation import FlatObservation
from o3f.envs.restarts import Restarting
from o3f.envs.seeds import SeededResets, episode_seed
from o3f.envs.wrappers import Env, FrameSkip, GoalRadius, ResetOptions, RuledReward, Sound, UnitActions, staying
from o3f.errors import number
from o3f.modules.arguments import whole_number
from o3f.runs.counters import Counters


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and in which units the agent meets it.

    Args:
        id: any Gymnasium id.
        kwargs: arguments of the environment.
        frame_skip: environment steps per agent step.
        action_scale: agent action 1.0 goes this part of the way from the centre to the bound.
        observation_keys: keys of a ``Dict`` observation to take, in this order; None takes all.
        reset_options: options of every reset, for example the cells of a maze.
        attributes: values set on the unwrapped environment after it is made; names within a name are set on that
            attribute, ``{"ant_env": {"_reset_noise_scale": 0.1}}``.
        max_episode_steps: time limit in *agent* steps; None keeps the environment's own, in its own steps.
        goal_radius: reward 1 and the end within this distance of the goal; None keeps the environment's own.

    Raises:
        ValueError: if a number is out of range.

    Examples:
        >>> EnvConfig("Pusher-v5", action_scale=0.5).frame_skip
        1
    """

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    frame_skip: int = 1
    action_scale: float = 1.0
    observation_keys: Sequence[str] | None = None
    reset_options: Mapping[str, Any] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    goal_radius: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise ValueError(f"id must be the name of a Gymnasium environment, found {self.id!r}.")
        whole_number("frame_skip", self.frame_skip)
        check_action_scale(self.action_scale)
        if self.max_episode_steps is not None:
            whole_number("max_episode_steps", self.max_episode_steps)
        if self.goal_radius is not None:
            number("goal_radius", self.goal_radius, "(0, inf)")
        for name in ("kwargs", "reset_options", "attributes"):
            value = getattr(self, name)
            if not (isinstance(value, Mapping) or (value is None and name == "reset_options")):
                raise ValueError(f"{name} must be named values, found {value!r}.")


def make_raw_env(config: EnvConfig, *, render_mode: str | None = None) -> Env:
    """The environment with the agent's actions and rate, its observations still in their own form.

    Args:
        config: the environment and its units.
        render_mode: of the environment; None leaves it out.

    Returns:
        A Gymnasium environment with actions in [-1, 1]; one step is one agent step.

    Raises:
        ValueError: if the id is unknown, an argument or attribute is not the environment's, there is no time
            limit, or the actions are discrete or unbounded.
        RuntimeError: if the environment refuses to be made.
        ImportError: if the environment needs a package that is not installed.
    """
    env: Env = Sound(_make(config, {} if render_mode is None else {"render_mode": render_mode}))
    _check_spaces(env, config.id)
    if env.spec is None or env.spec.max_episode_steps is None:
        raise ValueError(f"{config.id} has no time limit of its own. Set max_episode_steps (agent steps).")
    _set_attributes(env.unwrapped, config.attributes, config.id)
    if config.frame_skip > 1:
        env = FrameSkip(env, config.frame_skip)
    if config.goal_radius is not None:
        env = GoalRadius(env, config.goal_radius)
    env = UnitActions(env, config.action_scale)
    return env if config.reset_options is None else ResetOptions(env, config.reset_options)


def _set_attributes(owner: Any, values: Mapping[str, Any], name: str) -> None:
    for attribute, value in values.items():
        if not hasattr(owner, attribute):
            raise ValueError(f"attributes: {name} has no attribute '{attribute}'.")
        if isinstance(value, Mapping):
            _set_attributes(getattr(owner, attribute), value, f"{name}'s {attribute}")
        else:
            setattr(owner, attribute, value)


def make_gym_env(
    config: EnvConfig,
    *,
    seed: int,
    first_episode: int = 0,
    reward: RewardRule | None = None,
    max_failures: int | None = None,
    counters: Counters | None = None,
) -> Env:
    """A Gymnasium environment with flat float32 observations, actions in [-1, 1] and seeded episodes.

    Args:
        config: the environment and its units.
        seed: base seed; episode ``k`` resets with ``episode_seed(seed, k)``.
        first_episode: number of the first episode.
        reward: the task's rule; None keeps raw rewards.
        max_failures: None raises whatever the environment raises; with a number it is started anew, see
            :class:`~o3f.envs.Restarting`.
        counters: where failures are counted.

    Raises:
        ValueError: as :func:`make_raw_env`, and for observations that are pixels, text or discrete.
        KeyError: if a key of ``observation_keys`` is not in the observation.
        ImportError: if the environment needs a package that is not installed.
    """

    def make() -> Env:
        env = FlatObservation(make_raw_env(config), config.observation_keys)
        return env if reward is None else RuledReward(env, reward)

    if not (reward is None or isinstance(reward, RewardRule)):
        raise TypeError(f"reward must be a RewardRule or None, got {reward!r}: RewardRule(scale=2.0) for example.")
    episode_seed(seed, first_episode)  # refuses what is no seed
    env = make() if max_failures is None else Restarting(make, max_failures, counters)
    return SeededResets(env, seed, first_episode)


def make_env(
    config: EnvConfig,
    *,
    seed: int,
    first_episode: int = 0,
    reward: RewardRule | None = None,
    max_failures: int | None = None,
    counters: Counters | None = None,
    device: str = "cpu",
) -> EnvBase:
    """A TorchRL environment for a ``Collector``; arguments and errors as :func:`make_gym_env`.

    What the environment returns is looked at first (:func:`~o3f.envs.check_interface`), in a copy of its own. Where
    there can be no two of it at a time, that is a warning: evaluations need one, too.

    Returns:
        Keys ``observation`` ``[O]`` and ``reward`` ``[1]``, float32; ``action`` ``[A]``, ``Bounded(-1, 1)``;
        ``done``, ``terminated`` and ``truncated`` ``[1]``; nothing else.
    """
    with contextlib.closing(make_raw_env(config)) as probe:
        check_interface(probe, episode_seed(seed, first_episode))
    env = make_gym_env(
        config, seed=seed, first_episode=first_episode, reward=reward, max_failures=max_failures, counters=counters
    )
    _try_another(config, episode_seed(seed, first_episode))
    return GymWrapper(env, device=device)


def _try_another(config: EnvConfig, seed: int) -> None:
    """Say it now, and not at every evaluation, where an environment cannot be made and reset beside the first."""
    try:
        with contextlib.closing(make_raw_env(config)) as other:
            other.reset(seed=seed)
    except Exception as error:
        warnings.warn(
            f"There can be no second {config.id} in this process ({type(error).__name__}: {error}), and evaluations"
            " have one of their own while this one collects: they will fail, and the run will have no scores. If it"
            " is a process that can have one only, collect in another: collector=multi_sync num_workers=1. If it is"
            " the machine, go on without, and play the episodes afterwards: evaluate run=FOLDER.",
            RuntimeWarning,
            stacklevel=3,
        )


def _check_spaces(env: Env, name: str) -> None:
    for space in ("observation_space", "action_space"):
        found = getattr(env, space, None)
        if not isinstance(found, gymnasium.Space):
            raise ValueError(f"{name} has the {space} {found!r}, expected a gymnasium.Space, set where it is made.")


def _make(config: EnvConfig, extra: Mapping[str, Any]) -> Env:
    module, _, name = config.id.rpartition(":")
    if not module and name not in gymnasium.registry and importlib.util.find_spec("gymnasium_robotics"):
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
    limit = None if config.max_episode_steps is None else config.max_episode_steps * config.frame_skip
    arguments = {**config.kwargs, **extra}
    try:
        with staying():
            return gymnasium.make(config.id, max_episode_steps=limit, disable_env_checker=True, **arguments)
    except gymnasium.error.UnregisteredEnv as error:
        raise ValueError(_unknown(config.id)) from error
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        what = 'Try: pip install "o3f[robotics]"'
        missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if missing not in ("", "mujoco", "gymnasium_robotics"):
            what = f"Try: pip install {missing}, or what provides it"
        if module and importlib.util.find_spec(module.split(".")[0]) is None:
            what = f"Python looks for {module}.py in the folders of PYTHONPATH: export PYTHONPATH=FOLDER"
        raise ImportError(f"{config.id} needs a package that is not installed ({error}). {what}") from error
    except TypeError as error:
        raise ValueError(f"{config.id} does not take the arguments {arguments}: {error}") from error
    except (Exception, SystemExit) as error:  # an assertion often says nothing
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise RuntimeError(
            f"{config.id} could not be made with {arguments}: {type(error).__name__} in {where.filename}:"
            f"{where.lineno} ({where.line}) {error}".rstrip()
        ) from error


def _unknown(env_id: str) -> str:
    near = difflib.get_close_matches(env_id, gymnasium.registry, n=5) or ["none"]
    message = f"Environment '{env_id}' is not known to Gymnasium. Nearest: {', '.join(near)}."
    if importlib.util.find_spec("gymnasium_robotics") is None:
        message += ' AntMaze, Kitchen and other robotics tasks need: pip install "o3f[robotics]"'
    return message
