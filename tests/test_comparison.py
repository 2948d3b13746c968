"""From run folders to the table and the figure."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from o3f.evaluation.comparison import Curves, comparison_table, paired_differences, plot_arms, read_curves
from o3f.runs.logger import RunLogger

BETTER = [Curves({0: 100.0 + k, 50: 120.0, 100: 140.0 + 3 * k}, {40: 110.0, 90: 130.0}) for k in range(3)]
WORSE = [Curves({0: 100.0 + k, 50: 90.0, 100: 101.0 - k}, {40: 50.0, 90: 60.0 + k}) for k in range(3)]
ARMS = {"O3F": BETTER, "noise": WORSE}


def test_curves_come_from_the_run_folder(tmp_path: Path) -> None:
    with RunLogger(tmp_path) as logger:
        logger.log(0, {"eval/return": 3.5, "eval/length": 50.0})
        logger.log(50, {"rollout/return": -1.25, "train/loss/value": 9.0})
        logger.log(100, {"rollout/return": -0.75, "eval/return": 4.5})
    curves = read_curves(tmp_path)
    assert curves == Curves({0: 3.5, 100: 4.5}, {50: -1.25, 100: -0.75})
    assert (curves.offline, curves.final, curves.collecting) == (3.5, 4.5, -1.0)


def test_a_run_without_the_figures_is_refused(tmp_path: Path) -> None:
    with RunLogger(tmp_path) as logger:
        logger.log(10, {"eval/return": 3.5})
    with pytest.raises(ValueError, match="offline evaluation"):
        read_curves(tmp_path)


def test_the_table_by_hand() -> None:
    # Changes 40, 42, 44: s = 2, half width 4.302653 * 2 / sqrt(3) = 4.97. Changes 1, -1, -3: the interval holds 0.
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(comparison_table(ARMS))
    text = console.export_text()
    ours, theirs = (next(line for line in text.splitlines() if label in line) for label in ARMS)
    assert [cell.strip() for cell in ours.split("│")[1:-1]] == [
        "O3F", "101 ± 2", "143 ± 7", "42 ± 5", "improved", "120 ± 0", "19 ± 2",
    ]  # fmt: skip
    assert "no clear improvement" in theirs
    assert "-1 ± 5" in theirs


def test_differences_are_paired_by_seed() -> None:
    # Final: 39, 43, 47; collecting: 65, 64.5, 64.
    (line,) = paired_differences(ARMS)
    assert line == "O3F minus noise: after 43 ± 10, while collecting 64 ± 1"


def test_the_figure_draws_both_kinds_of_curve(tmp_path: Path) -> None:
    both = matplotlib.image.imread(plot_arms(ARMS, tmp_path / "both.png"))
    evaluated_moved = {
        "O3F": [Curves({**run.evaluated, 50: 0.0}, run.collected) for run in BETTER],
        "noise": WORSE,
    }
    collected_moved = {
        "O3F": [Curves(run.evaluated, {**run.collected, 40: 0.0}) for run in BETTER],
        "noise": WORSE,
    }
    assert both.shape[0] > 300
    width = both.shape[1] // 2
    for index, arms in enumerate((evaluated_moved, collected_moved)):
        other = matplotlib.image.imread(plot_arms(arms, tmp_path / "other.png"))
        halves = [np.abs(other - both)[:, :width], np.abs(other - both)[:, width:]]
        assert halves[index].max() > 0.1
