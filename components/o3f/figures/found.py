"""Runs of any folders, as those of a figure: an arm is what they have in common, compared as far as all have got."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from o3f.errors import require
from o3f.figures.plan import PlannedRun, pretraining_key
from o3f.figures.quantities import Series, read_series
from o3f.figures.results import Result, reference, results_of
from o3f.runs.given import given_folders
from o3f.runs.identity import read_whole_settings

#: What may tell arms apart; the first that do make the label, in the reverse order.
PARTS = ("exploration.kind", "algorithm.name", "name")


def run_folders(config: DictConfig) -> list[Path]:
    """Return the run folders that a recipe is asked for: those given, or all of a name that have begun to collect.

    Args:
        config: with ``run``, a folder or a list of them, or ``name`` and ``runs``.

    Raises:
        ConfigError: neither or both are given, a folder holds no run, or there is none.
    """
    require(
        (config.run is None) != (config.name is None),
        "say which runs: run=[FOLDER,...], or name=NAME for all fine-tuning runs of that name.",
    )
    if config.run is not None:
        found = given_folders(config.run)
        for path in found:
            require((path / "metrics.csv").exists(), f"{path} is no run folder: it has no metrics.csv.")
    else:  # without those that have not logged yet
        logs = sorted(Path(config.runs, config.name).glob("*/seed*/metrics.csv"))
        found = [log.parent for log in logs if not log.parent.parent.name.endswith("-offline")]
    require(bool(found), f"there is no fine-tuning run in {Path(config.runs, config.name or '')}.")
    return found


def found_runs(folders: Sequence[Path]) -> list[PlannedRun]:
    """Return what their settings say of the runs in these folders, in the order of the folders.

    The name of an arm is as little of the run's exploration, algorithm and name as tells all of them apart, and where
    these are equal in two folders, the folder that holds its seeds.
    """
    settings = {folder: read_whole_settings(folder / "config.yaml") for folder in folders}
    said = {folder: _parts(each) for folder, each in settings.items()}
    telling = _telling(list(said.values()))
    names = {folder: " ".join(each[part] for part in telling) for folder, each in said.items()}
    homes: dict[tuple[str, str], set[Path]] = {}
    for folder, name in names.items():
        homes.setdefault((_task(settings[folder]), name), set()).add(folder.parent)
    return [
        _found(folder, each, name if len(homes[_task(each), name]) == 1 else folder.parent.as_posix())
        for (folder, each), name in zip(settings.items(), names.values(), strict=True)
    ]


def _telling(said: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """As few of the parts as tell apart what all of them do."""
    wanted = len({tuple(each.values()) for each in said})
    subsets = itertools.chain.from_iterable(itertools.combinations(PARTS, size) for size in (1, 2, 3))
    found = next(parts for parts in subsets if len({tuple(each[part] for part in parts) for each in said}) == wanted)
    return tuple(reversed(found))


def _parts(settings: Mapping[str, Any]) -> dict[str, str]:
    config = OmegaConf.create(dict(settings))
    return {part: str(OmegaConf.select(config, part, default="offline")) for part in PARTS}


def _task(settings: Mapping[str, Any]) -> str:
    return str(settings["task"]["name"])


def _found(folder: Path, settings: Mapping[str, Any], arm: str) -> PlannedRun:
    seed = int(settings.get("seed", folder.name.removeprefix("seed")))
    agent = _agent(folder, settings, seed)
    return PlannedRun(_task(settings), arm, seed, (), folder, OmegaConf.create(dict(settings)), agent)


def _agent(folder: Path, settings: Mapping[str, Any], seed: int) -> str:
    """The agent that a run began with: the same whether it was found by its settings or given by its folder."""
    given = str(settings.get("pretrained", "auto"))
    if given == "auto":
        return f"{pretraining_key(settings) or folder.parent.as_posix()}-{seed}"
    if not (file := Path(given, "config.yaml")).exists():
        return f"{given}-{seed}"
    trained = read_whole_settings(file)
    return f"{pretraining_key(trained) or given}-{trained.get('seed', seed)}"


def results_so_far(runs: Sequence[PlannedRun], *, returns: bool) -> tuple[list[Result], dict[str, list[int]]]:
    """Read runs, those that are under way too, up to the last evaluation that all runs of their task have.

    Evaluations at steps that another run of the task has none at are left out: means over them would be of other steps.

    Args:
        runs: those without an evaluation online are left out.
        returns: leave returns as they are, instead of scores.

    Returns:
        The results, and by task the online steps of their evaluations.

    Raises:
        ConfigError: one of them is no run of fine-tuning, or runs of a task were never evaluated at the same step.
    """
    for run in runs:
        require("online" in run.config, f"{run.path} is a run of pre-training: give runs of fine-tuning alone.")
    series = {
        run: read_series(run.path, int(run.config.online.steps), None if returns else reference(run)) for run in runs
    }
    begun = {run: curves for run, curves in series.items() if curves.online}
    shared: dict[str, set[int]] = {}
    for run, curves in begun.items():
        steps = {step for step in curves.evaluated if step > 0}
        shared[run.task] = shared.get(run.task, steps) & steps
    for task, steps in shared.items():
        require(
            bool(steps),
            f"the runs of {task} have no evaluation online at the same step: give runs with the same"
            " online.evaluate_every, or wait until all have got as far.",
        )
    cut = {run: at_steps(curves, shared[run.task]) for run, curves in begun.items()}
    return results_of(cut, plain_policies(list(begun))), {task: sorted(steps) for task, steps in shared.items()}


def at_steps(series: Series, steps: set[int]) -> Series:
    """Return what a run had logged up to the last of some online steps; of its evaluations those there, and before."""
    evaluated = {at: score for at, score in series.evaluated.items() if at in steps or at == 0}
    collected = {at: score for at, score in series.collected.items() if at <= max(steps)}
    return replace(series, evaluated=evaluated, collected=collected, steps=max(steps))


def plain_policies(runs: Sequence[PlannedRun]) -> dict[str, str]:
    """Return by arm the one that acts with the plain policy from the same pre-trained agents, where there is one."""
    plain = {run.pretraining: run.arm for run in runs if run.config.exploration.kind == "policy"}
    return {run.arm: plain[run.pretraining] for run in runs if run.pretraining in plain}
