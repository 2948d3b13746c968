"""Curves of any runs, means and intervals over their seeds: python recipes/plot.py name=default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from o3f.cli.recipe import recipe, require, require_range
from o3f.errors import optional
from o3f.evaluation.comparison import draw_mean, in_parts
from o3f.runs.identity import read_settings
from o3f.runs.logger import read_csv

#: What may tell arms apart, in the order of a label.
PARTS = ("name", "task.name", "algorithm.name", "exploration.kind")


@recipe("plot")
def main(config: DictConfig) -> None:
    """Group the runs by arm, draw a panel for each figure, and say what was drawn."""
    require_range(config, "confidence", "(0, 1)")
    require_range(config, "min_seeds", "[2, inf)", integer=True)
    require_range(config, "parts", "[1, inf)", integer=True)
    arms = group(folders(config))
    shown = [tag for tag in config.tags if any(curves(runs, tag, config.parts) for runs in arms.values())]
    require(bool(shown), f"none of these runs has logged any of {', '.join(config.tags)}.")
    canvas = optional("matplotlib.figure", "plots").Figure((5.5 * len(shown), 4.2), layout="constrained")
    panels = canvas.subplots(1, len(shown), squeeze=False)[0]
    for panel, tag in zip(panels, shown, strict=True):
        for label, runs in arms.items():
            if drawn := curves(runs, tag, config.parts):
                draw_mean(panel, drawn, label, confidence=config.confidence, min_seeds=config.min_seeds)
        panel.set_title(tag)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    panels[-1].legend(fontsize=8)
    counts = sorted({len(runs) for runs in arms.values()})
    few = f"; no interval below {config.min_seeds}" if counts[0] < config.min_seeds else ""
    seeds = "-".join(map(str, counts))
    canvas.suptitle(f"mean and {config.confidence:.0%} t interval over seeds ({seeds} of them{few})", fontsize=9)
    canvas.savefig(config.output, dpi=110)
    for label, runs in arms.items():
        print(f"{label}: {len(runs)} {'seed' if len(runs) == 1 else 'seeds'}")
    print(f"Curves: {config.output}")


def folders(config: DictConfig) -> list[Path]:
    """Return the run folders asked for: those given, or all of a name that collected."""
    require(
        (config.run is None) != (config.name is None),
        "say which runs: run=[FOLDER,...], or name=NAME for all fine-tuning runs of that name.",
    )
    if config.run is not None:
        found = [Path(run) for run in (config.run if isinstance(config.run, ListConfig) else [config.run])]
    else:
        found = [path for path in sorted(Path(config.runs, config.name).glob("*/seed*")) if "-offline" not in str(path)]
    for path in found:
        require((path / "metrics.csv").exists(), f"{path} is no run folder: it has no metrics.csv.")
    require(bool(found), f"there is no fine-tuning run in {Path(config.runs, config.name or '')}.")
    return found


def group(found: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the runs of each arm, by what of its name, task, algorithm and exploration is not the same in all."""
    arms: dict[Path, list[Path]] = {}
    for path in found:
        arms.setdefault(path.parent, []).append(path)
    said = {arm: parts(read_settings(runs[0] / "config.yaml")) for arm, runs in arms.items()}
    telling = [part for part in PARTS if len({each[part] for each in said.values()}) > 1] or [PARTS[-1]]
    return {" ".join(said[arm][part] for part in telling): runs for arm, runs in arms.items()}


def parts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what may tell an arm from others."""
    config = OmegaConf.create(dict(settings))
    return {part: str(OmegaConf.select(config, part, default="offline")) for part in PARTS}


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
