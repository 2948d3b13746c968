"""The arms of any runs beside each other: a table, a sentence for each pair, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from o3f.errors import check_keys, optional, require, require_range
from o3f.figures.found import results_so_far
from o3f.figures.plan import PlannedRun
from o3f.figures.plot import plot_figure
from o3f.figures.quantities import QUANTITIES
from o3f.figures.results import Result
from o3f.figures.tables import arms_rows, console, curves_csv, gains, markdown, rows_csv, sentences
from o3f.runs.files import write_text
from o3f.runs.identity import plain

TAGS = ("eval/score", "rollout/return")


def check_comparison(config: DictConfig) -> None:
    """Check numbers and names, and the packages that are needed at the end."""
    require_range(config, "confidence", "(0, 1)")
    require_range(config, "min_seeds", "[2, inf)", integer=True)
    check_keys([config.primary, config.second, *config.shown], QUANTITIES, "primary, second, shown")
    for module in ("matplotlib", "scipy"):
        optional(module, "plots")


def compare_runs(runs: Sequence[PlannedRun], config: DictConfig) -> Path:
    """Print what came out of runs so far, and write it into ``config.output``.

    Args:
        runs: finished or under way.
        config: ``conf/compare.yaml``.

    Returns:
        The Markdown file.

    Raises:
        ConfigError: no run has an evaluation online yet, or ``config.first`` is none of the arms.
    """
    results, reached = results_so_far(runs, returns=config.returns)
    require(bool(results), "none of these runs has an evaluation online yet.")
    first = first_arm(results, config)
    results.sort(key=lambda each: each.run.arm != first)
    settings = with_figure(results, config)
    rows = arms_rows(results, settings, config.shown)
    text = [*gains(results, settings), *sentences(results, settings, config.second), *remarks(runs, results, reached)]
    Console(width=140).print(console(rows))
    print("\n".join(text))
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    plot_figure(results, settings, folder / "comparison.png")
    write_text(folder / "comparison.csv", rows_csv(results))
    write_text(folder / "comparison-curves.csv", curves_csv(results, TAGS))
    meaning = [f"- {name}: {QUANTITIES[name]}" for name in dict.fromkeys([*config.shown, config.second])]
    body = [markdown(rows), "![](comparison.png)\n", *(f"- {line}" for line in text), "", *meaning, ""]
    write_text(folder / "comparison.md", "\n".join([f"# {config.title}\n", f"{explained(config)}\n", *body]))
    return folder / "comparison.md"


def first_arm(results: Sequence[Result], config: DictConfig) -> str:
    """Return the arm that the others are compared with: the one asked for, or O3F's, or that of the first run."""
    if config.first is not None:
        check_keys([config.first], {each.run.arm for each in results}, "first")
        return str(config.first)
    optimistic = [each.run.arm for each in results if each.run.config.exploration.kind == "optimistic"]
    return (optimistic or [results[0].run.arm])[0]


def with_figure(results: Sequence[Result], config: DictConfig) -> DictConfig:
    """Return the settings with what a figure of the catalogue would state of its arms; the first is compared."""
    first, *others = dict.fromkeys(each.run.arm for each in results)
    unit = "return" if config.returns else "score"
    figure = {
        "title": config.title,
        "compare": [[first, arm] for arm in others],
        "curves": None,
        "panels": dict(zip(TAGS, (f"plain policy, {unit}", f"while collecting, {unit}"), strict=True)),
    }
    require(
        hasattr(config.labels, "get"), f"labels must be names of arms, labels={{ARM: LABEL}}, found {config.labels!r}."
    )
    catalogue = {arm: {"label": config.labels.get(arm, arm)} for arm in [first, *others]}
    settings = {**plain(config), "catalogue": catalogue, "budget": {"text": explained(config)}, "figure": figure}
    return OmegaConf.create(settings)


def explained(config: DictConfig) -> str:
    """Say what the numbers are."""
    unit = "Returns" if config.returns else "Scores, or returns where a task has none"
    return f"{unit}; means over seeds ± {config.confidence:.0%} Student interval"


def remarks(runs: Sequence[PlannedRun], results: Sequence[Result], reached: Mapping[str, Sequence[int]]) -> list[str]:
    """Say how far the comparison goes, and which runs and evaluations are not in it."""
    lines = []
    for task, steps in reached.items():
        ends = {int(run.config.online.steps) for run in runs if run.task == task}
        if ends != {steps[-1]}:
            lines.append(f"{task}: up to step {steps[-1]}, the last one that all runs were evaluated at")
        if len({run.config.online.get("evaluate_every") for run in runs if run.task == task}) > 1:
            lines.append(f"{task}: runs were evaluated at other steps; only those that all have count, {len(steps)}")
    absent = [run for run in runs if run not in {each.run for each in results}]
    return lines + [f"{run}: not evaluated online yet, and not in it" for run in absent]
