"""What diagnose says of pre-trained agents, beside what fine-tuning then made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from o3f.evaluation.diagnosis.report import rank_correlation
from o3f.figures.evaluations import pretrained_folder
from o3f.figures.plan import PlannedRun
from o3f.figures.results import Result, compare
from o3f.figures.shares import in_shares
from o3f.runs.files import read_json

#: Quantities whose differences stand beside the diagnosis.
DIFFERENCES = ("gain", "collecting")


def report_file(horizon: int) -> str:
    """Return the name of diagnose's report in a run folder."""
    return f"diagnose-{horizon}.json"


def read_report(folder: Path, horizon: int, defaults: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return diagnose's report of a run, None where there is none with these settings.

    Args:
        folder: of the run.
        horizon: steps of the rollouts.
        defaults: diagnose's own settings.
    """
    file = folder / report_file(horizon)
    if not file.exists():
        return None
    report, wanted = read_json(file), {**defaults, "horizon": horizon, "file": file.name}
    same = all(report["settings"].get(key) == value for key, value in wanted.items() if key not in ("run", "threads"))
    return report if same else None


def diagnose_pretrained(
    runs: Sequence[PlannedRun], horizons: Sequence[int], jobs: int, defaults: Mapping[str, Any]
) -> None:
    """Diagnose the agents that finished runs began with, where that is not done yet.

    Args:
        runs: finished or not.
        horizons: steps of the rollouts, one diagnosis each.
        jobs: processes at a time.
        defaults: diagnose's own settings.

    Raises:
        Stopped: by a signal.
        ResourceError: a diagnosis failed.
    """
    folders = {pretrained_folder(run) for run in runs if run.finished} - {None}
    for horizon in horizons:
        missing = sorted(each for each in folders if each is not None and read_report(each, horizon, defaults) is None)
        in_shares("diagnose", missing, [f"horizon={horizon}", f"file={report_file(horizon)}"], jobs)


def diagnoses(
    results: Sequence[Result], task: str, horizon: int, defaults: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """Return diagnose's reports of a task's pre-trained agents by seed, those that are there."""
    found: dict[int, dict[str, Any]] = {}
    for result in results:
        folder: Path | None = pretrained_folder(result.run) if result.run.task == task else None
        if folder is not None and (report := read_report(folder, horizon, defaults)) is not None:
            found[result.run.seed] = report
    return found


def diagnosis_section(results: Sequence[Result], settings: DictConfig, defaults: Mapping[str, Any]) -> list[str]:
    """Return a Markdown section for the figure's first comparison; nothing where nothing was compared or diagnosed."""
    if not settings.figure.compare:
        return []
    first, second = settings.figure.compare[0]
    ours = [each for each in results if each.run.arm == first]
    header = ["task", "horizon", "seeds", "verdicts", "rank correlation", "true gain by spread"]
    header += [name for quantity in DIFFERENCES for name in (quantity, f"goes with {quantity}")]
    lines = []
    for task in dict.fromkeys(each.run.task for each in ours):
        for horizon in settings.diagnose_horizons:
            reports = diagnoses(ours, task, horizon, defaults)
            if reports:
                lines.append([task, str(horizon), *_cells(reports, results, (first, second), task, settings)])
    if not lines:
        return []
    rows = [header, ["---"] * len(header), *lines]
    labels = " minus ".join(settings.catalogue[arm].label for arm in (first, second))
    text = (
        "Diagnose judges the pre-trained agents alone: verdicts counted over seeds, the rest means over them."
        f" {' and '.join(DIFFERENCES)}: {labels}, mean over the same seeds; 'goes with' is Spearman's correlation over"
        f" seeds of the true gain with that difference, from {settings.min_seeds} seeds on."
    )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return ["## Did diagnose know?\n", f"{text}\n", f"{table}\n"]


def _cells(
    reports: dict[int, dict[str, Any]],
    results: Sequence[Result],
    pair: tuple[str, str],
    task: str,
    settings: DictConfig,
) -> list[str]:
    verdicts = Counter(report["advice"].split(":")[0] for report in reports.values())
    gains = {seed: report["figures"]["relative_gain"] for seed, report in reports.items()}
    cells = [str(len(reports)), ", ".join(f"{count} x {verdict}" for verdict, count in verdicts.most_common())]
    cells += [_mean([report["figures"]["rank_correlation"] for report in reports.values()]), _mean(gains.values())]
    for quantity in DIFFERENCES:
        found = [each for each in compare(results, [pair], quantity) if each.task == task]
        differences = found[0].differences if found else {}
        seeds = sorted(seed for seed in differences.keys() & gains.keys() if gains[seed] is not None)
        cells.append(_mean([differences[seed] for seed in seeds]))
        pairs = [np.array([values[seed] for seed in seeds]) for values in (gains, differences)]
        cells.append(f"{rank_correlation(*pairs):.2f}" if len(seeds) >= settings.min_seeds else "-")
    return cells


def _mean(values: Any) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.2f}" if known else "-"
