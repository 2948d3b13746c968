"""What runs cost, in seconds of one core: from stated prices, or from what finished runs took."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from omegaconf import DictConfig

from o3f.figures.plan import PlannedRun
from o3f.runs.logger import read_csv


@dataclass(frozen=True)
class Prices:
    """Seconds of one core.

    Attributes:
        offline: of a gradient step of pre-training.
        update: of a gradient step online.
        step: of a step while collecting, without its updates.
        episode: of an episode of an evaluation.
    """

    offline: float
    update: float
    step: float
    episode: float


def offline_seconds(config: DictConfig, prices: Prices) -> float:
    """Return what the pre-training of a run costs."""
    steps, every = int(config.offline.steps), int(config.offline.evaluate_every)
    return steps * prices.offline + ceil(steps / every) * int(config.evaluation.episodes) * prices.episode


def online_seconds(config: DictConfig, prices: Prices, per_step: float | None = None) -> float:
    """Return what the fine-tuning of a run costs.

    Args:
        config: of the run.
        prices: of its work.
        per_step: measured seconds of a step with its updates, in place of the prices.
    """
    steps, every = int(config.online.steps), int(config.online.evaluate_every)
    if per_step is None:
        per_step = int(config.online.updates_per_step) * prices.update + prices.step
    return steps * per_step + (1 + ceil(steps / every)) * int(config.evaluation.episodes) * prices.episode


def measured_seconds_per_step(folder: Path) -> float | None:
    """Return the median seconds of an online step (with its updates) of a run, None where there is no figure."""
    if not (folder / "timing.csv").exists():
        return None
    rates = [value for _, tag, value in read_csv(folder / "timing.csv") if tag == "time/steps_per_second" and value > 0]
    return 1.0 / statistics.median(rates) if rates else None


def remaining_seconds(runs: Sequence[PlannedRun], prices: Mapping[str, Prices]) -> dict[PlannedRun, float]:
    """Return what each run still costs; a shared pre-training is counted with the first run that needs it.

    Args:
        runs: all runs of a figure, in the order in which they are started.
        prices: by arm.
    """
    pretrained = {run.pretraining for run in runs if run.online}
    speeds: dict[str, list[float]] = {}
    for run in runs:
        if run.finished and (speed := measured_seconds_per_step(run.path)) is not None:
            speeds.setdefault(run.arm, []).append(speed)
    costs: dict[PlannedRun, float] = {}
    for run in runs:
        speed = statistics.median(speeds[run.arm]) if run.arm in speeds else None
        online = online_seconds(run.config, prices[run.arm], speed)
        costs[run] = (1.0 - min(1.0, run.share_done)) * online
        if run.pretraining not in pretrained:
            costs[run] += offline_seconds(run.config, prices[run.arm])
            pretrained.add(run.pretraining)
    return costs


def launched_seconds(costs: Mapping[PlannedRun, float], cores: int) -> float:
    """Return how long a launcher takes: an arm after the other, its runs on so many cores, each with the next free one.

    Args:
        costs: seconds of each run, in the order in which they are started.
        cores: at least 1; no run takes more than one.
    """
    arms: dict[str, list[float]] = {}
    for run, seconds in costs.items():
        arms.setdefault(run.arm, []).append(seconds)
    total = 0.0
    for each in arms.values():
        busy_until = [0.0] * min(cores, len(each))
        for seconds in each:
            heapq.heapreplace(busy_until, busy_until[0] + seconds)
        total += max(busy_until)
    return total
