"""Several arms over several seeds: their figures, a table and curves with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from o3f.errors import optional
from o3f.evaluation.intervals import t_interval, verdict
from o3f.runs.logger import read_csv

#: Episodes end at other steps in every run: their means over so many equal parts of the steps are drawn.
EPISODE_PARTS = 10


@dataclass(frozen=True)
class Curves:
    """What the comparison needs of one fine-tuning run, from its ``metrics.csv``.

    Attributes:
        evaluated: mean return of the plain policy by online step; step 0 is the offline agent.
        collected: return of every whole episode played while collecting, by the online step of its end.
    """

    evaluated: dict[int, float]
    collected: dict[int, float]

    @property
    def offline(self) -> float:
        """Return before fine-tuning."""
        return self.evaluated[0]

    @property
    def final(self) -> float:
        """Return after fine-tuning."""
        return self.evaluated[max(self.evaluated)]

    @property
    def collecting(self) -> float:
        """Mean return of the episodes played online."""
        return float(np.mean(list(self.collected.values())))


def read_curves(run: str | Path) -> Curves:
    """Read the curves of a run folder.

    Raises:
        ValueError: if the run has no evaluation at step 0 or no finished episode.
    """
    rows = read_csv(Path(run, "metrics.csv"))
    curves = Curves(
        {step: value for step, tag, value in rows if tag == "eval/return"},
        {step: value for step, tag, value in rows if tag == "rollout/return"},
    )
    if 0 not in curves.evaluated or not curves.collected:
        raise ValueError(f"{run} holds no fine-tuning run with an offline evaluation and a finished episode.")
    return curves


def comparison_table(arms: Mapping[str, Sequence[Curves]], confidence: float = 0.95) -> Table:
    """Return a table of returns: before, after, the change paired by seed, and while collecting.

    Args:
        arms: by label, one entry a seed, in the same order of seeds in every arm.
        confidence: of the Student intervals over seeds.
    """
    seeds = len(next(iter(arms.values())))
    table = Table(title=f"Mean return ± {confidence:.0%} interval over {seeds} seeds")
    for name in ("acting", "offline", "after", "change", "", "while collecting", "against offline"):
        table.add_column(name, justify="left" if name in ("acting", "") else "right", no_wrap=True)
    for label, runs in arms.items():
        change = t_interval([run.final - run.offline for run in runs], confidence)
        cells = [
            t_interval([run.offline for run in runs], confidence),
            t_interval([run.final for run in runs], confidence),
            change,
            verdict(change),
            t_interval([run.collecting for run in runs], confidence),
            t_interval([run.collecting - run.offline for run in runs], confidence),
        ]
        table.add_row(label, *map(str, cells))
    return table


def paired_differences(arms: Mapping[str, Sequence[Curves]], confidence: float = 0.95) -> list[str]:
    """Return a line for each other arm: the first one's advantage, paired by seed.

    Args:
        arms: as in :func:`comparison_table`; the first is compared with the others.
        confidence: of the intervals.
    """
    (first, ours), *others = arms.items()
    lines = []
    for label, theirs in others:
        pairs = list(zip(ours, theirs, strict=True))
        final = t_interval([a.final - b.final for a, b in pairs], confidence)
        collecting = t_interval([a.collecting - b.collecting for a, b in pairs], confidence)
        lines.append(f"{first} minus {label}: after {final}, while collecting {collecting}")
    return lines


def in_parts(values: Mapping[int, float], steps: float, parts: int = EPISODE_PARTS) -> dict[float, float]:
    """Return the mean in each of so many equal parts of the steps, by the end of the part; empty ones are left out.

    Args:
        values: by step, from 1 on.
        steps: the end of the last part.
        parts: how many.

    Examples:
        >>> in_parts({1: 1.0, 5: 3.0, 12: 5.0}, steps=20, parts=4)
        {5.0: 2.0, 15.0: 5.0}
    """
    found: dict[float, list[float]] = {}
    for step, value in values.items():
        found.setdefault(steps * ceil(step * parts / steps) / parts, []).append(value)
    return {end: float(np.mean(inside)) for end, inside in sorted(found.items())}


def draw_mean(
    panel: Any,
    curves: Sequence[Mapping[float, float]],
    label: str,
    *,
    confidence: float = 0.95,
    min_seeds: int = 2,
    color: str | None = None,
) -> None:
    """Draw the mean over seeds at the steps that all have, with an interval, else each seed as a thin line.

    Args:
        panel: matplotlib's axes.
        curves: values by step, one a seed.
        label: for the legend.
        confidence: of the interval.
        min_seeds: with fewer there is no interval.
        color: of the lines; None takes the next one of the panel's.
    """
    steps = sorted(set.intersection(*(set(each) for each in curves)))
    if not steps:
        return
    values = [[each[step] for each in curves] for step in steps]
    (line,) = panel.plot(steps, [float(np.mean(row)) for row in values], marker="o", ms=2.5, label=label, color=color)
    if len(curves) >= max(2, min_seeds):
        intervals = [t_interval(row, confidence) for row in values]
        low, high = [each.low for each in intervals], [each.high for each in intervals]
        panel.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, lw=0)
    elif len(curves) > 1:
        panel.plot(steps, values, color=line.get_color(), lw=0.5, alpha=0.5)


def plot_arms(
    arms: Mapping[str, Sequence[Curves]], path: str | Path, *, title: str = "", confidence: float = 0.95
) -> Path:
    """Draw evaluation curves and returns while collecting, means and intervals over seeds, as one PNG.

    Args:
        arms: as in :func:`comparison_table`.
        path: of the picture.
        title: above it.
        confidence: of the shaded intervals.

    Returns:
        The picture's path.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = optional("matplotlib.figure", "plots").Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for label, runs in arms.items():
        evaluated = [{float(step): value for step, value in run.evaluated.items()} for run in runs]
        draw_mean(panels[0], evaluated, label, confidence=confidence)
        collected = [in_parts(run.collected, max(run.evaluated)) for run in runs]
        draw_mean(panels[1], collected, label, confidence=confidence)
    offline = float(np.mean([run.offline for runs in arms.values() for run in runs]))
    for panel in panels:
        panel.set_xlabel("online step")
        panel.grid(alpha=0.3)
        panel.axhline(offline, color="grey", ls="--", lw=1, label="offline agent")
    panels[0].set_title("The trained policy, evaluated")
    panels[0].set_ylabel("return of an episode")
    panels[1].set_title("Episodes played while collecting")
    panels[1].legend()
    figure.suptitle(title)
    figure.savefig(path)
    return Path(path)
