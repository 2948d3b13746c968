"""The compare recipe: from run folders to arms, pairs, a table and sentences, also while runs are under way."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from o3f.errors import ConfigError
from o3f.figures.found import found_runs, results_so_far
from o3f.figures.quantities import what_changed
from o3f.runs.files import write_text
from o3f.runs.logger import RunLogger
from recipes import compare
from tests.support.recipe_runs import settings


def write_run(
    root: Path,
    kind: str,
    seed: int,
    scores: list[float],
    *,
    name: str = "mine",
    task: str = "hopper",
    pretrained: str = "auto",
    data: str = "hash",
    every: int = 100,
) -> Path:
    """A run of 1000 steps with an evaluation each 100; 50 is a return of 100. Every episode has 50 steps."""
    folder = root / name / f"{task}-iql-{kind}" / f"seed{seed}"
    given: dict[str, Any] = {
        "name": name,
        "seed": seed,
        "task": {"name": task, "score": {"min": 0.0, "max": 200.0}},
        "algorithm": {"name": "iql"},
        "dataset": {"id": "set"},
        "offline": {"steps": 10},
        "pretrained": pretrained,
    }
    given |= {"online": {"steps": 1000, "evaluate_every": every}, "exploration": {"kind": kind}}
    with RunLogger(folder) as logger:
        for part, score in enumerate(scores):
            logger.log(every * part, {"eval/score": score, "eval/return": 2 * score})
            if part:
                logger.log(every * part - 50, {"rollout/return": 2 * score - 20.0})
                logger.log(every * part, {"rollout/return": 2 * score})
    OmegaConf.save(OmegaConf.create(given), folder / "config.yaml")
    write_text(folder / "env.json", f'{{"dataset_hash": "{data}"}}')
    return folder


def compared(root: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    compare.main(settings("compare", f"runs={root}", f"output={root}/out", *overrides))
    return capsys.readouterr().out


def test_two_arms_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Gains 10, 12, 14 (s = 2, half width 4.302653 * 2 / sqrt(3) = 4.97) and 1, -1, -3; differences 9, 13, 17 (s = 4).
    # Collecting: the mean of (score - 10) and score, 5 below the gain's mean; differences are the gains'.
    for seed in range(3):
        write_run(tmp_path, "noise", seed, [40.0 + seed, 40.0 + seed, 42.0 - 3 * seed])
        write_run(tmp_path, "optimistic", seed, [40.0 + seed, 45.0 + seed, 55.0 + 5 * seed])
    text = compared(tmp_path, capsys, "name=mine")
    ours, theirs = ([cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line)
    assert ours == ["hopper", "optimistic", "3", "41.0 ± 2.5", "12.0 ± 5.0", "60.0 ± 12.4", "48.0 ± 7.5", "-"]
    assert theirs[:5] == ["hopper", "noise", "3", "41.0 ± 2.5", "-1.0 ± 5.0"]
    assert "optimistic against its offline agent: gain +12.0 ± 5.0: improved" in text
    assert "noise against its offline agent: gain -1.0 ± 5.0: no clear improvement" in text
    assert "optimistic minus noise (3 seeds): gain +13.0 ± 9.9, more; collecting +13.0 ± 9.9, more" in text
    assert "up to step 200, the last one that all runs were evaluated at" in text  # of 1000
    written = (tmp_path / "out/comparison.md").read_text()
    assert "| hopper | optimistic | 3 | 41.0 ± 2.5 | 12.0 ± 5.0 |" in written
    assert "- gain: mean score over the online evaluations minus the offline score" in written
    with (tmp_path / "out/comparison.csv").open() as file:
        assert [(row["arm"], row["seed"], float(row["gain"])) for row in csv.DictReader(file)][:2] == [
            ("optimistic", "0", 10.0),
            ("optimistic", "1", 12.0),
        ]
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")
    returns = compared(tmp_path, capsys, "name=mine", "returns=true", "first=noise", "+labels={noise: Rauschen}")
    assert "Rauschen minus optimistic (3 seeds): gain -26.0 ± 19.9, less; " in returns


def test_seeds_without_a_pair_and_other_agents_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, gain in enumerate([1.0, 2.0, 90.0]):
        write_run(tmp_path, "optimistic", seed, [40.0, 40.0 + gain])
        if seed < 2:
            write_run(tmp_path, "policy", seed, [40.0, 40.0], data="hash" if seed else "made anew")
    text = compared(tmp_path, capsys, "name=mine")
    pair = "(2 seeds; not from the same agents; without a pair, left out: seed 2)"
    assert f"optimistic minus policy {pair}: gain +1.5, descriptive; collecting +1.5, descriptive" in text
    assert "policy against its offline agent: gain 0.0: descriptive" in text


def test_runs_under_way_are_compared_as_far_as_all_have_got(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        write_run(tmp_path, "optimistic", 0, [40.0, 50.0, 90.0]),
        write_run(tmp_path, "noise", 0, [40.0, 45.0]),
        write_run(tmp_path, "policy", 0, [40.0]),  # has not begun online
    ]
    results, reached = results_so_far(found_runs(runs), returns=False)
    assert reached == {"hopper": [100]}
    assert [(each.run.arm, each.values["final"]) for each in results] == [("optimistic", 50.0), ("noise", 45.0)]
    assert results[0].series.collected == {50: 40.0, 100: 50.0}
    (runs[0].parent / "seed1").mkdir()  # has only just been made
    text = compared(tmp_path, capsys, "name=mine")
    assert "hopper: up to step 100, the last one that all runs were evaluated at" in text
    assert "hopper policy seed 0: not evaluated online yet, and not in it" in text


def test_evaluations_count_at_the_steps_that_all_runs_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Both policies gain a point in 100 steps. A mean over steps 100, 200, ..., 600 would make 3.5 of it, and over 300
    # and 600 4.5: a difference that is none.
    write_run(tmp_path, "optimistic", 0, [40.0 + part for part in range(7)])
    write_run(tmp_path, "noise", 0, [40.0, 43.0, 46.0, 49.0], every=300)
    text = compared(tmp_path, capsys, "name=mine")
    assert "optimistic minus noise (1 seed): gain +0.0" in text
    assert "hopper: up to step 600, the last one that all runs were evaluated at" in text
    assert "only those that all have count, 2" in text
    write_run(tmp_path, "policy", 0, [40.0, 41.0], every=1000)
    with pytest.raises(ConfigError, match="no evaluation online at the same step"):
        compared(tmp_path, capsys, "name=mine")


def test_an_agent_is_the_same_found_or_given_by_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # What pretrain prints as the next command gives the folder; without it the same folder is found.
    offline = tmp_path / "mine/hopper-iql-offline/seed0"
    write_run(tmp_path, "noise", 0, [40.0, 41.0])
    written = OmegaConf.load(tmp_path / "mine/hopper-iql-noise/seed0/config.yaml")
    offline.mkdir(parents=True)
    OmegaConf.save(
        {key: written[key] for key in written if key not in ("online", "exploration")}, offline / "config.yaml"
    )
    write_run(tmp_path, "optimistic", 0, [40.0, 43.0], pretrained=str(offline))
    assert "optimistic minus noise (1 seed): gain +2.0" in compared(tmp_path, capsys, "name=mine")
    write_run(tmp_path, "noise", 1, [40.0, 41.0])
    write_run(tmp_path, "optimistic", 1, [40.0, 43.0], pretrained=str(offline))  # the agent of another seed
    assert "(2 seeds; not from the same agents)" in compared(tmp_path, capsys, "name=mine")


def test_runs_of_pretraining_are_told_by_the_end_of_their_folders_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path, "optimistic", 0, [40.0, 43.0], task="my-offline-data")
    assert "my-offline-data" in compared(tmp_path, capsys, "name=mine")
    offline = write_run(tmp_path, "offline", 0, [40.0])
    kept = OmegaConf.load(offline / "config.yaml")
    OmegaConf.save({key: kept[key] for key in kept if key not in ("online", "exploration")}, offline / "config.yaml")
    with pytest.raises(ConfigError, match="is a run of pre-training"):
        compared(tmp_path, capsys, f"run=[{folder},{offline}]")


def test_the_dip_is_against_the_plain_policy_of_the_same_agent(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path, "optimistic", 0, [40.0, 30.0, *[50.0] * 9]),
        write_run(tmp_path, "policy", 0, [40.0, 42.0, *[50.0] * 9]),
        write_run(tmp_path, "noise", 0, [40.0, 30.0, *[50.0] * 9], pretrained="agent.safetensors"),
    ]
    results, _ = results_so_far(found_runs(runs), returns=False)
    dips = {each.run.arm: each.values["dip"] for each in results}
    assert (dips["optimistic"], dips["policy"]) == (-12.0, 0.0)
    assert np.isnan(dips["noise"])


def test_arms_have_the_shortest_names_that_tell_them_apart(tmp_path: Path) -> None:
    def names(*runs: Path) -> list[str]:
        return [run.arm for run in found_runs(runs)]

    scores = [1.0, 2.0]
    small, large = (write_run(tmp_path, "optimistic", 0, scores, name=name) for name in ("small", "large"))
    noise = write_run(tmp_path, "noise", 0, scores, name="large")
    assert names(small) == ["optimistic"]
    assert names(small, large) == ["small", "large"]
    assert names(small, large, noise) == ["small optimistic", "large optimistic", "large noise"]
    again = write_run(tmp_path / "elsewhere", "noise", 0, scores, name="large")
    assert names(noise, again) == [noise.parent.as_posix(), again.parent.as_posix()]
    both = [write_run(tmp_path, "noise", 0, scores, task=task) for task in ("a", "b")]
    assert [(run.task, run.arm) for run in found_runs(both)] == [("a", "noise"), ("b", "noise")]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["name=mine", "tasks=[hopper/medium,walker]"], "tasks: 'walker' is not known.*hopper"),
        (["name=mine", "first=none"], "first: 'none' is not known.*noise"),
        (["name=mine", "primary=speed"], "primary.*'speed' is not known"),
        (["name=mine", "min_seeds=1"], "min_seeds"),
        (["name=other"], "no fine-tuning run"),
        (["name=offline"], "none of these runs has an evaluation online yet"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    write_run(tmp_path, "noise", 0, [1.0, 2.0], task="hopper-medium")
    write_run(tmp_path, "noise", 0, [1.0], name="offline")
    with pytest.raises(ConfigError, match=said):
        compare.main(settings("compare", f"runs={tmp_path}", f"output={tmp_path}/out", *overrides))
    assert not (tmp_path / "out").exists()


def test_finetune_says_what_changed(tmp_path: Path) -> None:
    better = write_run(tmp_path, "optimistic", 0, [40.0, 55.0, 52.0])
    assert (
        what_changed(better)
        == "The policy's score: 40.0 before, 52.0 after (+12.0); 55.0 at step 100 (checkpoint=best)"
    )
    worse = write_run(tmp_path, "noise", 0, [40.0, 30.0])
    assert what_changed(worse).endswith("30.0 after (-10.0); 40.0 at step 0 (checkpoint=best)")
    assert "no two evaluations" in what_changed(write_run(tmp_path, "policy", 0, [40.0]))
