"""Behaviours act on raw observations; a rollout turns one into a trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from o3f.envs.seeds import episode_seed, own_streams
from o3f.envs.wrappers import Env

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Trajectory:
    """One episode of T steps.

    Attributes:
        observations: raw observations, ``[T + 1, ...]``; a mapping of such arrays for ``Dict`` spaces.
        actions: the agent's, in [-1, 1], float32, ``[T, A]``.
        rewards: raw, float64, ``[T]``.
        terminated: whether the task ended, ``[T]``.
        truncated: whether the recording ended though the task had not, ``[T]``.
        seed: the seed of the reset.
    """

    observations: Any
    actions: Array
    rewards: Array
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    seed: int

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.rewards)


class Behaviour(Protocol):
    """What acts while a dataset is collected; subclasses override what they need."""

    def start(self, episode: int, rng: np.random.Generator) -> dict[str, Any] | None:
        """Prepare for an episode and return the options of its reset, if any."""
        return None

    def act(self, observation: Any, rng: np.random.Generator) -> Array:
        """Choose an action ``[A]`` in [-1, 1] from one raw observation."""
        ...

    def finish(self, trajectory: Trajectory) -> Trajectory:
        """Change the trajectory after the fact, for example relabel its rewards."""
        return trajectory


def rollout(env: Env, behaviour: Behaviour, *, seed: int, episode: int, max_steps: int) -> Trajectory:
    """Record one episode.

    Everything drawn here depends on ``(seed, episode)`` alone, also what the environment or the behaviour draws from
    the global streams of Python, NumPy and torch, which are put back afterwards. An episode cut off by ``max_steps``
    ends as truncated. Observations are copied, since an environment may give the same array every time.

    Args:
        env: from :func:`o3f.envs.make_raw_env`.
        behaviour: what acts; its actions are clipped to [-1, 1].
        seed: of the whole collection.
        episode: number of this episode.
        max_steps: at least 1.

    Raises:
        RuntimeError: if an observation or a reward is not finite, or the environment fails in another way.
    """
    rng = np.random.default_rng([seed, episode, 1])
    reset_seed = episode_seed(seed, episode)
    with own_streams(reset_seed):
        observation, _ = env.reset(seed=reset_seed, options=behaviour.start(episode, rng))
        observations: list[Any] = [checked(observation, 0.0, 0)]
        steps: list[tuple[Array, float, bool, bool]] = []
        done = False
        while not done:
            action = np.clip(behaviour.act(observation, rng), -1.0, 1.0).astype(np.float32)
            observation, reward, terminated, truncated, _ = env.step(action)
            truncated = truncated or (len(steps) + 1 == max_steps and not terminated)
            steps.append((action, float(reward), bool(terminated), bool(truncated)))
            observations.append(checked(observation, steps[-1][1], len(steps)))
            done = terminated or truncated
    actions, rewards, terminations, truncations = zip(*steps, strict=True)
    trajectory = Trajectory(
        observations=stack(observations),
        actions=np.stack(actions),
        rewards=np.array(rewards, dtype=np.float64),
        terminated=np.array(terminations, dtype=np.bool_),
        truncated=np.array(truncations, dtype=np.bool_),
        seed=reset_seed,
    )
    return behaviour.finish(trajectory)


def checked(observation: Any, reward: float, step: int) -> Any:
    """Return a copy of an observation, leaf by leaf.

    Raises:
        RuntimeError: if it or the reward is not finite.
    """
    if isinstance(observation, dict):
        return {key: checked(value, reward, step) for key, value in observation.items()}
    copied = np.array(observation)
    if not (np.isfinite(copied).all() and np.isfinite(reward)):
        raise RuntimeError(
            f"step {step} gave a value that is not finite: observation {np.array2string(copied, threshold=20)}, reward"
            f" {reward}. The physics diverged or the environment has a bug."
        )
    return copied


def stack(observations: list[Any]) -> Any:
    """Stack arrays, or mappings of arrays leaf by leaf."""
    if isinstance(observations[0], dict):
        return {key: stack([each[key] for each in observations]) for key in observations[0]}
    return np.stack(observations)
