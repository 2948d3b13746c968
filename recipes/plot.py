"""Curves of any runs, means and intervals over their seeds: python recipes/plot.py name=default."""

from __future__ import annotations

from o3f.cli.recipe import answer_first, check_keys, recipe, require, require_range

if __name__ == "__main__":
    answer_first("plot", __file__)  # before the imports below, which take seconds

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from o3f.errors import optional
from o3f.figures.found import found_runs, run_folders
from o3f.figures.plot import draw_mean, in_parts
from o3f.runs.logger import read_csv


@recipe("plot")
def main(config: DictConfig) -> None:
    """Group the runs by arm, draw a panel for each figure, and say what was drawn."""
    require_range(config, "confidence", "(0, 1)")
    require_range(config, "min_seeds", "[2, inf)", integer=True)
    require_range(config, "parts", "[1, inf)", integer=True)
    check_keys([Path(config.output).suffix], [".png", ".pdf", ".svg"], "output")
    require(
        isinstance(config.tags, ListConfig) and len(config.tags) > 0,
        f"tags must be a list, tags=[eval/score], found {config.tags!r}: python -m o3f.tags lists them.",
    )
    runs_found = found_runs(run_folders(config))
    several = len({run.task for run in runs_found}) > 1
    arms: dict[str, list[Path]] = {}
    for run in runs_found:
        arms.setdefault(f"{run.task} {run.arm}" if several else run.arm, []).append(run.path)
    shown = [tag for tag in config.tags if any(curves(runs, tag, config.parts) for runs in arms.values())]
    require(bool(shown), f"none of these runs has logged any of {', '.join(config.tags)}.")
    canvas = optional("matplotlib.figure", "plots").Figure((5.5 * len(shown), 4.2), layout="constrained")
    panels = canvas.subplots(1, len(shown), squeeze=False)[0]
    cut: list[str] = []
    for panel, tag in zip(panels, shown, strict=True):
        for label, runs in arms.items():
            if drawn := curves(runs, tag, config.parts):
                steps = draw_mean(panel, drawn, label, confidence=config.confidence, min_seeds=config.min_seeds)
                cut += left_out(label, tag, drawn, steps)
        panel.set_title(tag)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    if panels[-1].get_legend_handles_labels()[0]:
        panels[-1].legend(fontsize=8)
    counts = sorted({len(runs) for runs in arms.values()})
    few = f"; no interval below {config.min_seeds}" if counts[0] < config.min_seeds else ""
    seeds = "-".join(map(str, counts))
    canvas.suptitle(f"mean and {config.confidence:.0%} t interval over seeds ({seeds} of them{few})", fontsize=9)
    canvas.savefig(config.output, dpi=110)
    for label, runs in arms.items():
        print(f"{label}: {len(runs)} {'seed' if len(runs) == 1 else 'seeds'}")
    if len({frozenset(run.name for run in each) for each in arms.values()}) > 1:
        print("these are not the same seeds in every arm: recipes/compare.py compares those that have a pair")
    print("\n".join([*cut, f"Curves: {config.output}"]))


def left_out(label: str, tag: str, drawn: Sequence[Mapping[float, float]], steps: Sequence[float]) -> list[str]:
    """Say where an arm's curve ends before one of its runs does: a mean is drawn where all of them have a value."""
    if not steps:
        return [f"{label}: {tag} is not drawn, for its runs have no step in common"]
    if steps[-1] == max(max(each) for each in drawn):
        return []
    return [f"{label}: {tag} is drawn up to step {steps[-1]:g}, the last one that all of its runs have"]


def curves(runs: Sequence[Path], tag: str, count: int) -> list[dict[float, float]]:
    """Return the values of a tag by step, of those runs that have it; episodes as means over parts of the steps."""
    rows = [[row for row in read_csv(run / "metrics.csv") if row[1] == tag] for run in runs]
    found = [{float(step): value for step, _, value in values} for values in rows if values]
    if not tag.startswith("rollout/"):
        return found
    end = max((max(values) for values in found), default=0.0)
    return [in_parts({int(step): value for step, value in values.items()}, end, count) for values in found]


if __name__ == "__main__":
    main()
