"""Curves and endpoints of a figure, as one PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from o3f.errors import optional
from o3f.evaluation.intervals import t_interval
from o3f.figures.quantities import read_tag
from o3f.figures.results import Result, by_arm

#: Episodes end at other steps in every run: their means over so many equal parts of the steps are drawn.
EPISODE_PARTS = 10

#: What is drawn of runs that have no values of a tag: critics that do not count the entropy have the plain bias alone.
INSTEAD = {"bias/soft_ratio": "bias/ratio"}


def curve(result: Result, tag: str) -> dict[float, float]:
    """Return a run's values of a tag by online step; episodes as means over tenths of the online steps."""
    if tag == "eval/score":
        return {float(step): value for step, value in result.series.evaluated.items()}
    if tag != "rollout/return":
        found = read_tag(result.run.path, tag) or read_tag(result.run.path, INSTEAD.get(tag, tag))
        return {float(step): value for step, value in found.items()}
    return in_parts(result.series.collected, result.series.steps)


def draw_curves(panel: Any, results: Sequence[Result], tag: str, label: str, color: str, settings: DictConfig) -> None:
    """Draw the mean over seeds, with an interval where there are enough of them, else each seed as a thin line."""
    curves = [curve(result, tag) for result in results]
    draw_mean(panel, curves, label, confidence=settings.confidence, min_seeds=settings.min_seeds, color=color)


def draw_endpoints(panel: Any, arms: Sequence[tuple[str, Sequence[Result]]], settings: DictConfig) -> None:
    """Draw the primary endpoint of every arm: each seed, the mean, and an interval where there are enough seeds."""
    for row, (_, results) in enumerate(arms):
        values = [result.values[settings.primary] for result in results]
        panel.plot(values, [row] * len(values), "o", color="grey", ms=3, alpha=0.6)
        error = t_interval(values, settings.confidence).half_width if len(values) >= settings.min_seeds else None
        panel.errorbar(float(np.mean(values)), row, xerr=error, fmt="D", color="black", ms=4, capsize=3)
    panel.axvline(0.0, color="grey", ls="--", lw=1)
    panel.set_yticks(range(len(arms)), [label for label, _ in arms], fontsize=7)
    panel.invert_yaxis()
    panel.set_title(settings.primary, fontsize=9)


def plot_figure(results: Sequence[Result], settings: DictConfig, path: Path) -> Path:
    """Draw a row of panels for each task: the figure's curves, and the primary endpoint of every arm.

    Args:
        results: of finished runs.
        settings: ``conf/figures.yaml``.
        path: of the picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, catalogue, groups = settings.figure, settings.catalogue, by_arm(results)
    tasks = list(dict.fromkeys(task for task, _ in groups))
    drawn = [arm for arm in dict.fromkeys(arm for _, arm in groups) if figure.curves is None or arm in figure.curves]
    colors = {arm: f"C{number}" for number, arm in enumerate(drawn)}  # an arm's are those of every task
    most = max(sum(name == task for name, _ in groups) for task in tasks)
    columns, height = len(figure.panels) + 1, max(3.2, 0.22 * most)
    canvas = optional("matplotlib.figure", "plots").Figure(
        (4.6 * columns, height * len(tasks) + 1), layout="constrained"
    )
    for row, task in zip(canvas.subplots(len(tasks), columns, squeeze=False), tasks, strict=True):
        arms = [(arm, group) for (name, arm), group in groups.items() if name == task]
        for panel, (tag, title) in zip(row, figure.panels.items(), strict=False):
            for arm, group in arms:
                if arm in colors:
                    draw_curves(panel, group, tag, catalogue[arm].label, colors[arm], settings)
            panel.set_title(f"{task}: {title}", fontsize=9)
            panel.set_xlabel("online step")
            panel.grid(alpha=0.3)
        if row[0].get_legend_handles_labels()[0]:
            row[0].legend(fontsize=7)
        draw_endpoints(row[-1], [(catalogue[arm].label, group) for arm, group in arms], settings)
    counts = sorted({len(group) for group in groups.values()})
    seeds = f"seeds: {counts[0]}" if len(counts) == 1 else f"seeds: {counts[0]} to {counts[-1]}"
    few = f", descriptive below {settings.min_seeds}: no interval" if counts[0] < settings.min_seeds else ""
    canvas.suptitle(f"{figure.title}\n{settings.budget.text}; {seeds}{few}", fontsize=9, wrap=True)
    canvas.savefig(path, dpi=110)
    return path


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
) -> list[float]:
    """Draw the mean over seeds at the steps that all have, with an interval, else each seed as a thin line.

    Args:
        panel: matplotlib's axes.
        curves: values by step, one a seed.
        label: for the legend.
        confidence: of the interval.
        min_seeds: with fewer there is no interval.
        color: of the lines; None takes the next one of the panel's.

    Returns:
        The steps that were drawn.
    """
    steps = sorted(set.intersection(*(set(each) for each in curves)))
    if not steps:
        return steps
    values = [[each[step] for each in curves] for step in steps]
    (line,) = panel.plot(steps, [float(np.mean(row)) for row in values], marker="o", ms=2.5, label=label, color=color)
    if len(curves) >= max(2, min_seeds):
        intervals = [t_interval(row, confidence) for row in values]
        low, high = [each.low for each in intervals], [each.high for each in intervals]
        panel.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, lw=0)
    elif len(curves) > 1:
        panel.plot(steps, values, color=line.get_color(), lw=0.5, alpha=0.5)
    return steps
