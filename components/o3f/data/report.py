"""What the checks of a dataset saw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from o3f.data.episodes import Episode
from o3f.data.reset_steps import SharedStarts
from o3f.data.summary import Summary

ACTION_TOLERANCE = 1e-3
"""Excess over the action bounds, in agent units, that is clipped without asking."""

OnNonfinite = Literal["stop", "drop_episode"]
UnmarkedEnds = Literal["stop", "truncate"]

_NOT_FINITE = "is not finite"
_OUT_OF_BOUNDS = "exceeds the action bounds"
_GOES_ON = "ends the episode before its last step"
_CURES = {
    _NOT_FINITE: "Repair these values, or leave their episodes out with (dataset.)on_nonfinite=drop_episode.",
    _OUT_OF_BOUNDS: "Check the action space and action_scale, or accept clipping with (dataset.)clip_actions=true.",
    _GOES_ON: "The next observation there belongs to another episode: split the episode at this step.",
}


@dataclass
class DatasetReport:
    """What the checks saw; fill it with :meth:`add`, then ask :meth:`raise_faults` and :meth:`remarks`.

    Args:
        dataset_id: named in errors.
        clip_actions: accept actions however far out of bounds.
        on_nonfinite: ``"drop_episode"`` leaves out episodes with NaN or infinite values.
        unmarked_ends: ``"truncate"`` accepts data in which no episode end is marked.
        summary: figures of the whole, with what is known of the environment.
        dropped_reset_steps: episodes of the whole dataset whose first step was left out, because it was a reset.

    Attributes:
        returns: raw undiscounted return of each episode with at least one step.
        transitions: number of steps.
        terminated: episodes that end in a terminal state.
        truncated: episodes cut off by a limit, the unfinished ones included.
        unfinished: episodes whose data stop without either flag; they count as truncated.
        dropped_episodes: episodes left out because of values that are not finite.
        clipped_actions: action values beyond the bounds, which the loader clips.
        dropped_rows: rows of a file left out because it does not hold the observation that followed.
        starts: what episodes begin with that an earlier one ended with.
        worst_excess: the largest distance of one of them to the bounds, in agent units.
        still: numbers of the episodes of several steps in which no observation differs from the first.
        faults: ``(field, kind)`` to ``(count, episode, step)`` of the first.
    """

    dataset_id: str
    clip_actions: bool = False
    on_nonfinite: OnNonfinite = "stop"
    unmarked_ends: UnmarkedEnds = "stop"
    summary: Summary = field(default_factory=Summary)
    dropped_reset_steps: int = 0
    returns: list[float] = field(default_factory=list)
    transitions: int = 0
    terminated: int = 0
    truncated: int = 0
    unfinished: int = 0
    dropped_episodes: int = 0
    clipped_actions: int = 0
    dropped_rows: int = 0
    starts: SharedStarts = field(default_factory=SharedStarts)
    worst_excess: float = 0.0
    faults: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    still: list[int] = field(default_factory=list)
    _only_zeros: bool = True
    _lowest: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    _highest: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.on_nonfinite not in ("stop", "drop_episode"):
            raise ValueError(f"on_nonfinite is {self.on_nonfinite!r}, expected 'stop' or 'drop_episode'.")
        if self.unmarked_ends not in ("stop", "truncate"):
            raise ValueError(f"unmarked_ends is {self.unmarked_ends!r}, expected 'stop' or 'truncate'.")

    def add(self, episode: Episode) -> bool:
        """Check one episode, and say whether it is to be used; one without steps is not."""
        self.dropped_rows += episode.dropped_rows
        if not len(episode):
            return False
        self.starts.add(episode)
        infinite = {n: ~np.isfinite(getattr(episode, n)) for n in ("observations", "actions", "rewards")}
        for name, bad in infinite.items():
            self._note(name, _NOT_FINITE, episode, bad)
        if self.on_nonfinite == "drop_episode" and any(bad.any() for bad in infinite.values()):
            self.dropped_episodes += 1
            return False
        self._count(episode)
        excess = np.abs(episode.actions) - 1.0
        self.clipped_actions += int((excess > 1e-6).sum())  # less is rounding
        self.worst_excess = max(self.worst_excess, float(np.nan_to_num(excess, posinf=0.0).max()))
        if not self.clip_actions:
            self._note("actions", _OUT_OF_BOUNDS, episode, excess > ACTION_TOLERANCE)
        self._note("terminations", _GOES_ON, episode, episode.terminated[:-1])
        self._note("truncations", _GOES_ON, episode, episode.truncated[:-1])
        return True

    def raise_faults(self) -> None:
        """Stop if there is a fault.

        Raises:
            ValueError: listing every kind of fault with its field, count, first episode and step, and cure.
        """
        faults = [
            f"'{name}' {kind} at {count} place(s), first in episode {episode} at step {step}"
            + (f", by up to {self.worst_excess:.3g} in units of [-1, 1]" if kind == _OUT_OF_BOUNDS else "")
            + f". {_CURES[kind]}"
            for (name, kind), (count, episode, step) in self.faults.items()
            if not (kind == _NOT_FINITE and self.on_nonfinite == "drop_episode" and self.transitions)
        ]
        if self.transitions == 0:
            left = " left" if self.dropped_episodes else ""
            faults.append(f"there are no transitions{left}. Collect or download the dataset again.")
        elif self.unfinished == len(self.returns) and self.unmarked_ends == "stop":
            faults.append(
                f"neither 'terminations' nor 'truncations' is true at the end of any of {self.unfinished}"
                " episode(s). If a limit cut every episode, say so with (dataset.)unmarked_ends=truncate, which takes"
                " each end as a truncation; otherwise make the dataset again with its flags."
            )
        if self.transitions and self._only_zeros:
            faults.append("all observations and actions are zero: the file is damaged. Get the dataset again.")
        if faults:
            raise ValueError(f"Dataset '{self.dataset_id}' cannot be used:\n- " + "\n- ".join(faults))

    def remarks(self) -> list[str]:
        """What a user should know of data that can be used, a sentence each."""
        found = []
        if self.clipped_actions:
            found.append(
                f"{self.clipped_actions} action values of '{self.dataset_id}' lay up to {self.worst_excess:.3g}"
                " (in units of [-1, 1]) beyond the bounds and were clipped."
            )
        if self.dropped_episodes:
            places = [
                f"'{name}' at {count} place(s), first in episode {episode} at step {step}"
                for (name, kind), (count, episode, step) in self.faults.items()
                if kind == _NOT_FINITE
            ]
            found.append(
                f"{self.dropped_episodes} episode(s) of '{self.dataset_id}' were left out, because they hold values"
                f" that are not finite: {'; '.join(places)}."
            )
        if self.dropped_rows:
            found.append(
                f"{self.dropped_rows} row(s) of '{self.dataset_id}' were left out: an episode was cut off there, and"
                " the file does not hold the observation that followed."
            )
        if self.dropped_reset_steps:
            found.append(
                f"The first step of {self.dropped_reset_steps} episode(s) of '{self.dataset_id}' was left out: the"
                " environment was reset in it."
            )
        if self.still:
            found.append(
                f"In {len(self.still)} of {len(self.returns)} episodes of '{self.dataset_id}', first in episode"
                f" {self.still[0]}, the observations stand still from the first to the last. If that cannot be, what"
                " recorded them kept an array that the environment changes in place: collect again, and copy it."
            )
        return [
            *found,
            *self.starts.remarks(self.dataset_id),
            *self._constants(),
            *self.summary.remarks(f"'{self.dataset_id}'"),
        ]

    def __str__(self) -> str:
        """Return what was read in a line."""
        return f"{self.dataset_id}: {self.summary.line(self.returns)}"

    def _constants(self) -> list[str]:
        """Fields that never change: often an environment with parts of its state left out, or a broken writer."""
        if self.transitions < 2:
            return []
        constant = {name: np.flatnonzero(self._lowest[name] == high).tolist() for name, high in self._highest.items()}
        found = []
        if constant["observations"]:
            found.append(
                f"The observations {constant['observations']} (flat indices) of '{self.dataset_id}' never change."
                " If the environment does change them, the file is damaged."
            )
        if constant["rewards"]:
            found.append(
                f"All rewards of '{self.dataset_id}' are {float(self._lowest['rewards'][0]):.6g}: nothing can be"
                " learned from them alone. Check the file, or the success rule of the task."
            )
        return found

    def _count(self, episode: Episode) -> None:
        self.returns.append(float(episode.rewards.sum(dtype=np.float64)))
        self.transitions += len(episode)
        self.summary.add(episode)
        self.terminated += bool(episode.terminated[-1])
        self.truncated += not episode.terminated[-1]
        self.unfinished += episode.unfinished
        if len(episode) > 1 and (episode.observations == episode.observations[0]).all():
            self.still.append(episode.index)
        self._only_zeros &= not (episode.observations.any() or episode.actions.any())
        for name, values in {"observations": episode.observations, "rewards": episode.rewards[:, None]}.items():
            low, high = values.min(axis=0), values.max(axis=0)
            self._lowest[name] = np.minimum(low, self._lowest[name]) if name in self._lowest else low
            self._highest[name] = np.maximum(high, self._highest[name]) if name in self._highest else high

    def _note(self, name: str, kind: str, episode: Episode, bad: npt.NDArray[np.bool_]) -> None:
        if bad.any():
            step = int(np.argwhere(bad)[0, 0])
            count, first_episode, first_step = self.faults.get((name, kind), (0, episode.index, step))
            self.faults[name, kind] = (count + int(bad.sum()), first_episode, first_step)
