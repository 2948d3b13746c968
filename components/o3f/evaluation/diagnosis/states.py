"""States of a MuJoCo environment: saved on the way, and set again exactly."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.envs import EnvConfig, episode_seed, make_raw_env
from o3f.envs.flat_observation import FlatObservation
from o3f.envs.wrappers import Env
from o3f.errors import ConfigError, optional
from o3f.evaluation.playing import act, with_place

Action = npt.NDArray[np.float32]

Outcome = tuple[npt.NDArray[np.float32], float, bool]
"""Of an agent step: the observation, the raw reward, and whether the task ended."""

NO_LIMIT = 10**9
"""Agent steps: more than any rollout has."""


@dataclass(frozen=True)
class State:
    """A state that the policy met.

    Attributes:
        seed: of the reset of its episode, which fixes what is drawn there (a goal, for example).
        physics: MuJoCo's whole state (``MjData``), the positions, velocities and the solver's start among it.
        observation: ``[O]``.
        action: what the policy did there, sampled, ``[A]``.
    """

    seed: int
    physics: Any
    observation: npt.NDArray[np.float32]
    action: Action


class Simulator:
    """An environment without a time limit that can be set to saved states.

    Args:
        config: the environment.

    Raises:
        ConfigError: it is no MuJoCo environment.
    """

    def __init__(self, config: EnvConfig) -> None:
        self.env = FlatObservation(make_raw_env(replace(config, max_episode_steps=NO_LIMIT)), config.observation_keys)
        self._copy = optional("mujoco", "mujoco").mj_copyData
        mujoco_data(self.env)

    def restore(self, state: State) -> None:
        """Continue from a saved state."""
        self.env.reset(seed=state.seed)
        raw: Any = self.env.unwrapped
        self._copy(raw.data, raw.model, state.physics)

    def step(self, action: Action) -> Outcome:
        """Take an agent step; returns the observation, the raw reward and whether the task ended."""
        with with_place("in a rollout from a saved state"):
            observation, reward, terminated, _, _ = self.env.step(action)
        return observation, float(reward), terminated


def mujoco_data(env: Env) -> Any:
    """Return the simulator's state of an environment, not copied.

    Raises:
        ConfigError: it is no MuJoCo environment.
    """
    mujoco, raw = optional("mujoco", "mujoco"), env.unwrapped
    data = getattr(raw, "data", None)
    if not isinstance(data, mujoco.MjData) or not isinstance(getattr(raw, "model", None), mujoco.MjModel):
        name = raw.spec.id if raw.spec is not None else str(raw)
        raise ConfigError(
            f"{name} cannot be set to a state: expected a MuJoCo environment, whose unwrapped environment has 'model'"
            f" (MjModel) and 'data' (MjData), found {type(raw).__name__} without. There is no diagnosis for it: compare"
            " short runs of finetune with exploration=optimistic and exploration=policy instead."
        )
    return data


def visited_states(
    policy: TensorDictModuleBase, config: EnvConfig, *, count: int, every: int, seed: int
) -> Iterator[State]:
    """Play episodes with the policy as it samples, and save a state at regular distances.

    Args:
        policy: reads ``observation`` and writes ``action``; draws from torch's global stream.
        config: the environment, with its own time limit.
        count: how many states.
        every: agent steps between two of them, counted over the ends of episodes; the first is a random one of them.
        seed: of the episodes.

    Raises:
        ConfigError: it is no MuJoCo environment, or what follows a state is not what follows when it is set again: the
            environment remembers something beside it, such as the tasks that are done.
    """
    again = Simulator(config)
    wait = int(np.random.default_rng(seed).integers(every))
    env = FlatObservation(make_raw_env(config), config.observation_keys)
    with contextlib.closing(env), contextlib.closing(again.env):
        episode, done = -1, True
        observation = np.zeros(0, np.float32)
        while count:
            is_init = done
            if is_init:
                episode += 1
                observation, _ = env.reset(seed=episode_seed(seed, episode))
            action = chosen(policy, observation[None], ExplorationType.RANDOM, is_init)[0]
            state = None
            if wait == 0:
                state = State(episode_seed(seed, episode), copy.copy(mujoco_data(env)), observation, action)
                yield state
                count, wait = count - 1, every
            wait -= 1
            with with_place(f"in episode {episode}"):
                observation, reward, terminated, truncated, _ = env.step(action)
            if state is not None:
                again.restore(state)
                compare_steps(config, (observation, float(reward), terminated), again.step(action))
            done = terminated or truncated


def chosen(
    policy: TensorDictModuleBase, observations: npt.NDArray[np.float32], exploration: Any, is_init: bool = False
) -> Action:
    """Return the policy's actions ``[B, A]`` under an exploration type, for observations ``[B, O]``."""
    with set_exploration_type(exploration):
        return act(policy, observations, [is_init] * len(observations))


def check_restores(config: EnvConfig, seed: int, steps: int = 5) -> None:
    """Save a state after some steps, and compare what follows with what follows when it is set again, bit for bit.

    Args:
        config: the environment.
        seed: of the reset and of the actions.
        steps: before and after the state.

    Raises:
        ConfigError: it is no MuJoCo environment, or one with a state beside MuJoCo's.
    """
    rng = np.random.default_rng(seed)
    first, second = Simulator(config), Simulator(config)
    with contextlib.closing(first.env), contextlib.closing(second.env):
        (size,) = first.env.action_space.shape or (0,)
        actions = rng.uniform(-1.0, 1.0, (2, steps, size)).astype(np.float32)
        observation, _ = first.env.reset(seed=seed)
        for action in actions[0]:
            observation, _, _ = first.step(action)
        second.restore(State(seed, copy.copy(mujoco_data(first.env)), observation, actions[1, 0]))
        for action in actions[1]:
            compare_steps(config, first.step(action), second.step(action))


def compare_steps(config: EnvConfig, expected: Outcome, found: Outcome) -> None:
    """Refuse an environment whose step from a state that was set again differs from the first one, by a bit."""
    if not (np.array_equal(expected[0], found[0]) and expected[1:] == found[1:]):
        raise ConfigError(
            f"{config.id} cannot be set to a state: from the same state of the simulator the same actions led"
            f" to another observation or reward ({expected[1]!r}, then {found[1]!r}), so it draws noise or"
            " remembers something beside. There is no diagnosis for it: compare short runs of finetune with"
            " exploration=optimistic and exploration=policy instead."
        )
