"""FrankaKitchen data with each task rewarded once, as the environment does that agents are scored in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from o3f.data.minari_store import Recorded

Rewards = Literal["recorded", "tasks_once"]

THRESHOLD = 0.3
"""A task is done within this distance to its goal (Gymnasium-Robotics and D4RL)."""


class TasksOnce:
    """A Minari dataset as if it had been recorded where a task done is removed and the last one ends the episode.

    The hosted kitchen data reward every step with the number of tasks that are done in it, and end where the
    demonstration does. Agents act and are scored where each task counts once.

    Args:
        dataset: with ``achieved_goal`` and ``desired_goal`` observations, a vector a task each. It is read once here,
            to count the steps that are left.

    Raises:
        ValueError: if the observations have no such goals.
    """

    def __init__(self, dataset: Recorded) -> None:
        space: Any = dataset.observation_space
        if not {"achieved_goal", "desired_goal"} <= set(getattr(space, "spaces", ())):
            raise ValueError(
                f"rewards=tasks_once needs achieved_goal and desired_goal observations, found {space} in"
                f" '{dataset.id}'. Take the rewards as recorded: rewards=recorded."
            )
        self.dataset = dataset
        self.total_steps = sum(len(episode.rewards) for episode in self.iterate_episodes())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def iterate_episodes(self, indices: Sequence[int] | None = None) -> Iterator[Any]:
        """Read episodes, changed by :func:`reward_tasks_once`."""
        return map(reward_tasks_once, self.dataset.iterate_episodes(indices))


def with_rewards(dataset: Recorded, rewards: Rewards) -> Any:
    """Return the dataset with the rewards asked for.

    Raises:
        ValueError: if they are not known, or the dataset has no goals.
    """
    if rewards not in ("recorded", "tasks_once"):
        raise ValueError(f"rewards is {rewards!r}, expected 'recorded' or 'tasks_once'.")
    return dataset if rewards == "recorded" else TasksOnce(dataset)


def reward_tasks_once(episode: Any) -> Any:
    r"""Return a ``minari.EpisodeData`` with reward 1 where a task is done for the first time, cut after the last one.

    .. math:: r_t = \#\{k: \min_{u \le t} \lVert x^k_{u+1} - g^k \rVert < 0.3\} - \sum_{u < t} r_u

    with :math:`x^k` the achieved and :math:`g^k` the desired goal of task k. The step that does the last task
    terminates the episode; where it is not done, the end of the data is a truncation.
    """
    achieved, desired = (episode.observations[f"{kind}_goal"] for kind in ("achieved", "desired"))
    distances = [np.linalg.norm(achieved[task] - desired[task], axis=-1)[1:] for task in sorted(achieved)]
    done = np.maximum.accumulate(np.stack(distances) < THRESHOLD, axis=1).sum(0)
    finished = np.flatnonzero(done == len(distances))
    steps = int(finished[0]) + 1 if len(finished) else len(done)
    last = np.arange(steps) == steps - 1
    return dataclasses.replace(
        episode,
        observations=_first(episode.observations, steps + 1),
        actions=episode.actions[:steps],
        rewards=np.diff(done[:steps], prepend=0).astype(np.float64),
        terminations=last & bool(len(finished)),
        truncations=last & (not len(finished)),
        infos={},
    )


def _first(values: Any, count: int) -> Any:
    """The first rows of (nested) observations."""
    if isinstance(values, dict):
        return {key: _first(part, count) for key, part in values.items()}
    return values[:count]
