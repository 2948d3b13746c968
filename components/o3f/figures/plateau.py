"""Had pre-training come to an end? If not, more of the same updates would have improved the agent without new data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from omegaconf import DictConfig

from o3f.evaluation.intervals import t_interval
from o3f.figures.evaluations import pretrained_folder
from o3f.figures.plan import PlannedRun
from o3f.figures.quantities import read_tag
from o3f.figures.results import reference


def late_change(scores: Sequence[float]) -> float:
    """Return the mean of the last third of a run's evaluations minus that of the third before.

    Args:
        scores: in the order of the evaluations, at least three.

    Examples:
        >>> late_change([0.0, 10.0, 30.0, 32.0, 33.0, 33.0])
        2.0
    """
    third = len(scores) // 3
    return float(np.mean(scores[-third:]) - np.mean(scores[-2 * third : -third]))


def late_changes(runs: Sequence[PlannedRun]) -> dict[tuple[str, str], list[float]]:
    """Return the late changes of the pre-trainings of finished runs, by task and first arm that began with them."""
    changes: dict[tuple[str, str], list[float]] = {}
    arms: dict[tuple[str, str], str] = {}
    seen = set()
    for run in runs:
        folder = pretrained_folder(run) if run.finished else None
        if folder is None or folder in seen:
            continue
        seen.add(folder)
        scores = list(read_tag(folder, "eval/return" if reference(run) is None else "eval/score").values())
        if len(scores) >= 3:
            arm = arms.setdefault((run.task, folder.parents[1].name), run.arm)
            changes.setdefault((run.task, arm), []).append(late_change(scores))
    return changes


def plateau_section(runs: Sequence[PlannedRun], settings: DictConfig) -> list[str]:
    """Return a Markdown section about the pre-trainings of finished runs; nothing where there are none."""
    changes = late_changes(runs)
    if not changes:
        return []
    lines = ["| task | pre-training of | seeds | late change | remark |", "|---|---|---|---|---|"]
    for (task, arm), values in changes.items():
        change, remark = f"{np.mean(values):+.1f}", "descriptive"
        if len(values) >= settings.min_seeds:
            interval = t_interval(values, settings.confidence)
            change += f" ± {interval.half_width:.1f}"
            remark = "still rising" if interval.low > 0.0 else "falling" if interval.high < 0.0 else "no clear change"
        lines.append(f"| {task} | {settings.catalogue[arm].label} | {len(values)} | {change} | {remark} |")
    text = (
        "Late change: mean score of the last third of the evaluations while pre-training, minus that of the third"
        " before. Where it is still rising, part of a gain online is that of further updates alone."
    )
    return ["## Had pre-training reached a plateau?\n", f"{text}\n", "\n".join(lines) + "\n"]
