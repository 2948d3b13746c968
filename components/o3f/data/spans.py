"""Where the episodes lie in the flat arrays of a D4RL or OGBench file, by the meaning of its flags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Span:
    """An episode of a flat file: the steps of rows ``start`` to ``start + steps - 1``.

    Attributes:
        start: first row.
        steps: number of steps.
        final: row of the observation after the last step, where the file has no next observations.
        terminated: whether the last step ends in a terminal state.
        truncated: whether it is marked as cut off.
        dropped: rows left out, because the file does not have the observation that followed.
    """

    start: int
    steps: int
    final: int
    terminated: bool
    truncated: bool
    dropped: int = 0


def d4rl_spans(terminated: Flags, truncated: Flags, jumps: Flags | None) -> list[Span]:
    """Episodes by D4RL's ``terminals`` and ``timeouts``, ``[N]``.

    A terminal step has no future; without next observations its own observation stands for the next one, which no
    target uses. A step that was cut off, and a last row without a mark, then have no next observation and are dropped.
    So is a step with both flags, as by D4RL's ``qlearning_dataset``: in its AntMaze files, ``terminals`` there is
    judged by the first observation of the episode that follows.

    Args:
        terminated: marks of terminal steps.
        truncated: marks of steps that were cut off.
        jumps: rows whose recorded next observation is not the observation of the next row, so that an episode ends;
            None where the file has no next observations.

    Examples:
        >>> flags = np.array([[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]], dtype=bool)
        >>> [(each.start, each.steps, each.terminated, each.dropped) for each in d4rl_spans(*flags, jumps=None)]
        [(0, 3, True, 0), (3, 1, False, 1)]
    """
    ends = terminated | truncated | (False if jumps is None else jumps)
    spans = []
    for start, stop in _pieces(ends):
        final, cut = bool(terminated[stop]), bool(truncated[stop])
        # The last row is a step where the file says what followed, or where nothing does.
        last_is_step = jumps is not None or (final and not cut)
        steps, dropped = (stop - start + 1, 0) if last_is_step else (stop - start, 1)
        ends_for_good = final and last_is_step
        spans.append(Span(start, steps, final=stop, terminated=ends_for_good, truncated=cut, dropped=dropped))
    return spans


def ogbench_spans(terminated: Flags, holders: Flags) -> list[Span]:
    """Episodes of an OGBench file without next observations.

    Args:
        terminated: steps after which there is nothing to expect (``masks`` 0), ``[N]``.
        holders: rows that hold the last observation of an episode and no step (``terminals``), ``[N]``.

    Examples:
        >>> flags = np.array([[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=bool)
        >>> [(each.start, each.steps, each.final, each.terminated) for each in ogbench_spans(*flags)]
        [(0, 2, 2, True), (2, 2, 4, False)]
    """
    terminated = terminated & ~holders
    terminated[-1] = False
    spans = []
    for start, stop in _pieces(terminated | holders):
        final, held = bool(terminated[stop]), bool(holders[stop])
        if final:  # row stop is a step, and the next one holds the observation after it
            spans.append(Span(start, stop - start + 1, final=stop + 1, terminated=True, truncated=held))
        else:  # row stop is no step: it holds the last observation, or the file ends before that was written
            steps, dropped = stop - start, 0 if held else 1
            spans.append(Span(start, steps, final=stop, terminated=False, truncated=held, dropped=dropped))
    return spans


def _pieces(ends: Flags) -> Iterator[tuple[int, int]]:
    """First and last row of each piece of rows; the last row is an end in any case."""
    start = 0
    for stop in [*np.flatnonzero(ends[:-1]).tolist(), len(ends) - 1]:
        yield start, stop
        start = stop + 1
