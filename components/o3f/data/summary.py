"""What a dataset looks like as a whole: one line about it, and what may be wrong though every value is allowed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from o3f.data.episodes import Episode

ROOMY = 1.5
"""Bounds wider than this are not confused with [-1, 1]."""

SHARE = 0.05
"""So large a share of episodes that end in a terminal state at the time limit is told: a few may."""


@dataclass
class Summary:
    """Figures of the episodes of a dataset; fill it with :meth:`add`.

    Args:
        limit: the recorded environment's time limit, in its own steps; None where it is not known.
        observation_space: of the flat observation ``[O]``; None leaves its bounds out.
        action_space: the environment's; None where it is not known.

    Attributes:
        lengths: steps of each episode.
        at_limit: episodes that end in a terminal state at the time limit.
        single: episodes of one step that do not end in a terminal state.
        repeated: number of an episode to that of an equal one before it.
        lowest: action of each dimension in [-1, 1], ``[A]``.
        highest: the same.
        outside: how far each observation goes beyond its bounds, in parts of them (of 1 where they are less), ``[O]``.
    """

    limit: int | None = None
    observation_space: gymnasium.spaces.Box | None = None
    action_space: gymnasium.spaces.Box | None = None
    lengths: list[int] = field(default_factory=list)
    terminated: int = 0
    at_limit: int = 0
    single: int = 0
    repeated: dict[int, int] = field(default_factory=dict)
    lowest: npt.NDArray[np.float64] = field(default_factory=lambda: np.array(np.inf))
    highest: npt.NDArray[np.float64] = field(default_factory=lambda: np.array(-np.inf))
    outside: npt.NDArray[np.float64] = field(default_factory=lambda: np.array(0.0))
    _seen: dict[bytes, int] = field(default_factory=dict)

    def add(self, episode: Episode) -> None:
        """Count an episode with at least one step."""
        steps, terminated = len(episode), bool(episode.terminated[-1])
        self.lengths.append(steps)
        self.terminated += terminated
        self.at_limit += terminated and steps == self.limit
        self.single += steps == 1 and not terminated
        self.lowest = np.minimum(self.lowest, episode.actions.min(axis=0))
        self.highest = np.maximum(self.highest, episode.actions.max(axis=0))
        if self.observation_space is not None:
            self.outside = np.maximum(self.outside, _excess(episode.observations, self.observation_space))
        content = hashlib.blake2b(episode.observations.tobytes(), digest_size=16)
        content.update(episode.actions.tobytes())
        first = self._seen.setdefault(content.digest(), episode.index)
        if first != episode.index:
            self.repeated[episode.index] = first

    def line(self, returns: list[float]) -> str:
        """Return episodes, lengths, returns, ends and actions in a line."""
        if not self.lengths:
            return "no episodes"
        low, high = self.lowest, self.highest
        actions = ", ".join(f"{a:.2g} to {b:.2g}" for a, b in zip(low, high, strict=True))
        if len(low) > 4:
            used = 50 * (high - low)
            share = "-".join(dict.fromkeys(f"{each:.0f}" for each in (used.min(), used.max())))
            actions = f"{low.min():.2g} to {high.max():.2g}, each dimension over {share} % of that range"
        ended = 100 * self.terminated / len(self.lengths)
        episodes = "1 episode" if len(self.lengths) == 1 else f"{len(self.lengths)} episodes"
        return (
            f"{episodes} of {_range(self.lengths)} steps, return {_range(returns)};"
            f" {ended:.0f} % terminated, {100 - ended:.0f} % truncated; actions in [-1, 1]: {actions}"
        )

    def remarks(self, name: str) -> Iterator[str]:
        """Say what is allowed and probably not meant, a sentence each."""
        count = len(self.lengths)
        alike = self.terminated == count > 2 and len(set(self.lengths)) == 1 and self.lengths[0] > 1
        if alike or (self.at_limit > 1 and self.at_limit > SHARE * count):
            yield (
                f"{max(self.at_limit, count * alike)} of {count} episodes of {name} end in a terminal state after"
                f" exactly {self.lengths[0] if alike else self.limit} steps. If a time limit ended them, they are"
                " truncated: as it is, agents learn that there is nothing to be had after it. Correct terminations."
            )
        if self.single > max(9, count / 2):
            yield (
                f"{self.single} of {count} episodes of {name} have a single step and do not end there. Perhaps the"
                " next observations are not those that follow, rounded or scaled in another way: compare them."
            )
        if self.repeated:
            again, first = next(iter(self.repeated.items()))
            yield (
                f"{len(self.repeated)} of {count} episodes of {name} are there before, value for value; the first is"
                f" episode {again}, equal to episode {first}. Leave them out, or they count twice."
            )
        yield from self._remarks_of_ranges(name)

    def _remarks_of_ranges(self, name: str) -> Iterator[str]:
        constant = np.flatnonzero(self.lowest == self.highest)
        if len(constant) and sum(self.lengths) > 1:
            yield (
                f"The actions {constant.tolist()} of {name} never change, so that nothing can be learned of them."
                " Check the file, or take these dimensions out of the action space."
            )
        yield from self._remarks_of_units(name)
        far = np.flatnonzero(np.atleast_1d(self.outside) > 1.0)
        if len(far):
            yield (
                f"The observations {far.tolist()} (flat indices) of {name} go beyond the bounds of their space by up to"
                f" {float(self.outside.max()):.3g} times these. Check that data and space have the same units."
            )

    def _remarks_of_units(self, name: str) -> Iterator[str]:
        """Actions that end at 1, from the centre of wider bounds or from 0: perhaps not in the environment's units."""
        if self.action_space is None:
            return
        low, high = (bound.astype(np.float64) for bound in (self.action_space.low, self.action_space.high))
        centre, half = low / 2 + high / 2, high / 2 - low / 2
        lowest, highest = half * self.lowest, half * self.highest
        if _unit(half.max(), np.maximum(-lowest, highest).max()):
            yield (
                f"The actions of {name} end at 1, and the bounds at {half.max():.4g} from their centre: they use"
                f" {100 / half.max():.2g} % of their range. If they were recorded in [-1, 1], scale them to the bounds."
            )
            return
        lowest, highest, widest = lowest + centre, highest + centre, np.maximum(-low, high).max()
        if _unit(widest, np.maximum(-lowest, highest).max()):
            recorded = "[0, 1]" if lowest.min() >= 0 else "[-1, 1]"
            yield (
                f"The actions of {name} lie between {lowest.min():.3g} and {highest.max():.3g}, and the bounds go to"
                f" {widest:.4g}. If they were recorded in {recorded}, scale them to the bounds."
            )


def _unit(bound: float, reach: float) -> bool:
    return bound > ROOMY and 0.9 < reach < 1.001


def _excess(observations: npt.NDArray[np.float32], space: gymnasium.spaces.Box) -> npt.NDArray[np.float64]:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinite bounds
        below = (low - observations.min(axis=0)) / np.maximum(1.0, np.abs(low))
        above = (observations.max(axis=0) - high) / np.maximum(1.0, np.abs(high))
    return np.asarray(np.nan_to_num(np.maximum(below, above), nan=0.0, neginf=0.0, posinf=0.0))


def _range(values: Any) -> str:
    low, mean, high = np.min(values), np.mean(values), np.max(values)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g} (mean {mean:.4g})"
