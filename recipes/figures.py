"""The paper's figures from one command each: python recipes/figures.py figure=fig5 budget=short dry_run=true.

Starts the runs that are missing as processes of the finetune recipe, and makes table and picture from all that are
finished. It can be stopped at any time: the same command goes on. conf/figures.yaml lists the settings.
"""

from __future__ import annotations

from o3f.cli.recipe import answer_first, check_keys, recipe, require, require_range

if __name__ == "__main__":
    answer_first("figures", __file__)  # before the imports below, which take seconds

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from o3f.cli.commands import arguments, command, given_overrides
from o3f.data import is_local, open_dataset
from o3f.errors import ResourceError, optional
from o3f.figures.cost import Prices, launched_seconds, remaining_seconds
from o3f.figures.diagnoses import diagnose_pretrained, diagnosis_section
from o3f.figures.evaluations import evaluate_optimistically, optimistic_section
from o3f.figures.launch import Pool
from o3f.figures.multirun import complete_by_launcher
from o3f.figures.plan import PlannedRun, compose_finetune, figure_arms, plan, task_settings, with_bases
from o3f.figures.plateau import plateau_section
from o3f.figures.quantities import QUANTITIES
from o3f.figures.report import check_keeps, write_report
from o3f.figures.results import read_results
from o3f.runs.identity import plain

CONF = Path(__file__).resolve().parent.parent / "conf"


@recipe("figures")
def main(config: DictConfig) -> None:
    """Run what is missing, then show what came out."""
    check(config)
    folder = Path(config.output, f"{config.figure.name}-{config.budget.name}")
    arms = figure_arms(config)
    known = plan(config, with_bases(arms, config), compose_finetune(CONF))
    runs = [run for run in known if run.arm in arms]
    prices = {run.arm: Prices(**config.budget.sizes[config.catalogue[run.arm].sizes].seconds) for run in runs}
    if config.dry_run:
        show_plan(runs, remaining_seconds(runs, prices), config)
        return
    check_keeps(folder, config.figure.name, runs)
    evaluated = [run for run in runs if run.arm in config.figure.optimistic]
    asking = plain(OmegaConf.load(CONF / "diagnose.yaml"))
    if config.launch:
        provide_datasets(config, runs)
        launch(runs, prices, Pool(config.jobs, folder / "logs"), config)
        evaluate_optimistically(evaluated, config.budget.optimistic_episodes, config.jobs)
        diagnose_pretrained(runs, config.diagnose_horizons, config.jobs, asking)
    results = [each for each in read_results(known, bases(config)) if each.run.arm in arms]
    require(bool(results), "no run of this figure is finished: leave launch=false out to start them.")
    extra = [
        *optimistic_section(evaluated, config),
        *plateau_section(runs, config),
        *diagnosis_section(results, config, asking),
    ]
    report = write_report(folder, runs, results, config, command("figures", *given_overrides()), extra)
    print(f"{report}: table; beside it the picture and the figures of every seed")


def check(config: DictConfig) -> None:
    """Check the numbers, and the packages that are needed at the end."""
    for key in ("jobs", "min_seeds", "threads", *(["seeds"] if config.seeds is not None else [])):
        require_range(config, key, "[1, inf)", integer=True)
    for key in ("arms", "tasks"):
        given = config[key]
        told = f"{key} must be a list, {key}=[NAME,...], found {given!r}."
        require(given is None or isinstance(given, ListConfig), told)
    require_range(config, "first_seed", "[0, inf)", integer=True)
    require_range(config, "confidence", "(0, 1)")
    require_range(config, "node_cores", "[1, inf)", integer=True)
    for nodes in config.nodes:
        require_range({"nodes": nodes}, "nodes", "[1, inf)", integer=True)
    for horizon in config.diagnose_horizons:
        require_range({"diagnose_horizons": horizon}, "diagnose_horizons", "[1, inf)", integer=True)
    check_keys([config.primary], QUANTITIES, "primary")
    if config.run_launcher is not None:
        check_keys([config.run_launcher], [file.stem for file in (CONF / "launcher").glob("*.yaml")], "run_launcher")
    require(
        not any(each.startswith("exploration.sigma") for each in config.overrides),
        "overrides: exploration.sigma would not hold for every arm. Give task.sigma, which all arms go by.",
    )
    for name, sizes in config.budget.sizes.items():
        require_range(config, f"budget.sizes.{name}.seeds", "[1, inf)", integer=True)
        for price in sizes.seconds:
            require_range(config, f"budget.sizes.{name}.seconds.{price}", "[0, inf)")
    for module in ("matplotlib", "scipy"):
        optional(module, "plots")


