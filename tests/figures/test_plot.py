"""Curves of any run folders: the right runs in the right arm, means and intervals by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
from omegaconf import OmegaConf

from o3f.errors import ConfigError
from o3f.figures.plot import draw_mean, in_parts
from o3f.runs.logger import RunLogger
from recipes import plot
from tests.support.recipe_runs import settings


def write(root: Path, name: str, kind: str, seed: int, score: float) -> Path:
    folder = root / name / f"hopper-iql-{kind}" / f"seed{seed}"
    given: dict[str, Any] = {
        "name": name,
        "task": {"name": "hopper"},
        "algorithm": {"name": "iql"},
        "dataset": {"id": "none"},
        "seed": seed,
    }
    with RunLogger(folder) as logger:
        logger.log(0, {"eval/score": 10.0})
        logger.log(60 + seed, {"rollout/return": 3.0})
        logger.log(100, {"eval/score": score, "rollout/return": 5.0})
    OmegaConf.save(OmegaConf.create(given | {"exploration": {"kind": kind}}), folder / "config.yaml")
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What is drawn, by label: curves and options."""
    calls: dict[str, list[Any]] = {}

    def record(panel: Any, curves: Any, label: str, **options: Any) -> list[float]:
        calls.setdefault(label, []).append(curves)
        return draw_mean(panel, curves, label, **options)

    monkeypatch.setattr(plot, "draw_mean", record)
    return calls


def test_a_curve_that_ends_before_a_run_does_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "first", "optimistic", 0, 20.0)
    write(tmp_path, "first", "noise", 0, 20.0)
    behind = write(tmp_path, "first", "noise", 1, 20.0) / "metrics.csv"
    behind.write_text("step,tag,value\n0,eval/score,10.0\n50,train/loss/actor,1.0\n")
    command = [f"runs={tmp_path}", "name=first", f"output={tmp_path}/curves.png"]
    plot.main(settings("plot", *command, "tags=[eval/score]"))
    told = capsys.readouterr().out
    assert "noise: eval/score is drawn up to step 0, the last one that all of its runs have" in told
    assert "optimistic: eval" not in told
    other = tmp_path / "first/hopper-iql-noise/seed0/metrics.csv"
    other.write_text("step,tag,value\n70,train/loss/actor,1.0\n")
    plot.main(settings("plot", *command, "tags=[train/loss/actor]"))
    assert "noise: train/loss/actor is not drawn, for its runs have no step in common" in capsys.readouterr().out


def test_all_runs_of_a_name_by_arm(
    tmp_path: Path, drawn: dict[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, score in enumerate([20.0, 30.0]):
        write(tmp_path, "first", "optimistic", seed, score)
        write(tmp_path, "first", "noise", seed, score - 5.0)
        write(tmp_path, "first", "offline", seed, 0.0)
        write(tmp_path, "other", "noise", seed, 0.0)
    output = tmp_path / "curves.png"
    plot.main(settings("plot", "name=first", f"runs={tmp_path}", f"output={output}"))
    assert drawn == {
        "noise": [
            [{0.0: 10.0, 100.0: 15.0}, {0.0: 10.0, 100.0: 25.0}],
            [{60.0: 3.0, 100.0: 5.0}, {70.0: 3.0, 100.0: 5.0}],
        ],
        "optimistic": [
            [{0.0: 10.0, 100.0: 20.0}, {0.0: 10.0, 100.0: 30.0}],
            [{60.0: 3.0, 100.0: 5.0}, {70.0: 3.0, 100.0: 5.0}],
        ],
    }
    assert matplotlib.image.imread(output).std() > 0
    assert capsys.readouterr().out.splitlines()[:2] == ["noise: 2 seeds", "optimistic: 2 seeds"]


def test_runs_by_folder_are_told_apart_by_what_differs(tmp_path: Path, drawn: dict[str, list[Any]]) -> None:
    paths = [write(tmp_path, name, "noise", 0, 20.0) for name in ("first", "second")]
    given = f"run=[{','.join(map(str, paths))}]"
    plot.main(settings("plot", given, "tags=[eval/score]", f"output={tmp_path}/a.png"))
    assert drawn.keys() == {"first", "second"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "say which runs"),
        (["name=a", "run=b"], "say which runs"),
        (["name=nothing"], "no fine-tuning run"),
        (["run=nothing"], "no metrics.csv"),
        (["name=first", "tags=[eval/success]"], "eval/success"),
        (["name=first", "confidence=1"], "confidence"),
        (["name=first", "min_seeds=1"], "min_seeds"),
        (["name=first", "parts=0"], "parts"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    write(tmp_path, "first", "noise", 0, 20.0)
    with pytest.raises(ConfigError, match=said):
        plot.main(settings("plot", *overrides, f"runs={tmp_path}", f"output={tmp_path}/a.png"))
    assert not (tmp_path / "a.png").exists()


def test_the_line_is_the_mean_and_the_band_the_t_interval_by_hand() -> None:
    panel = matplotlib.figure.Figure().subplots()
    draw_mean(panel, [{0: 1.0, 10: 4.0, 20: 0.0}, {0: 2.0, 10: 6.0}, {0: 3.0, 10: 8.0}], "arm")
    (line,) = panel.lines
    assert line.get_xydata().tolist() == [[0.0, 2.0], [10.0, 6.0]]
    (band,) = panel.collections
    heights = band.get_paths()[0].vertices[:, 1]
    half = 4.302653 * 2.0 / np.sqrt(3)  # at step 10: s = 2, three seeds
    assert (heights.min(), heights.max()) == pytest.approx((2 - half / 2, 6 + half), abs=1e-4)
    few = matplotlib.figure.Figure().subplots()
    draw_mean(few, [{0: 1.0}, {0: 3.0}], "arm", min_seeds=3)
    assert not few.collections
    assert [each.get_ydata()[0] for each in few.lines] == [2.0, 1.0, 3.0]


def test_parts_have_the_means_of_their_episodes() -> None:
    assert in_parts({1: 1.0, 10: 3.0, 11: 7.0, 40: 9.0}, 40, 4) == {10.0: 2.0, 20.0: 7.0, 40.0: 9.0}
    assert list(in_parts({17: 1.0}, 17, 7)) == [17.0]  # and no part after the last
    assert list(in_parts({25_000: 1.0}, 25_000, 11)) == [25_000.0]
