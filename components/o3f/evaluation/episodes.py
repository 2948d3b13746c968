"""Evaluation of a policy on environments of its own, leaving every training stream untouched."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.envs import EnvConfig, episode_seed
from o3f.envs.flat_observation import FlatObservation
from o3f.evaluation.playing import act, isolated, own_env, with_place
from o3f.modules.arguments import check_module, whole_number

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation saw, episode by episode.

    Attributes:
        returns: undiscounted sums of raw rewards, ``[E]``.
        lengths: agent steps, ``[E]``.
        successes: whether ``info["success"]`` was ever true, ``[E]``; None where the environment never says.
    """

    returns: Floats
    lengths: npt.NDArray[np.int64]
    successes: npt.NDArray[np.bool_] | None


def normalised_score(returns: Floats, minimum: float | None, maximum: float | None) -> Floats:
    r"""D4RL's score, :math:`100\,(R - R_{min}) / (R_{max} - R_{min})`; raw returns where there is no range.

    Examples:
        >>> normalised_score(np.array([0.0, 5.0]), -5.0, 5.0).tolist()
        [50.0, 100.0]
    """
    if minimum is None or maximum is None:
        return returns
    return 100.0 * (returns - minimum) / (maximum - minimum)


def evaluate(
    policy: TensorDictModuleBase,
    config: EnvConfig,
    *,
    episodes: int,
    seed: int,
    exploration: ExplorationType = ExplorationType.DETERMINISTIC,  # pyright: ignore[reportArgumentType]
    max_parallel: int = 32,
) -> Evaluation:
    """Play episodes and sum their raw rewards.

    The episodes run in lock-step in this process, one environment each, so that the policy is called once
    for all of them; where there cannot be so many environments, in as many as there can. Episode ``k`` resets
    with ``episode_seed(seed, k)``: the same seed means the same episodes. Dropout is off, and everything drawn
    comes from streams seeded here; the training's are put back afterwards, those that the policy's modules own
    included (:func:`~o3f.evaluation.playing.isolated`). Where all begin with the same observation and
    come to the same return in as many steps, a warning says that they are likely to be one episode.

    Args:
        policy: reads ``observation`` ``[E, O]`` and writes ``action`` ``[E, A]`` in [-1, 1]. The entry
            ``is_init`` ``[E, 1]`` is true on the first step of an episode.
        config: the environment; its reward rule does not apply here.
        episodes: how many, at least 1.
        seed: of the episodes and of what the policy draws.
        exploration: ``DETERMINISTIC`` evaluates the plain policy (the paper's protocol), ``RANDOM`` what a
            collector would execute.
        max_parallel: most environments at a time.

    Raises:
        ValueError: if ``episodes`` or ``max_parallel`` is no whole number >= 1, or ``seed`` none >= 0.
        TypeError: if ``policy`` is no TensorDictModule, or ``exploration`` no exploration type.
        EvaluationError: if the environment fails or gives a value that is not finite.
        ActionError: if the policy gives an action that is not finite or outside [-1, 1].
    """
    episodes, max_parallel = whole_number("episodes", episodes), whole_number("max_parallel", max_parallel)
    seed = whole_number("seed", seed, least=0)
    check_module("policy", policy)
    if not isinstance(exploration, ExplorationType):
        raise TypeError(f"exploration must be one of torchrl.envs.utils.ExplorationType, got {exploration!r}.")
    record = _Record(episodes)
    numbers = iter(range(episodes))
    with contextlib.ExitStack() as stack:
        stack.enter_context(isolated(policy, seed))
        stack.enter_context(set_exploration_type(exploration))
        envs = _own_envs(config, min(episodes, max_parallel))
        for env in envs:
            stack.callback(env.close)
        players = [_Player(env, seed, numbers, record) for env in envs]
        starts = np.stack([player.observation for player in players])  # a copy
        while any(player.episode is not None for player in players):
            observations = np.stack([player.observation for player in players])
            actions = act(policy, observations, [player.is_init for player in players])
            for player, action in zip(players, actions, strict=True):
                player.step(action)
    result = Evaluation(record.returns, record.lengths, record.successes if record.judged else None)
    _warn_if_one(starts, result)
    return result


class _Record:
    """The figures of all episodes, filled in as they are played."""

    def __init__(self, episodes: int) -> None:
        self.returns = np.zeros(episodes)
        self.lengths = np.zeros(episodes, dtype=np.int64)
        self.successes = np.zeros(episodes, dtype=np.bool_)
        self.judged = False


def _own_envs(config: EnvConfig, count: int) -> list[FlatObservation]:
    """As many as were asked for, or as there can be at a time: a simulator may own a port, or its process."""
    envs = [own_env(config)]
    try:
        while len(envs) < count:
            envs.append(own_env(config))
    except Exception as error:
        warnings.warn(
            f"There can be {len(envs)} of {count} environments at a time, so the episodes of an evaluation are played"
            f" one after the other in what there is. {error}",
            RuntimeWarning,
            stacklevel=3,
        )
    return envs


def _warn_if_one(starts: npt.NDArray[np.float32], result: Evaluation) -> None:
    episodes = len(result.returns)
    same = all(len(set(numbers.tolist())) == 1 for numbers in (result.returns, result.lengths))
    if episodes > 1 and same and bool((starts == starts[0]).all()):
        warnings.warn(
            f"The {episodes} episodes of this evaluation began with the same observation and ended with the same return"
            " after as many steps: they are likely to be one episode. Let the environment start at random (task.env),"
            " or save the time: evaluation.episodes=1.",
            RuntimeWarning,
            stacklevel=3,
        )


class _Player:
    """One environment, playing the next episode that nobody plays yet; parked when none is left."""

    def __init__(self, env: FlatObservation, seed: int, numbers: Iterator[int], record: _Record) -> None:
        self.env, self.seed, self.numbers, self.record = env, seed, numbers, record
        self._next()

    def _next(self) -> None:
        self.episode = next(self.numbers, None)
        self.is_init = True
        if self.episode is not None:
            with with_place(f"at the start of episode {self.episode}"):
                self.observation, _ = self.env.reset(seed=episode_seed(self.seed, self.episode))

    def step(self, action: npt.NDArray[Any]) -> None:
        """Take a step of the current episode, if there is one."""
        if self.episode is None:
            return
        record, episode = self.record, self.episode
        with with_place(f"in episode {episode} at step {record.lengths[episode]}"):
            self.observation, reward, terminated, truncated, info = self.env.step(action)
            success: Any = info.get("success", info.get("is_success"))
            if np.size(success) != 1 or np.asarray(success).item() not in (None, True, False):
                raise ValueError(f"success is {success!r} in the environment's info, expected True or False.")
        record.returns[episode] += float(reward)
        record.lengths[episode] += 1
        record.judged |= success is not None
        record.successes[episode] |= bool(success)
        self.is_init = False
        if terminated or truncated:
            self._next()
