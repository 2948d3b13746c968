"""One episode after another, flat and in agent units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from o3f.data.actions import check_action_space, to_agent_actions
from o3f.data.minari_store import Recorded, unreadable
from o3f.data.observations import ObservationLayout
from o3f.data.rows import Key


@dataclass(frozen=True)
class Episode:
    """One episode of ``T`` steps as the dataset has it: nothing is clipped, no flag is added.

    Attributes:
        index: its number in the dataset.
        observations: ``[T + 1, O]``, float32, the last one seen after the last action.
        actions: ``[T, A]``, float64, rescaled so that the bounds are -1 and 1.
        rewards: raw, ``[T]``, float32.
        terminated: ``[T]``, bool.
        truncated: ``[T]``, bool.
        dropped_rows: rows of its file that are none of its steps, because the observation that followed is not there.
    """

    index: int
    observations: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float64]
    rewards: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    dropped_rows: int = 0

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def unfinished(self) -> bool:
        """Whether the data stop although the episode neither terminated nor was truncated."""
        return len(self) > 0 and not (self.terminated[-1] or self.truncated[-1])

    def rows(self, count: int) -> dict[Key, npt.NDArray[Any]]:
        """The first ``count`` steps as columns of buffer rows, ``[count, ...]``.

        Actions are clipped to [-1, 1]. Where the data stop without an end, the last step is marked as
        truncated, which keeps its bootstrap. The next observation is always this episode's own.
        """
        terminated = self.terminated[:count, None]
        truncated = self.truncated[:count, None].copy()
        truncated[-1:] |= ~terminated[-1:]
        return {
            "observation": self.observations[:count],
            "action": self.actions[:count].clip(-1.0, 1.0),
            ("next", "observation"): self.observations[1 : count + 1],
            ("next", "reward"): self.rewards[:count, None],
            ("next", "done"): terminated | truncated,
            ("next", "terminated"): terminated,
            ("next", "truncated"): truncated,
        }


def read_episodes(dataset: Recorded, layout: ObservationLayout, action_scale: float = 1.0) -> Iterator[Episode]:
    """Read a dataset episode by episode, so that memory holds one episode at a time.

    Args:
        dataset: an open Minari dataset or file.
        layout: how observations are flattened.
        action_scale: see :func:`~o3f.data.actions.to_agent_actions`.

    Raises:
        ValueError: if a field is missing or its length does not fit its episode.
        RuntimeError: if the files cannot be read.
    """
    space = check_action_space(dataset.action_space)
    try:
        for raw in dataset.iterate_episodes():
            yield decode_episode(raw, layout, space, action_scale)
    except (OSError, KeyError) as error:
        raise unreadable(dataset.id, Path(dataset.storage.data_path), error) from error


def decode_episode(
    raw: Any, layout: ObservationLayout, space: gymnasium.spaces.Box, action_scale: float = 1.0
) -> Episode:
    """Flatten and rescale one ``minari.EpisodeData``, or a :class:`~o3f.data.array_files.FileEpisode`.

    Raises:
        ValueError: if the lengths of its fields do not belong to one episode.
    """
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, which the checks report
        observations = layout.flatten(raw.observations)
        rewards = np.asarray(raw.rewards).astype(np.float32)
    actions = to_agent_actions(raw.actions, space, action_scale)
    steps = len(rewards)
    expected = {
        "observations": (observations.shape, (steps + 1, layout.size)),
        "actions": (actions.shape, (steps, *space.shape)),
        "rewards": (rewards.shape, (steps,)),
        "terminations": (np.shape(raw.terminations), (steps,)),
        "truncations": (np.shape(raw.truncations), (steps,)),
    }
    for field, (found, wanted) in expected.items():
        if found != wanted:
            raise ValueError(
                f"'{field}' of episode {raw.id} has shape {found}, expected {wanted} for {steps} rewards:"
                " a next observation would be missing or come from another episode. An episode of T steps"
                " stores T + 1 observations and T of everything else; make the dataset again in that form."
            )
    return Episode(
        index=int(raw.id),
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=np.asarray(raw.terminations, dtype=bool),
        truncated=np.asarray(raw.truncations, dtype=bool),
        dropped_rows=getattr(raw, "dropped_rows", 0),
    )
