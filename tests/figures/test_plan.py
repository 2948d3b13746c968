"""Which runs a figure needs, in which order, at which cost; every figure composes at every budget."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from o3f.errors import ConfigError
from o3f.figures.cost import Prices, launched_seconds, remaining_seconds
from o3f.figures.launch import next_run
from o3f.figures.multirun import sweeps
from o3f.figures.plan import PlannedRun, compose_finetune, figure_arms, figure_tasks, plan, with_bases
from o3f.runs.logger import RunLogger
from o3f.training.checks import check_online
from recipes import figures
from tests.support.recipe_runs import ROOT, settings

FIGURES = sorted(path.stem for path in (ROOT / "conf/figure").glob("*.yaml"))
BUDGETS = sorted(path.stem for path in (ROOT / "conf/budget").glob("*.yaml"))


def planned(config: DictConfig, *arms: str) -> list[PlannedRun]:
    OmegaConf.resolve(config)
    return plan(config, arms or figure_arms(config), compose_finetune(ROOT / "conf"))


def pretend(run: PlannedRun, step: int, rate: float | None = None, done: bool = False) -> None:
    """Files of a run that got so far."""
    with RunLogger(run.path) as logger:
        logger.log(step, {"rollout/return": 1.0})
        if rate is not None:
            logger.log_time(step, {"time/steps_per_second": rate})
    if done:
        (run.path / "done.json").write_text("{}")


@pytest.mark.slow
def test_every_arm_composes_into_a_folder_of_its_own() -> None:
    config = settings("figures", "budget=short", "tasks=[halfcheetah/medium]", "seeds=1")
    runs = planned(config, *config.catalogue)
    assert len({run.path for run in runs}) == len(runs) == len(config.catalogue)
    for run in runs:
        check_online(run.config)
        assert run.config.online.steps == (10_000 if "lapo" in run.arm else 25_000)
        assert run.config.dataset.max_transitions == 100_000


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_compares_what_it_has(name: str) -> None:
    figure = settings("figures", f"figure={name}", "budget=paper").figure
    assert figure.name == name
    assert {arm for pair in figure.compare for arm in pair} <= set(figure.arms)
    assert set(figure.optimistic) | set(figure.curves or []) <= set(figure.arms)
    assert all((ROOT / f"conf/task/{task}.yaml").exists() for task in figure.tasks)


def test_the_papers_comparisons_are_with_the_original_algorithms() -> None:
    """The 56 % are against IQL with its two critics; a gain of figure 5 is the choice's part and the critics'."""
    assert settings("figures", "figure=fig4").figure.compare[0] == ["lapo_optimistic", "iql2_policy"]
    pairs = [tuple(pair) for pair in settings("figures", "figure=fig5").figure.compare]
    originals = {"lapo": "lapo_original_noise", "iql": "iql2_noise"}
    for (whole, choice, critics), name in zip((pairs[:3], pairs[3:]), originals, strict=True):
        ours, noise = f"{name}_optimistic", f"{name}_noise"
        assert (whole, choice, critics) == ((ours, originals[name]), (ours, noise), (noise, originals[name]))


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_has_its_sizes(budget: str) -> None:
    config = settings("figures", "figure=controls", f"budget={budget}", "tasks=[halfcheetah/quickstart]")
    figures.check(config)
    assert {entry.sizes for entry in config.catalogue.values()} == set(config.budget.sizes)
    runs = planned(config, "iql_optimistic", "lapo_optimistic", "cql_policy", "fig2_sac")
    steps = {"paper": (1_000_000, 250_000), "short": (50_000, 25_000), "laptop": (20_000, 10_000), "smoke": (20, 100)}[
        budget
    ]
    sizes = {run.arm: (run.config.offline.steps, run.config.online.steps) for run in runs}
    assert sizes["iql_optimistic"] == steps
    baselines = (500_000, 250_000) if budget == "paper" else steps
    assert sizes["cql_policy"] == sizes["fig2_sac"] == baselines
    assert sizes["lapo_optimistic"] == ((30_000, 10_000) if budget == "short" else steps)
    count = sum(run.arm == "iql_optimistic" for run in runs)
    assert count == {"paper": 5, "short": 8, "laptop": 8, "smoke": 2}[budget]


def test_tasks_and_seeds_are_the_budgets_unless_given() -> None:
    assert figure_tasks(settings("figures", "figure=fig5", "budget=short")) == ["halfcheetah/medium"]
    assert len(figure_tasks(settings("figures", "figure=fig4", "budget=paper"))) == 12
    assert figure_tasks(settings("figures", "figure=fig4", "budget=smoke")) == ["halfcheetah/quickstart"]
    assert figure_tasks(settings("figures", "budget=smoke", "tasks=[hopper/random]")) == ["hopper/random"]
    few = planned(settings("figures", "figure=fig3", "budget=short", "tasks=[hopper/medium]"), "fig3_iql_same")
    assert [run.seed for run in few] == [0, 1, 2]
    fresh = planned(settings("figures", "budget=short", "tasks=[hopper/medium]", "first_seed=100"), "iql_policy")
    assert [run.seed for run in fresh] == list(range(100, 108))
    with pytest.raises(ConfigError, match="Did you mean iql_noise"):
        figure_arms(settings("figures", "arms=[iql_nois]"))


def test_seeds_go_side_by_side_and_arms_share_what_they_can() -> None:
    config = settings("figures", "budget=smoke", "seeds=2")
    arms = ("iql_policy", "iql_optimistic", "iql2_optimistic", "iql_offline")
    runs = planned(config, *arms)
    assert [(run.seed, run.arm) for run in runs] == [(seed, arm) for seed in range(2) for arm in arms]
    starts = {(run.arm, run.seed): run.pretraining for run in runs}
    assert starts["iql_policy", 0] == starts["iql_optimistic", 0] == starts["iql_offline", 0]
    assert len({starts["iql_policy", 0], starts["iql_policy", 1], starts["iql2_optimistic", 0]}) == 3
    assert runs[-1].config.online.online_fraction == 0.0
    assert with_bases(["iql_noise", "fig2_sac"], config) == ["iql_noise", "fig2_sac", "iql_policy"]


def test_an_arms_own_sizes_win() -> None:
    config = settings("figures", "figure=controls", "budget=short", "tasks=[halfcheetah/medium]", "seeds=1")
    one, many = planned(config, "lapo_one_update", "lapo_optimistic")
    assert (one.config.online.updates_per_step, many.config.online.updates_per_step) == (1, 10)
    assert one.pretraining == many.pretraining


def test_matched_arms_go_as_far_as_a_hundred_candidates() -> None:
    (run,) = planned(settings("figures", "budget=smoke", "seeds=1"), "iql_n10_matched")
    # sigma^2 (E2 + d - 1) is that of N = 100: E2 = 6.47243 there, 2.71210 for N = 10; d = 6.
    expected = run.config.task.sigma * ((6.47243 + 5) / (2.71210 + 5)) ** 0.5
    assert run.config.exploration.sigma == pytest.approx(expected, rel=1e-5)
    assert run.config.exploration.num_candidates == 10


def test_a_finished_run_of_other_settings_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["figures", "budget=smoke", "seeds=1"]
    (run,) = planned(settings(*command), "iql_noise")
    pretend(run, step=100, done=True)
    written = OmegaConf.to_container(run.config)
    assert isinstance(written, dict)
    del written["online"]["distil_weight"], written["precision"]  # of a version that did not have them yet
    OmegaConf.save(OmegaConf.create({**written, "threads": 7}), run.path / "config.yaml")
    assert planned(settings(*command), "iql_noise")[0].finished
    changed = "overrides=['online.steps=50','task.sigma=0.05']"
    with pytest.raises(
        ConfigError, match=r"(?s)finished, with other.*exploration.sigma: 0.2 -> 0.05.*online.steps: 100 -> 50"
    ):
        planned(settings(*command, changed), "iql_noise")
    with pytest.raises(ConfigError, match=r"precision: highest -> medium"):
        planned(settings(*command, "overrides=['precision=medium']"), "iql_noise")
    assert not planned(settings(*command, changed, "prefix=other"), "iql_noise")[0].finished
    with pytest.raises(ConfigError, match=r"Give task.sigma"):
        figures.check(settings(*command, "overrides=['exploration.sigma=0.05']"))
    with pytest.raises(ConfigError, match="Did you mean iql_noise"):
        figure_arms(settings(*command, "figure.optimistic=[iql_nois]"))


def test_no_run_waits_for_the_pretraining_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, other = planned(
        settings("figures", "budget=smoke", "seeds=1"), "iql_policy", "iql_noise", "iql2_noise"
    )
    assert next_run([second, other], [first]) is other
    assert next_run([second], [first]) is None
    pretend(first, step=0)  # its online figures have begun
    assert next_run([second, other], [first]) is second


def test_the_cost_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prices = dict.fromkeys(("iql_policy", "iql_noise"), Prices(offline=0.4, update=0.5, step=0.25, episode=2.0))
    runs = planned(settings("figures", "budget=smoke", "seeds=2"), *prices)
    offline = 20 * 0.4 + 1 * 1 * 2.0
    online = 100 * (0.5 + 0.25) + 11 * 1 * 2.0
    assert list(remaining_seconds(runs, prices).values()) == [offline + online, online] * 2
    pretend(runs[0], step=100, rate=10.0, done=True)  # measured: 0.1 s a step
    pretend(runs[1], step=25)
    begun = list(remaining_seconds(runs, prices).values())
    measured = 100 * 0.1 + 22.0
    assert begun == pytest.approx([0.0, 0.75 * online, offline + measured, online])


def test_the_hours_of_a_launcher_by_hand() -> None:
    runs = planned(settings("figures", "budget=smoke", "seeds=3"), "iql_policy", "iql_noise")  # seed by seed
    costs = dict(zip(runs, [5.0, 1.0, 4.0, 2.0, 3.0, 3.0], strict=True))  # policy 5, 4, 3; noise 1, 2, 3
    assert launched_seconds(costs, 1) == 18.0
    assert launched_seconds(costs, 2) == 7.0 + 4.0  # 5 beside 4 and 3; 1 and 3 beside 2
    assert launched_seconds(costs, 3) == launched_seconds(costs, 100) == 5.0 + 3.0
    assert launched_seconds({}, 4) == 0.0


@pytest.fixture(scope="module")
def plain_settings() -> DictConfig:
    return settings("figures")


@pytest.mark.parametrize("key", ["jobs", "seeds", "first_seed", "min_seeds", "confidence", "threads", "node_cores"])
def test_wrong_numbers_are_refused(key: str, plain_settings: DictConfig) -> None:
    for value in ("wide", True, float("nan"), -1, 0.5 if key != "confidence" else 1.0):
        config = copy.deepcopy(plain_settings)
        OmegaConf.update(config, key, value)
        with pytest.raises(ConfigError, match=f"{key} must be"):
            figures.main(config)


def test_dry_run_prints_the_plan_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    figures.main(settings("figures", "figure=fig6", "budget=short", "dry_run=true"))
    told = capsys.readouterr().out
    # 6 seeds, each with one pre-training, two arms of 10,000 steps with 10 updates, and 28 evaluations of 10 episodes.
    prices = settings("figures", "budget=short").budget.sizes.lapo.seconds
    updates = 30_000 * prices["offline"] + 200_000 * prices["update"]
    hours = 6 * (updates + 20_000 * prices["step"] + (6 + 22) * 10 * prices["episode"]) / 3600
    assert f"12 runs, 0 finished; {hours:.2f} core-hours left, about {hours / 2:.2f} hours with 2 jobs" in told
    longest = (30_000 * prices["offline"] + 100_000 * prices["update"]) / 3600
    longest += (10_000 * prices["step"] + (6 + 11) * 10 * prices["episode"]) / 3600
    assert f"hours on 16;\nno fewer than {longest:.1f} hours, which the longest run takes" in told
    assert os.listdir(tmp_path) == []


def test_a_launcher_is_given_an_arm_with_its_tasks_and_missing_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = "tasks=[halfcheetah/medium,hopper/medium]"
    runs = planned(settings("figures", "budget=short", tasks, "seeds=3"), "iql_policy", "iql_n4_matched")
    for run in runs:
        if run.seed == 0:
            pretend(run, 1, done=True)
    policy, *matched = sweeps(runs)
    assert policy[-2:] == ["task=halfcheetah/medium,hopper/medium", "seed=1,2"]
    assert {"exploration=policy", "name=short-iql_policy", "online.steps=25_000"} <= set(policy)
    # Sigma depends on the number of action dimensions, so these tasks are not of one multirun.
    assert [each[-2:] for each in matched] == [
        ["task=halfcheetah/medium", "seed=1,2"],
        ["task=hopper/medium", "seed=1,2"],
    ]
    for run in runs:
        if not run.finished:
            pretend(run, 1, done=True)
    assert sweeps(runs) == []