def show_plan(runs: Sequence[PlannedRun], costs: dict[PlannedRun, float], config: DictConfig) -> None:
    """Print a line for each task and arm, and the total: of core-hours, and of hours on this machine and on nodes."""
    table = Table("task", "arm", "finished", "begun", "missing", "core-hours left")
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault((run.task, run.arm), []).append(run)
    for (task, arm), group in groups.items():
        finished = sum(run.finished for run in group)
        begun = sum(run.online and not run.finished for run in group)
        hours = sum(costs[run] for run in group) / 3600
        table.add_row(task, arm, str(finished), str(begun), str(len(group) - finished - begun), f"{hours:.2f}")
    Console(width=120).print(table)
    total = sum(costs.values()) / 3600
    print(f"{len(runs)} runs, {sum(run.finished for run in runs)} finished;", end=" ")
    print(f"{total:.2f} core-hours left, about {total / config.jobs:.2f} hours with {config.jobs} jobs")
    print("A pre-training is counted with the first run that needs it, and once.")
    nodes_seconds = {nodes: launched_seconds(costs, nodes * config.node_cores) for nodes in config.nodes}
    told = ", ".join(f"{seconds / 3600:.1f} hours on {nodes}" for nodes, seconds in nodes_seconds.items())
    print(f"With run_launcher=submitit or ray, an arm after the other, nodes of {config.node_cores} cores: {told};")
    print(
        f"no fewer than {max(costs.values(), default=0.0) / 3600:.1f} hours, which the longest run takes on one core."
    )


def provide_datasets(config: DictConfig, runs: Sequence[PlannedRun]) -> None:
    """Collect the datasets that are missing where the budget says so, else say how to get them."""
    needed = {run.task: run.config.dataset for run in runs}
    for task, dataset in needed.items():
        if dataset.get("path") or dataset.id == "none" or dataset.download or is_local(dataset.id):
            continue
        if config.budget.collect is None:
            open_dataset(dataset.id)  # says how to get it
        overrides = [*task_settings(config, task), *(each for each in config.overrides if each.startswith("task."))]
        call = arguments("collect", *overrides, f"steps={config.budget.collect}", "progress=false")
        if subprocess.run(call, check=False).returncode:
            raise ResourceError(f"{dataset.id} could not be collected, see above.")


def launch(runs: Sequence[PlannedRun], prices: dict[str, Prices], pool: Pool, config: DictConfig) -> None:
    """Start what is missing and say how it goes on."""
    costs = remaining_seconds(runs, prices)
    left = [run for run in runs if not run.finished]
    print(f"{len(runs)} runs, {len(left)} to do, {sum(costs.values()) / 3600:.2f} core-hours", flush=True)
    if config.run_launcher is not None:
        complete_by_launcher(
            runs,
            config.run_launcher,
            list(config.run_launcher_settings),
            lambda: print(f"{sum(each.finished for each in runs)}/{len(runs)} finished", flush=True),
        )
        return
    spent, promised, started = 0.0, 0.0, time.monotonic()

    def report(run: PlannedRun, seconds: float) -> None:
        nonlocal spent, promised
        spent, promised = spent + seconds, promised + costs.pop(run)
        remaining = sum(costs.values()) * spent / max(promised, 1e-9) / pool.jobs
        print(
            f"{sum(each.finished for each in runs)}/{len(runs)} {run}: {seconds / 60:.1f} min;"
            f" {(time.monotonic() - started) / 3600:.2f} h so far, about {remaining / 3600:.2f} h left",
            flush=True,
        )

    pool.complete(runs, report)


def bases(config: DictConfig) -> dict[str, str]:
    """The plain-policy arm of each arm that has one."""
    catalogue = OmegaConf.to_container(config.catalogue)
    assert isinstance(catalogue, dict)
    return {str(arm): entry["base"] for arm, entry in catalogue.items() if "base" in entry}


if __name__ == "__main__":
    main()
