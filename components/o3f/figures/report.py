"""A figure's folder: table, raw figures, picture, and where all of it comes from."""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from o3f.data import is_local, open_dataset
from o3f.errors import require
from o3f.figures.plan import PlannedRun
from o3f.figures.plot import plot_figure
from o3f.figures.quantities import QUANTITIES
from o3f.figures.results import MIN_PAIRS, Result
from o3f.figures.tables import aggregate_table, arms_table, comparisons_table, curves_csv, rows_csv
from o3f.runs.files import read_json, write_text

#: Facts of a run's env.json that are no version and no machine.
_FACTS = ("seed", "dataset", "dataset_hash")

#: Of absolute paths in the words of a dataset's maker: they are of that machine.
_FOLDERS = re.compile(r"(?<=')/[^']*/")


def write_report(
    folder: Path,
    runs: Sequence[PlannedRun],
    results: Sequence[Result],
    settings: DictConfig,
    command: str,
    extra: Sequence[str] = (),
) -> Path:
    """Write ``<figure>.md``, ``.csv``, ``-curves.csv`` and ``.png``; what somebody wrote in ``found.md`` goes into it.

    Args:
        folder: of the figure.
        runs: all it needs.
        results: of the finished ones, at least one.
        settings: ``conf/figures.yaml``.
        command: that makes it.
        extra: more sections of the Markdown file.

    Returns:
        The Markdown file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = settings.figure.name
    plot_figure(results, settings, folder / f"{name}.png")
    write_text(folder / f"{name}.csv", rows_csv(results))
    write_text(folder / f"{name}-curves.csv", curves_csv(results, list(settings.figure.panels)))
    sections = [
        f"# {settings.figure.title}\n",
        f"{settings.budget.text}{_changed(settings)}. {_endpoint(settings)}\n",
        f"![]({name}.png)\n",
    ]
    if (found := folder / "found.md").exists():
        sections += ["## What was found\n", found.read_text(encoding="utf-8")]
    sections += ["## Comparisons\n", comparisons_table(results, settings)]
    sections += ["## Arms\n", "Scores, means over seeds.\n", arms_table(results, settings)]
    if settings.budget.aggregate:
        sections += ["## Over all tasks\n", aggregate_table(results, settings)]
    sections += [*extra, "## What it should show, and does not\n", *_limits(runs, results, settings)]
    sections += ["## How it was made\n", _origin(results, settings, command), _quantities()]
    write_text(folder / f"{name}.md", "\n".join(sections))
    return folder / f"{name}.md"


def check_keeps(folder: Path, name: str, runs: Sequence[PlannedRun]) -> None:
    """Refuse to write over a report of runs that are not among these: what is there would be lost.

    Args:
        folder: of the figure.
        name: of the figure.
        runs: that the new report is of.

    Raises:
        ConfigError: it holds others.
    """
    file = folder / f"{name}.csv"
    if not file.exists():
        return
    with file.open(encoding="utf-8", newline="") as lines:
        there = {(row["task"], row["arm"], int(row["seed"])) for row in csv.DictReader(lines)}
    lost = sorted(there - {(run.task, run.arm, run.seed) for run in runs})
    some = "; ".join(f"{task} {arm} seed {seed}" for task, arm, seed in lost[:3]) + (" ..." if len(lost) > 3 else "")
    require(
        not lost,
        f"{folder} has a report with {len(lost)} runs that this command leaves out ({some})."
        " Give output=FOLDER for a report of its own, or the same tasks, arms and seeds and more.",
    )


def _changed(settings: DictConfig) -> str:
    """What the command line changed of the budget: the sizes that the text names may be other ones."""
    return "; with " + " ".join(f"`{each}`" for each in settings.overrides) if settings.overrides else ""


def _endpoint(settings: DictConfig) -> str:
    when = "fixed before the runs" if settings.primary == "gain" else "chosen on the command line"
    return (
        f"Primary endpoint, {when}: {settings.primary}, the {QUANTITIES[settings.primary]}; intervals"
        f" are Student's at {settings.confidence:.0%} over seeds, p is of a sign-flip permutation test, from"
        f" {MIN_PAIRS} seeds on."
        " Not corrected for the number of comparisons."
    )


def _limits(runs: Sequence[PlannedRun], results: Sequence[Result], settings: DictConfig) -> list[str]:
    lines = [f"- {settings.figure.shows}", f"- Not shown: {settings.figure.not_shown}"]
    absent = [arm for arm in settings.figure.arms if arm not in {run.arm for run in runs}]
    if absent:
        lines.append(f"- Arms of this figure that were left out: {', '.join(absent)}.")
    if missing := len(runs) - len(results):
        lines.append(f"- {missing} of {len(runs)} runs are not finished and not in it.")
    few = sorted({each.run.arm for each in results if _count(each, results) < settings.min_seeds})
    if few:
        lines.append(f"- Descriptive, for there are fewer than {settings.min_seeds} seeds: {', '.join(few)}.")
    return ["\n".join(lines) + "\n"]


def _count(wanted: Result, results: Sequence[Result]) -> int:
    return sum((each.run.task, each.run.arm) == (wanted.run.task, wanted.run.arm) for each in results)


def _origin(results: Sequence[Result], settings: DictConfig, command: str) -> str:
    facts = [read_json(each.run.path / "env.json") for each in results]
    lines = [f"    {command}\n", f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d}"]
    for key in dict.fromkeys(key for each in facts for key in each if key not in _FACTS):
        lines.append(f"- {key}: {', '.join(sorted({str(each[key]) for each in facts if key in each}))}")
    datasets = {(each["dataset"], each["dataset_hash"]): result for each, result in zip(facts, results, strict=True)}
    for (dataset, content), result in datasets.items():
        lines.append(f"- dataset of {result.run.task}: {dataset_line(dataset, content, result.run.config)}")
    lines.append(f"- further settings of every run: {', '.join(settings.overrides) or 'none'}")
    return "\n".join(lines) + "\n"


def dataset_line(dataset: str | None, content: str | None, config: DictConfig) -> str:
    """Say which transitions the runs had, and what its maker wrote about the behaviour."""
    if dataset is None:
        return "none"
    line = f"{dataset}, content hash {content}"
    if config.dataset.get("path"):
        return f"{line}; a file of the user's own"
    if not is_local(dataset):
        return f"{line}; not on this machine"
    opened = open_dataset(dataset)
    steps, most = int(opened.total_steps), config.dataset.max_transitions
    used = f"{steps} steps" if most is None or most >= steps else f"the first {most} of {steps} steps"
    metadata: dict[str, Any] = opened.storage.metadata
    description = _FOLDERS.sub("", str(metadata.get("description", "no description")))
    return f"{line}, {used}; {description}"


def _quantities() -> str:
    return "\n".join(f"- {name}: {what}" for name, what in QUANTITIES.items()) + "\n"
