"""Gymnasium wrappers: what stands between a raw environment and the agent's units."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import numpy.typing as npt

from o3f.data.actions import check_action_space, to_env_actions
from o3f.data.rewards import RewardRule
from o3f.errors import ActionError

Env = gymnasium.Env[Any, Any]
Wrapper = gymnasium.Wrapper[Any, Any, Any, Any]
Step = tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]
Reset = tuple[Any, dict[str, Any]]


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Go back into the present folder where the block has left it: paths of runs and datasets are seen from there."""
    before = os.getcwd()
    try:
        yield
    finally:
        if os.getcwd() != before:
            os.chdir(before)


class Sound(Wrapper):
    """Makes a failure of the environment of what would go unnoticed, or end the process, later than its first step.

    That is where :func:`~o3f.envs.check_interface` looks. The lowest wrapper, so that all of ours meet the same.

    Raises:
        RuntimeError: in ``step`` and ``reset``, if the environment ends the process with ``sys.exit``, or
            the reward, ``terminated``, ``truncated`` or ``info`` are not what Gymnasium's interface says.
    """

    def step(self, action: Any) -> Step:
        """Step."""
        try:
            with staying():
                result = self.env.step(action)
        except SystemExit as error:
            raise RuntimeError(f"{self.env} called sys.exit({error.code}) in step.") from error
        for name, flag in (("terminated", result[2]), ("truncated", result[3])):
            if not isinstance(flag, bool | np.bool_):
                raise RuntimeError(f"{name} is {flag!r} ({type(flag).__name__}), expected True or False.")
        if not isinstance(result[4], dict):
            raise RuntimeError(f"info is {result[4]!r} ({type(result[4]).__name__}), expected a dict.")
        return result[0], _number(result[1]), *result[2:]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Reset."""
        try:
            with staying():
                return self.env.reset(seed=seed, options=options)
        except SystemExit as error:
            raise RuntimeError(f"{self.env} called sys.exit({error.code}) in reset.") from error


def _number(reward: Any) -> float:
    try:
        if isinstance(reward, str | bytes):
            raise TypeError
        return float(reward)
    except (TypeError, ValueError) as error:
        raise RuntimeError(f"The reward is {reward!r} ({type(reward).__name__}), expected a number.") from error


class FrameSkip(Wrapper):
    """Hold each action for ``frames`` steps; rewards are summed, a finished episode stops it early.

    An environment may change the array that it is given: each step gets its own.
    """

    def __init__(self, env: Env, frames: int) -> None:
        super().__init__(env)
        self.frames = frames

    def step(self, action: Any) -> Step:
        """Take up to ``frames`` steps with one action."""
        observation, reward, terminated, truncated, info = self.env.step(np.copy(action))
        total = float(reward)
        for _ in range(self.frames - 1):
            if terminated or truncated:
                break
            observation, reward, terminated, truncated, info = self.env.step(np.copy(action))
            total += float(reward)
        return observation, total, terminated, truncated, info


class GoalRadius(Wrapper):
    r"""Reward 1 and the end of the episode within ``radius`` of the goal, 0 elsewhere.

    :math:`r = \mathbb{1}[\lVert g - x \rVert \le \text{radius}]` with :math:`x` the achieved and :math:`g`
    the desired goal after the step. D4RL's AntMaze uses 0.5, Gymnasium-Robotics 0.45; the environment and
    the rewards of the dataset must use the same. Sets ``info["success"]``.

    Raises:
        ValueError: if the observation has no ``achieved_goal`` and ``desired_goal``.
    """

    def __init__(self, env: Env, radius: float) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, gymnasium.spaces.Dict) or not {"achieved_goal", "desired_goal"} <= set(space):
            raise ValueError(f"goal_radius={radius} needs achieved_goal and desired_goal observations, found {space}.")
        self.radius = radius

    def step(self, action: Any) -> Step:
        """Step, then judge the position reached."""
        observation, _, _, truncated, info = self.env.step(action)
        success = within_radius(observation["achieved_goal"], observation["desired_goal"], self.radius)
        return observation, float(success), bool(success), truncated, {**info, "success": bool(success)}


def within_radius(
    position: npt.NDArray[np.floating], goal: npt.NDArray[np.floating], radius: float
) -> npt.NDArray[np.bool_]:
    """Whether positions ``[*B, 2]`` lie within ``radius`` of goals ``[*B, 2]``; shape ``[*B]``."""
    return np.asarray(np.linalg.norm(position - goal, axis=-1) <= radius)


class UnitActions(Wrapper):
    r"""Actions in [-1, 1], float32, whatever the bounds of the environment.

    The environment receives :math:`c + \text{scale} \cdot h \cdot a` with :math:`c` the centre and :math:`h`
    the half width of its bounds, always an element of its action space (:func:`~o3f.data.actions.to_env_actions`).
    No action that is NaN or outside [-1, 1] ever reaches it.

    Raises:
        ValueError: if the action space is not a bounded vector.
        ActionError: in ``step``, if the action is not finite, outside [-1, 1], or of another shape.
    """

    def __init__(self, env: Env, scale: float = 1.0) -> None:
        super().__init__(env)
        self.bounds = check_action_space(env.action_space)
        self.centre = (self.bounds.high + self.bounds.low) / 2
        self.half = (self.bounds.high - self.bounds.low) / 2
        self.scale = scale
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, self.bounds.shape, np.float32)

    def step(self, action: Any) -> Step:
        """Step with an action in [-1, 1]."""
        action = np.asarray(action)
        if action.shape != self.bounds.shape:
            raise ActionError(f"The action is {list(action.shape)}, the environment's are {list(self.bounds.shape)}.")
        if not (np.abs(action) <= 1.0).all():  # NaN fails the comparison too
            raise ActionError(
                f"Action {np.array2string(action, threshold=10)} is not in [-1, 1]: it was not sent to the"
                " environment. Check the policy for NaN weights, or project its actions onto the action spec."
            )
        return self.env.step(to_env_actions(action, self.bounds, self.scale))


class ResetOptions(Wrapper):
    """Pass ``options`` to every reset that brings none of its own; lists become arrays."""

    def __init__(self, env: Env, options: Mapping[str, Any]) -> None:
        super().__init__(env)
        self.options = {
            key: np.array(value) if isinstance(value, list | tuple) else value for key, value in options.items()
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Reset with the fixed options unless others are given."""
        return self.env.reset(seed=seed, options=dict(self.options) if options is None else options)


class RuledReward(Wrapper):
    """Rewards after the task's rule, for loops that store what the environment returns."""

    def __init__(self, env: Env, rule: RewardRule) -> None:
        super().__init__(env)
        self.rule = rule
        self.total = 0.0  # raw, of the episode

    def step(self, action: Any) -> Step:
        """Step and apply the rule."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        before, self.total = self.total, self.total + float(reward)
        return observation, self.rule.online(float(reward), before), terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Begin an episode, and its sum of rewards."""
        self.total = 0.0
        return self.env.reset(seed=seed, options=options)
