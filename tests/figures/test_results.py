"""From the curves of runs to comparisons, tables and a picture: hand-computed, and no more said than is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from o3f.errors import ConfigError, ResourceError
from o3f.figures import diagnoses, launch, plateau, plot
from o3f.figures.evaluations import scores
from o3f.figures.plan import PlannedRun
from o3f.figures.quantities import Series, quantities
from o3f.figures.report import check_keeps, dataset_line
from o3f.figures.results import Result, aggregate, compare, headline, read_results
from o3f.figures.tables import aggregate_table, arms_table, comparisons_table, curves_csv, rows_csv
from o3f.runs.logger import RunLogger

SETTINGS = OmegaConf.create(
    {
        "primary": "gain",
        "confidence": 0.95,
        "min_seeds": 5,
        "catalogue": {"noise": {"label": "noise"}, "o3f": {"label": "O3F"}},
        "budget": {"text": "toy sizes"},
        "figure": {
            "title": "Title",
            "compare": [["o3f", "noise"]],
            "curves": None,
            "panels": {"eval/score": "score", "rollout/return": "collecting"},
        },
    }
)
#: Gains of the arms by seed: differences 5, 5, 10, 0, 5, mean 5, s = sqrt(12.5), t(0.975, 4) = 2.776445.
GAINS = {"o3f": [10.0, 20.0, 20.0, 15.0, 10.0], "noise": [5.0, 15.0, 10.0, 15.0, 5.0]}
HALF_WIDTH = 2.776445 * 12.5**0.5 / 5**0.5


def result(arm: str, seed: int, gain: float, task: str = "a", start: str = "one", data: str = "hash") -> Result:
    config = OmegaConf.create({"online": {"steps": 100}})
    run = PlannedRun(task, arm, seed, (), Path("nowhere", arm, str(seed)), config, f"{start}-{seed}")
    series = Series({0: 40.0, 50: 40.0 + gain, 100: 40.0 + gain}, {30: 20.0 + gain, 35: 30.0 + gain, 90: 50.0}, 100)
    return Result(run, series, quantities(series, None), (run.pretraining, data))


def results(seeds: int) -> list[Result]:
    return [result(arm, seed, GAINS[arm][seed]) for arm in GAINS for seed in range(seeds)]


def test_arms_are_compared_seed_by_seed() -> None:
    (comparison,) = compare(results(5), [("o3f", "noise")], "gain")
    assert comparison.differences == {0: 5.0, 1: 5.0, 2: 10.0, 3: 0.0, 4: 5.0}
    assert (comparison.mean, comparison.same_agent) == (5.0, True)
    interval = comparison.interval(0.95, 5)
    assert interval is not None
    assert interval.half_width == pytest.approx(HALF_WIDTH, rel=1e-6)
    assert comparison.p_value is None  # which could not be below 0.0625
    (more,) = compare([*results(5), result("o3f", 5, 9.0), result("noise", 5, 8.0)], [("o3f", "noise")], "gain")
    assert more.p_value == 4 / 64  # all + and all -, and the 0 with either sign


def test_only_seeds_in_both_arms_count_and_few_of_them_have_no_interval() -> None:
    (comparison,) = compare(results(5)[1:], [("o3f", "noise")], "gain")  # O3F without its seed 0
    assert list(comparison.differences) == [1, 2, 3, 4]
    assert comparison.interval(0.95, 5) is None
    assert compare(results(5)[:5], [("o3f", "noise")], "gain") == []
    others = [result("o3f", 0, 1.0), result("noise", 0, 2.0, start="two")]
    assert not compare(others, [("o3f", "noise")], "gain")[0].same_agent
    others = [result("o3f", 0, 1.0), result("noise", 0, 2.0, data="made anew")]
    assert not compare(others, [("o3f", "noise")], "gain")[0].same_agent


def test_agents_that_were_trained_alike_but_score_otherwise_are_not_one_agent() -> None:
    ours, theirs = result("o3f", 0, 1.0), result("noise", 0, 2.0)
    assert compare([ours, theirs], [("o3f", "noise")], "gain")[0].same_agent
    elsewhere = replace(theirs, values={**theirs.values, "offline": 40.000001})
    assert not compare([ours, elsewhere], [("o3f", "noise")], "gain")[0].same_agent
    (row,) = comparisons_table([ours, elsewhere], SETTINGS).splitlines()[2:]
    assert row.endswith("| seed | descriptive |")


def test_the_tables_by_hand() -> None:
    text = comparisons_table(results(5), SETTINGS)
    assert f"| a | O3F minus noise | 5 | +5.0 ± {HALF_WIDTH:.1f} | 5.0 |" in text
    assert "| p |" not in text
    six = [*results(5), result("o3f", 5, 9.0), result("noise", 5, 8.0)]
    other_task = [result(arm, seed, GAINS[arm][seed], "b") for arm in GAINS for seed in range(5)]
    both = comparisons_table([*six, *other_task], SETTINGS).splitlines()
    assert both[0].startswith("| task | first minus second | seeds | gain | p | final |")
    assert [row.split(" | ")[4] for row in both[2:]] == ["0.062", "-"]
    assert text.endswith("| agent and seed | more |\n")
    few = comparisons_table(results(4), SETTINGS)
    assert "| 4 | +5.0 | 5.0 |" in few
    assert few.endswith("| descriptive |\n")
    assert "±" not in few + arms_table(results(4), SETTINGS)
    assert "| a | O3F | 5 | 40.0 ± 0.0 | 15.0 ± " in arms_table(results(5), SETTINGS)
    assert "nan" not in arms_table(results(5), SETTINGS)  # no dip without an arm to measure it against
    partly = [*results(5)[:4], replace(results(5)[4], values={**results(5)[4].values, "final": float("nan")})]
    assert arms_table(partly, SETTINGS).count(" 56.2 | ") == 1  # of 50, 60, 60, 55, and without an interval
    assert "No pair" in comparisons_table(results(5)[:5], SETTINGS)


def test_the_csv_files_have_every_seed() -> None:
    lines = rows_csv(results(2)).splitlines()
    assert lines[0].startswith("task,arm,seed,offline,gain,")
    assert [line.split(",")[:5] for line in lines[1:]] == [
        ["a", "o3f", "0", "40.0", "10.0"],
        ["a", "o3f", "1", "40.0", "20.0"],
        ["a", "noise", "0", "40.0", "5.0"],
        ["a", "noise", "1", "40.0", "15.0"],
    ]
    curves = curves_csv(results(1)[:1], ["eval/score", "rollout/return"]).splitlines()[1:]
    assert [line.split(",")[3:] for line in curves] == [
        ["eval/score", "0.0", "40.0"],
        ["eval/score", "50.0", "50.0"],
        ["eval/score", "100.0", "50.0"],
        ["rollout/return", "30.0", "30.0"],  # tenths of the 100 steps: 21 to 30, 31 to 40, 81 to 90
        ["rollout/return", "40.0", "40.0"],
        ["rollout/return", "90.0", "50.0"],
    ]


def test_a_report_of_other_runs_is_not_written_over(tmp_path: Path) -> None:
    runs = [each.run for each in results(2)]
    check_keeps(tmp_path, "f", runs)  # there is none yet
    (tmp_path / "f.csv").write_text(rows_csv(results(2)))
    check_keeps(tmp_path, "f", [*runs, result("o3f", 2, 0.0).run])
    for fewer in (runs[1:], [result(run.arm, run.seed, 0.0, "b").run for run in runs]):
        with pytest.raises(ConfigError, match=r"runs that this command leaves out \(a .*Give output=FOLDER"):
            check_keeps(tmp_path, "f", fewer)


def test_means_over_tasks_and_the_headlines_three_readings() -> None:
    # Final scores: o3f 60 and 100, noise 50 and 40.
    both = [result("o3f", 0, 20.0), result("o3f", 0, 60.0, "b"), result("noise", 0, 10.0), result("noise", 0, 0.0, "b")]
    assert headline(both, "o3f", "noise") == pytest.approx(
        {
            "ratio of the mean final scores": 100 * (160 / 90 - 1),
            "mean of the tasks' ratios": 100 * ((60 / 50 + 100 / 40) / 2 - 1),
            "ratio of the mean areas": 100 * (160 / 90 - 1),
        }
    )
    assert aggregate(results(4), "o3f", "gain") == 17.5  # the middle two of 10, 15, 20, 20
    assert "O3F over noise: ratio of the mean final scores +78 %" in aggregate_table(both, SETTINGS)


def test_means_are_over_what_all_arms_have() -> None:
    """An arm that has a hard task that the other lacks must not look worse for it."""
    results = [result("o3f", 0, 20.0), result("o3f", 0, -40.0, "b"), result("o3f", 1, 5.0), result("noise", 0, 10.0)]
    text = aggregate_table([*results, result("noise", 2, -90.0)], SETTINGS)
    assert "| O3F | 60.0 | 20.0 | 60.0 |" in text
    assert "| noise | 50.0 | 10.0 | 50.0 |" in text
    assert "Over the 1 pairs of task and seed that all of these arms have." in text
    assert "ratio of the mean final scores +20 %" in text
    apart = aggregate_table([result("o3f", 0, 20.0), result("noise", 1, 10.0)], SETTINGS)
    assert "| O3F | - | - | - |" in apart
    assert "mean of the tasks' ratios -" in apart


def test_a_partner_at_zero_does_not_end_the_report() -> None:
    zero = [result("o3f", 0, 20.0), result("noise", 0, -40.0)]  # final scores 60 and 0
    assert "ratio of the mean final scores -, mean" in aggregate_table(zero, SETTINGS)
    more = [*zero, result("o3f", 0, 60.0, "b"), result("noise", 0, 10.0, "b")]
    assert headline(more, "o3f", "noise") == pytest.approx(
        {
            "ratio of the mean final scores": 100 * (160 / 50 - 1),
            "mean of the tasks' ratios (1 of 2 left out, at 0)": 100 * (100 / 50 - 1),
            "ratio of the mean areas": 100 * (160 / 50 - 1),
        }
    )


def test_the_bias_of_critics_that_count_the_entropy_is_drawn_without_it(tmp_path: Path) -> None:
    for arm, tags in {"sac": ["bias/ratio", "bias/soft_ratio"], "cql": ["bias/ratio"]}.items():
        with RunLogger(tmp_path / arm) as logger:
            logger.log(10, {tag: float(len(tag)) for tag in tags})
    drawn = {}
    for arm in ("sac", "cql"):
        one = result(arm, 0, 1.0)
        drawn[arm] = plot.curve(replace(one, run=replace(one.run, path=tmp_path / arm)), "bias/soft_ratio")
    assert drawn == {"sac": {10.0: 15.0}, "cql": {10.0: 10.0}}


def test_the_picture_shows_curves_and_endpoints_and_its_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    figure = plot.optional("matplotlib.figure", "plots").Figure
    monkeypatch.setattr(figure, "suptitle", lambda self, text, **_: titles.append(text))

    def picture(shown: Sequence[Result]) -> np.ndarray:
        return matplotlib.image.imread(plot.plot_figure(shown, SETTINGS, tmp_path / "picture.png"))

    five, other = picture(results(5)), picture([result("o3f", 9, 50.0), *results(5)[1:]])
    picture(results(2))
    assert titles[0] == "Title\ntoy sizes; seeds: 5"
    assert titles[2] == "Title\ntoy sizes; seeds: 2, descriptive below 5: no interval"
    third = five.shape[1] // 3
    for panel in range(3):
        assert np.abs(five - other)[:, panel * third : (panel + 1) * third].max() > 0.1


def test_an_arm_has_one_color_in_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []
    monkeypatch.setattr(plot, "draw_mean", lambda _, __, label, *, color, **options: shown.append((label, color)))
    alone = [result("noise", seed, 1.0, task="b") for seed in range(2)]  # the second arm, and there the only one
    plot.plot_figure([*results(2), *alone], SETTINGS, tmp_path / "picture.png")
    assert set(shown) == {("O3F", "C0"), ("noise", "C1")}
    assert len(shown) == 6  # two panels of two arms, two of one


def made_run(folder: Path, arm: str, score: float, done: bool = True) -> PlannedRun:
    with RunLogger(folder / arm) as logger:
        logger.log(0, {"eval/return": 100.0, "eval/score": 50.0})
        logger.log(10, {"eval/return": 2 * score, "eval/score": score, "rollout/return": 60.0})
    if done:
        (folder / arm / "done.json").write_text("{}")
        (folder / arm / "env.json").write_text("{}")
    config = OmegaConf.create({"online": {"steps": 100}, "task": {"score": {"min": 0.0, "max": 200.0}}})
    return PlannedRun("a", arm, 0, (), folder / arm, config, "one")


def test_results_are_of_finished_runs_and_the_dip_is_against_the_plain_policy(tmp_path: Path) -> None:
    ours, plain = made_run(tmp_path, "o3f", 45.0), made_run(tmp_path, "policy", 52.0)
    unfinished = made_run(tmp_path, "noise", 0.0, done=False)
    found = {each.run.arm: each.values for each in read_results([ours, plain, unfinished], {"o3f": "policy"})}
    assert set(found) == {"o3f", "policy"}
    assert (found["o3f"]["dip"], found["o3f"]["collecting"], found["o3f"]["regret"]) == (-7.0, 30.0, 20.0)
    assert np.isnan(found["policy"]["dip"])
    assert np.isnan(read_results([ours], {"o3f": "policy"})[0].values["dip"])


def test_failed_runs_do_not_stop_the_others_and_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import sys; sys.exit(3 if 'fail' in sys.argv else 0)"
    monkeypatch.setattr(launch, "arguments", lambda _, *overrides: ["python", "-c", program, *overrides])
    config: DictConfig = OmegaConf.create({})
    runs = [PlannedRun("a/b", arm, 0, (arm,), tmp_path / arm, config, arm) for arm in ("fail", "work")]
    told: list[str] = []
    with pytest.raises(
        ResourceError, match=r"1 runs failed.*\n.*a/b fail seed 0: exit code 3, see .*a-b-fail-seed0.log"
    ):
        launch.Pool(1, tmp_path / "logs").complete(runs, lambda run, _: told.append(run.arm))
    assert told == ["work"]


def test_an_evaluation_counts_if_it_is_of_so_many_episodes_with_the_choice(tmp_path: Path) -> None:
    (tmp_path / "done.json").write_text('{"step": 7}')
    assert scores(tmp_path, 2) is None
    file = tmp_path / "evaluation.json"
    file.write_text('{"checkpoint": "latest", "episodes": 2, "acting": {"policy": {"return": 1.0, "score": 5.0}}}')
    assert scores(tmp_path, 2) is None
    acting = '{"policy": {"score": 5.0}, "optimistic": {"score": 7.0}, "best_of_n": {"score": 6.0}}'
    good = f'{{"checkpoint": "latest", "episodes": 2, "seed": 2000, "step": 7, "acting": {acting}}}'
    file.write_text(good)
    assert scores(tmp_path, 2) == (5.0, 7.0, 6.0)
    assert scores(tmp_path, 3) is None
    for asked, other in (("latest", "best"), ("2000", "1000"), ('"step": 7', '"step": 5')):
        file.write_text(good.replace(asked, other))
        assert scores(tmp_path, 2) is None, other


def test_a_run_without_data_says_so() -> None:
    assert dataset_line(None, None, OmegaConf.create({})) == "none"


def test_late_changes_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for seed, late in enumerate([3.0, 1.0, 2.0, 2.0, 2.0]):  # mean 2, s = sqrt(0.5), t(0.975, 4) = 2.776445
        folder = tmp_path / f"pretrained-x/a/seed{seed}"
        with RunLogger(folder) as logger:
            for step, score in enumerate([0.0, 50.0, 10.0, 12.0, 10.0 + late, 12.0 + late]):
                logger.log(step, {"eval/score": score})
        for arm in ("noise", "o3f"):  # which share it
            config = OmegaConf.create({"task": {"score": {"min": 0.0, "max": 1.0}}})
            path = tmp_path / arm / f"seed{seed}"
            path.mkdir(parents=True)
            (path / "done.json").write_text("{}")
            runs.append(PlannedRun("a", arm, seed, (), path, config, f"x-{seed}"))
    monkeypatch.setattr(plateau, "pretrained_folder", lambda run: tmp_path / f"pretrained-x/a/seed{run.seed}")
    assert plateau.late_changes(runs) == {("a", "noise"): [3.0, 1.0, 2.0, 2.0, 2.0]}
    (_, _, table) = plateau.plateau_section(runs, SETTINGS)
    assert f"| a | noise | 5 | +2.0 ± {2.776445 * 0.5**0.5 / 5**0.5:.1f} | still rising |" in table
    (_, _, table) = plateau.plateau_section(runs[:4], SETTINGS)
    assert "| a | noise | 2 | +2.0 | descriptive |" in table
    (tmp_path / "noise/seed0/done.json").unlink()
    assert ("a", "noise") not in plateau.late_changes(runs[:1])


def test_diagnoses_stand_beside_what_fine_tuning_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnoses, "pretrained_folder", lambda run: tmp_path / str(run.seed))
    for seed, gain in enumerate([2.0, 3.0, 5.0, 1.0, 4.0]):  # differences of the primary: 5, 5, 10, 0, 5
        (tmp_path / str(seed)).mkdir()
        advice = "O3F may help: by much." if seed else "No sign that O3F helps: none."
        figures = {"relative_gain": gain, "rank_correlation": None if seed == 1 else 0.1 * seed}
        asked = {"horizon": 7, "file": "diagnose-7.json", "sigma": None, "run": "this", "threads": 2}
        report = {"settings": asked, "advice": advice, "figures": figures}
        (tmp_path / str(seed) / "diagnose-7.json").write_text(json.dumps(report))
    settings = OmegaConf.merge(SETTINGS, {"diagnose_horizons": [5, 7]})
    assert isinstance(settings, DictConfig)
    defaults = {"horizon": 10, "file": "diagnose.json", "sigma": None, "run": "???", "threads": 1}
    (_, _, table) = diagnoses.diagnosis_section(results(5), settings, defaults)
    (row,) = table.splitlines()[2:]  # none for a horizon without reports
    # Ranks of the gains 2 3 5 1 4, of the differences 3 3 5 1 3: covariance 8, variances 10 and 8.
    assert row.startswith(
        f"| a | 7 | 5 | 4 x O3F may help, 1 x No sign that O3F helps | 0.23 | 3.00 | 5.00 | {8 / 80**0.5:.2f} |"
    )
    (_, _, table) = diagnoses.diagnosis_section(results(4), settings, defaults)
    assert "| 7 | 4 |" in table
    assert table.splitlines()[2].split(" | ")[7] == "-"
    assert diagnoses.diagnosis_section(results(4), settings, {**defaults, "sigma": 0.1}) == []  # made with others
    settings.diagnose_horizons = []
    assert diagnoses.diagnosis_section(results(4), settings, defaults) == []
    settings.figure.compare = []
    assert diagnoses.diagnosis_section(results(4), settings, defaults) == []
