"""Steps that no action made: the environment was reset in them, and the recorder took that for a transition."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from o3f.data.episodes import Episode, read_episodes
from o3f.data.minari_store import Recorded
from o3f.data.observations import ObservationLayout

ResetSteps = Literal["keep", "drop"]
Vector = npt.NDArray[np.float32]

INDEPENDENT = 0.75
"""From this share of the squared distance between any two episodes on, a step is no motion but a jump."""

_RESETS = (
    "with a step that no action made: from the last observation of an earlier episode to that after a reset, with"
    " reward 0. gymnasium.wrappers.Autoreset inside the recorder leaves that, or a vectorised environment in next-step"
    " mode. Leave these steps out with (dataset.)reset_steps=drop."
)
_FALSE_ENDS = (
    "with what is recorded as the last observation of an earlier one, which was cut off: there the value of a start is"
    " taken for that of the end. A vectorised environment in same-step mode has the true last observation in"
    " info['final_obs']: record that."
)


@dataclasses.dataclass
class SharedStart:
    """An episode that begins with the very observation with which an earlier one ended.

    Attributes:
        episode: its number.
        before: observation before the shared one, ``[O]``, in the earlier episode.
        shared: the shared observation.
        after: observation after the first step.
        reward: of the first step.
        cut: whether the earlier episode did not terminate.
    """

    episode: int
    before: Vector
    shared: Vector
    after: Vector
    reward: float
    cut: bool


@dataclasses.dataclass
class SharedStarts:
    r"""Finds episodes that begin bit for bit with the last observation of an earlier one; :meth:`add` them in order.

    There are three ways to come by such data, and what a step is tells which: an environment moves, a reset jumps.

    - A wrapper inside the recorder (``gymnasium.wrappers.Autoreset``) or a vectorised environment in next-step mode
      reset the environment instead of acting: the first step is false, with reward 0, and jumps (:meth:`reset_steps`).
    - A vectorised environment in same-step mode answered an action with the observation after the reset, and that was
      recorded as the last one: the last step of the earlier episode jumps (:meth:`false_ends`).
    - Nothing was reset, as where a recording was cut into episodes: no step jumps, and nothing is wrong.

    A step jumps if it leads about as far as from that episode's state to where another episode's step led:

    .. math:: \sum_k \lVert y_k - x_k \rVert^2 > 0.75 \sum_k \lVert y_k - x_{k-1} \rVert^2

    with steps from :math:`x_k` to :math:`y_k`, each number in units of its spread over all of them.
    """

    found: list[SharedStart] = dataclasses.field(default_factory=list)
    _ends: dict[bytes, tuple[Vector, bool]] = dataclasses.field(default_factory=dict)

    def add(self, episode: Episode) -> None:
        """Look at one episode; one without steps is none."""
        if not len(episode):
            return
        observations = episode.observations
        if (end := self._ends.get(observations[0].tobytes())) is not None:
            first, second = observations[:2].copy()
            self.found.append(SharedStart(episode.index, end[0], first, second, float(episode.rewards[0]), end[1]))
        self._ends[observations[-1].tobytes()] = observations[-2].copy(), not episode.terminated[-1]

    def reset_steps(self) -> list[int]:
        """Episodes whose first step is a reset."""
        without = [each for each in self.found if each.reward == 0]
        return [each.episode for each in without] if _jumps([(each.shared, each.after) for each in without]) else []

    def false_ends(self) -> list[int]:
        """Episodes with whose first observation a step of an earlier one, which did not terminate, ends falsely."""
        others = [each for each in self.found if each.cut]
        if self.reset_steps() or not _jumps([(each.before, each.shared) for each in others]):
            return []
        return [each.episode for each in others]

    def remarks(self, dataset_id: str) -> Iterator[str]:
        """What a user should know, a sentence or two each."""
        for episodes, what in ((self.reset_steps(), _RESETS), (self.false_ends(), _FALSE_ENDS)):
            if episodes:
                yield f"{len(episodes)} episode(s) of '{dataset_id}', first episode {episodes[0]}, begin {what}"


def _jumps(steps: Sequence[tuple[Vector, Vector]]) -> bool:
    """Whether steps lead as far as to where another one led; a single one is believed to, for want of another."""
    if len(steps) < 2:
        return bool(steps)
    start, end = (np.array(rows, dtype=np.float64) for rows in zip(*steps, strict=True))
    with np.errstate(invalid="ignore"):  # a number that is infinite in one of them says nothing
        spread = np.concatenate([start, end]).std(axis=0)
    start, end = (rows[:, spread > 0] / spread[spread > 0] for rows in (start, end))
    return bool(((end - start) ** 2).sum() > INDEPENDENT * ((end - np.roll(start, 1, axis=0)) ** 2).sum())


class WithoutResetSteps:
    """A dataset without the first steps of those episodes in which they are resets; it is read once here to find them.

    Args:
        dataset: an open Minari dataset or file.
        layout: how observations are flattened.
    """

    def __init__(self, dataset: Recorded, layout: ObservationLayout) -> None:
        starts = SharedStarts()
        for episode in read_episodes(dataset, layout):
            starts.add(episode)
        self.dataset = dataset
        self.left_out = frozenset(starts.reset_steps())
        self.total_steps = int(dataset.total_steps) - len(self.left_out)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def iterate_episodes(self, indices: Sequence[int] | None = None) -> Iterator[Any]:
        """Read episodes, all or some, each without its false step."""
        for episode in self.dataset.iterate_episodes(indices):
            yield _without_first(episode) if int(episode.id) in self.left_out else episode


def with_reset_steps(dataset: Recorded, layout: ObservationLayout, choice: ResetSteps) -> Any:
    """Return the dataset with or without the steps that are resets.

    Raises:
        ValueError: if the choice is not known.
    """
    if choice not in ("keep", "drop"):
        raise ValueError(f"reset_steps is {choice!r}, expected 'keep' or 'drop'.")
    return dataset if choice == "keep" else WithoutResetSteps(dataset, layout)


def _without_first(episode: Any) -> Any:
    names = ("observations", "actions", "rewards", "terminations", "truncations")
    return dataclasses.replace(episode, **{name: _rest(getattr(episode, name)) for name in names}, infos={})


def _rest(values: Any) -> Any:
    """All rows but the first, of each part."""
    return {key: _rest(part) for key, part in values.items()} if isinstance(values, dict) else values[1:]
