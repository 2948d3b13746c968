"""FrankaKitchen data that end where the environment does that agents are scored in: with the last task.

Rewarded is each task once, as there, or in every step the number of tasks that are done, as in D4RL's data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from o3f.data.minari_store import Recorded

Rewards = Literal["recorded", "tasks_once", "tasks_counted"]

THRESHOLD = 0.3
"""A task is done within this distance to its goal (Gymnasium-Robotics and D4RL)."""


class KitchenTasks:
    """A Minari dataset with other rewards, and as if the last task had ended the episode.

    The hosted kitchen data reward every step with the number of tasks that are done in it, and end where the
    demonstration does. Agents act and are scored where each task counts once and the last one ends the episode.

    Args:
        dataset: with ``achieved_goal`` and ``desired_goal`` observations, a vector a task each. It is read once here,
            to count the steps that are left.
        rewards: ``"tasks_once"`` or ``"tasks_counted"``.

    Raises:
        ValueError: if the observations have no such goals.
    """

    def __init__(self, dataset: Recorded, rewards: Rewards) -> None:
        space: Any = dataset.observation_space
        if not {"achieved_goal", "desired_goal"} <= set(getattr(space, "spaces", ())):
            raise ValueError(
                f"rewards={rewards} needs achieved_goal and desired_goal observations, found {space} in"
                f" '{dataset.id}'. Take the rewards as recorded: rewards=recorded."
            )
        self.dataset = dataset
        self._change = reward_tasks_once if rewards == "tasks_once" else count_tasks
        self.total_steps = sum(len(episode.rewards) for episode in self.iterate_episodes())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def iterate_episodes(self, indices: Sequence[int] | None = None) -> Iterator[Any]:
        """Read episodes, changed by :func:`reward_tasks_once` or :func:`count_tasks`."""
        return map(self._change, self.dataset.iterate_episodes(indices))


def with_rewards(dataset: Recorded, rewards: Rewards) -> Any:
    """Return the dataset with the rewards asked for.

    Raises:
        ValueError: if they are not known, or the dataset has no goals.
    """
    if rewards not in get_args(Rewards):
        raise ValueError(f"rewards is {rewards!r}, expected one of {get_args(Rewards)}.")
    return dataset if rewards == "recorded" else KitchenTasks(dataset, rewards)


def reward_tasks_once(episode: Any) -> Any:
    r"""Return a ``minari.EpisodeData`` with reward 1 where a task is done for the first time, cut after the last one.

    .. math:: r_t = \#\{k: \min_{u \le t} \lVert x^k_{u+1} - g^k \rVert < 0.3\} - \sum_{u < t} r_u

    with :math:`x^k` the achieved and :math:`g^k` the desired goal of task k. The step that does the last task
    terminates the episode; where it is not done, the end of the data is a truncation.
    """
    now = _done_now(episode)
    done = np.maximum.accumulate(now, axis=0).sum(1)
    return _until_all_done(episode, done == now.shape[1], np.diff(done, prepend=0))


def count_tasks(episode: Any) -> Any:
    r"""Return a ``minari.EpisodeData`` with the number of tasks that are done after each step, cut after the last one.

    .. math:: r_t = \#\{k: \lVert x^k_{t+1} - g^k \rVert < 0.3\}

    These are the rewards of D4RL's kitchen data (and of the hosted ones, which were recorded so): a task keeps paying
    while it is done. IQL's temperature for kitchen is meant for them. The step in which all tasks are done terminates
    the episode (as the last task does where agents act); where there is none, the end of the data is a truncation.
    """
    now = _done_now(episode)
    done = now.sum(1)
    return _until_all_done(episode, done == now.shape[1], done)


def _done_now(episode: Any) -> npt.NDArray[np.bool_]:
    """Whether each task is done after each step, ``[T, K]``."""
    achieved, desired = (episode.observations[f"{kind}_goal"] for kind in ("achieved", "desired"))
    distances = [np.linalg.norm(achieved[task] - desired[task], axis=-1)[1:] for task in sorted(achieved)]
    return np.stack(distances, axis=1) < THRESHOLD


def _until_all_done(episode: Any, finished: npt.NDArray[np.bool_], rewards: npt.NDArray[Any]) -> Any:
    """The episode up to the first finished step, which terminates it, or to its end, a truncation."""
    steps = int(finished.argmax()) + 1 if finished.any() else len(finished)
    last = np.arange(steps) == steps - 1
    return dataclasses.replace(
        episode,
        observations=_first(episode.observations, steps + 1),
        actions=episode.actions[:steps],
        rewards=rewards[:steps].astype(np.float64),
        terminations=last & bool(finished.any()),
        truncations=last & (not finished.any()),
        infos={},
    )


def _first(values: Any, count: int) -> Any:
    """The first rows of (nested) observations."""
    if isinstance(values, dict):
        return {key: _first(part, count) for key, part in values.items()}
    return values[:count]
