"""A figure at toy size: its runs are started, stopped, continued and left alone; its numbers are those of the runs."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipes import figures
from tests.support.recipe_runs import ROOT, rows, settings

SIZES = "overrides=['online.steps=200','online.evaluate_every=20']"
FIGURE = ["figure=controls", "budget=smoke", "arms=[iql_policy,iql_optimistic]", "seeds=1", SIZES]
HORIZONS = "diagnose_horizons=[1]"
JOBLIB = ["run_launcher=joblib", "run_launcher_settings=['hydra.launcher.n_jobs=2']"]
OPTIMISTIC = "figure.optimistic=[iql_policy]"
POLICY, O3F = (
    Path(f"runs/smoke-iql_{kind}/halfcheetah-quickstart-iql-{kind}/seed0") for kind in ("policy", "optimistic")
)
LOW, HIGH = -280.178953, 12135.0  # halfcheetah's reference returns


def wait_for(file: Path, process: subprocess.Popen[Any]) -> None:
    while not file.exists():
        assert process.poll() is None, f"ended with {process.returncode} before {file} was there"
        time.sleep(0.02)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An empty folder with a place for datasets; the recipes that processes are started for, as they are started."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "recipes/figures.py")])
    recipes: list[str] = []
    original = subprocess.Popen

    def counted(call: Any, *args: Any, **kwargs: Any) -> Any:
        recipes.extend(Path(part).stem for part in call[1:2] if str(part).endswith(".py"))
        return original(call, *args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", counted)
    return recipes


@pytest.mark.slow
def test_a_stopped_figure_goes_on_and_a_finished_one_starts_nothing(
    started: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, str(ROOT / "recipes/figures.py"), *FIGURE, "jobs=1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(POLICY / "metrics.csv", process)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    assert "the same command goes on" in told
    log = Path("results/controls-smoke/logs/halfcheetah-quickstart-iql_policy-seed0.log")
    assert "stopped by SIGTERM" in log.read_text()  # and not left running
    assert not list(Path("runs").glob("smoke-*/*/*/done.json"))
    (pretrained,) = Path("runs").glob("pretrained-*/*/seed0/metrics.csv")
    before = pretrained.stat().st_mtime_ns

    started.clear()
    figures.main(settings("figures", *FIGURE, OPTIMISTIC, HORIZONS, *JOBLIB))
    assert started == [
        "finetune",
        "finetune",
        "evaluate",
        "evaluate",
        "diagnose",
    ]  # agents before and after fine-tuning
    assert pretrained.stat().st_mtime_ns == before  # which was finished
    assert_the_numbers_are_those_of_the_runs(Path("results/controls-smoke"))

    started.clear()
    figures.main(settings("figures", *FIGURE, OPTIMISTIC, HORIZONS))
    assert started == []
    assert_the_diagnosis_is_in_it(Path("results/controls-smoke/controls.md").read_text())
    assert "2 runs, 0 to do, 0.00 core-hours" in capsys.readouterr().out


def assert_the_diagnosis_is_in_it(text: str) -> None:
    (report,) = Path("runs").glob("pretrained-*/*/seed0/diagnose-1.json")
    diagnosis = json.loads(report.read_text())
    assert diagnosis["settings"]["horizon"] == 1
    correlation, verdict = diagnosis["figures"]["rank_correlation"], diagnosis["advice"].split(":")[0]
    (row,) = (line for line in text.splitlines() if " x " in line)
    assert row.startswith(f"| halfcheetah/quickstart | 1 | 1 | 1 x {verdict} | {correlation:.2f} |")


def assert_the_numbers_are_those_of_the_runs(folder: Path) -> None:
    with (folder / "controls.csv").open() as file:
        table = {row["arm"]: row for row in csv.DictReader(file)}
    assert set(table) == {"iql_policy", "iql_optimistic"}
    early = {}
    for arm, run in (("iql_policy", POLICY), ("iql_optimistic", O3F)):
        score = {step: value for step, _, value in rows(run, "eval/score")}
        online = [score[step] for step in range(20, 201, 20)]
        played = [100 * (value - LOW) / (HIGH - LOW) for _, _, value in rows(run, "rollout/return")]
        early[arm] = score[20]
        expected = {
            "offline": score[0],
            "auc": np.mean(online),
            "gain": np.mean(online) - score[0],
            "final": score[200],
            "collecting": np.mean(played),
            "regret": np.mean([max(0.0, score[0] - value) for value in played]),
            "dip": early[arm] - early["iql_policy"],
        }
        assert len(played) == 10
        assert {name: float(table[arm][name]) for name in expected} == pytest.approx(expected)
    assert table["iql_policy"]["offline"] == table["iql_optimistic"]["offline"]  # one pre-trained agent
    text = (folder / "controls.md").read_text()
    assert "; with `online.steps=200` `online.evaluate_every=20`. Primary" in text.splitlines()[2]
    difference = float(table["iql_optimistic"]["gain"]) - float(table["iql_policy"]["gain"])
    assert f"| IQL, O3F minus IQL, plain policy | 1 | {difference:+.1f} |" in text
    assert "| p |" not in text  # of one seed there is none
    assert "| agent and seed | descriptive |" in text
    assert "| before fine-tuning | 1 |" in text
    assert "o3f/halfcheetah/smoke-v0, content hash" in text
    assert (folder / "controls.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fig2", "fig3", "fig4", "fig5", "fig6"])
def test_every_figure_of_the_paper_runs_at_toy_size(started: list[str], name: str) -> None:
    figures.main(settings("figures", f"figure={name}", "budget=smoke", "seeds=1"))
    with Path(f"results/{name}-smoke/{name}.csv").open() as file:
        arms = {row["arm"] for row in csv.DictReader(file)}
    assert arms == set(settings("figures", f"figure={name}").figure.arms)
