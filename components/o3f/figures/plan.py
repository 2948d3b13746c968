"""The runs of a figure: one for each task, arm and seed, of the finetune recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from o3f.envs import make_gym_env
from o3f.errors import check_keys, require
from o3f.modules import matched_sigma
from o3f.runs.identity import (
    FREE_KEYS,
    LATER_KEYS,
    config_difference,
    identity,
    leaves,
    plain,
    read_settings,
    run_path,
)
from o3f.runs.logger import read_csv
from o3f.training import build
from o3f.training.offline import ACTING_KEYS, ONLINE_KEYS, WATCHING_KEYS, offline_algorithm

#: Candidates of the arm whose displacement ``matched`` arms have.
REFERENCE_CANDIDATES = 100

Compose = Callable[[Sequence[str]], DictConfig]


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """A run of the finetune recipe.

    Attributes:
        task: as in ``conf/task``.
        arm: of ``conf/figure_arms.yaml``.
        seed: of the run.
        overrides: the recipe's command line.
        path: the run folder.
        config: what they are composed to, but for the seed.
        pretraining: equal where two runs start from the same pre-trained agent.
    """

    task: str
    arm: str
    seed: int
    overrides: tuple[str, ...]
    path: Path
    config: DictConfig
    pretraining: str

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return (self.path / "done.json").exists()

    @property
    def online(self) -> bool:
        """Whether its pre-training is over, so that others can start from the same agent."""
        return (self.path / "metrics.csv").exists()

    @property
    def share_done(self) -> float:
        """Share of the online steps that need not be done again, as far as the figures tell."""
        if self.finished or not self.online:
            return float(self.finished)
        rows = read_csv(self.path / "metrics.csv")
        return max((step for step, _, _ in rows), default=0) / int(self.config.online.steps)

    def __str__(self) -> str:
        return f"{self.task} {self.arm} seed {self.seed}"


def compose_finetune(folder: Path) -> Compose:
    """Return what composes a finetune configuration from overrides.

    Args:
        folder: of the configurations; Hydra's own where a recipe is running as a command.
    """

    def composed(overrides: Sequence[str]) -> DictConfig:
        if GlobalHydra.instance().is_initialized():
            return compose("finetune", overrides=list(overrides))
        with initialize_config_dir(version_base="1.3", config_dir=str(folder)):
            return compose("finetune", overrides=list(overrides))

    return composed


def figure_tasks(config: DictConfig) -> list[str]:
    """Return the tasks asked for: those given, or the budget's toys, or the figure's that the budget has."""
    budget, tasks = config.budget, list(config.figure.tasks)
    if config.tasks is not None:
        return list(config.tasks)
    if budget.toy_tasks is not None:
        return list(budget.toy_tasks)
    kept = tasks if budget.tasks is None else [task for task in tasks if task in budget.tasks]
    require(bool(kept), f"budget={budget.name} has none of the tasks of {config.figure.name}; give tasks=[...].")
    return kept


def figure_arms(config: DictConfig) -> list[str]:
    """Return the names of the arms asked for, in the figure's order.

    Raises:
        ConfigError: an arm, or one that is compared, evaluated or drawn, is not in the catalogue.
    """
    figure = config.figure
    arms = list(config.arms) if config.arms is not None else list(figure.arms)
    compared = [arm for pair in figure.compare for arm in pair]
    named = [*arms, *figure.arms, *compared, *figure.optimistic, *(figure.curves or [])]
    check_keys(named, config.catalogue, "arms")
    return arms


def task_settings(config: DictConfig, task: str) -> list[str]:
    """Return the overrides that choose a task, for every recipe."""
    return [f"task={task}", *config.budget.task_overrides.get(task.split("/")[0], [])]


def with_bases(arms: Sequence[str], config: DictConfig) -> list[str]:
    """Return the arms, and after them the plain-policy arms that their dips are measured against."""
    bases = [config.catalogue[arm].get("base") for arm in arms]
    return list(dict.fromkeys([*arms, *(base for base in bases if base)]))


def plan(config: DictConfig, arms: Sequence[str], composed: Compose) -> list[PlannedRun]:
    """Return the runs of arms, all arms and tasks of one seed before the next seed.

    Args:
        config: ``conf/figures.yaml``.
        arms: names.
        composed: see :func:`compose_finetune`.

    Raises:
        ConfigError: a finished run was made with other settings.
    """
    planned = []
    for task in figure_tasks(config):
        for arm in arms:
            entry = config.catalogue[arm]
            sizes = config.budget.sizes[entry.sizes]
            seeds = config.seeds or min(sizes.seeds, config.budget.figure_seeds.get(config.figure.name, sizes.seeds))
            overrides = [*task_settings(config, task), *entry.overrides, *sizes.overrides]
            overrides = [*_first_of_each(overrides), *config.overrides]
            overrides += [f"name={config.prefix}-{arm}", f"runs={config.runs}", "progress=false"]
            run = composed([*overrides, "seed=0"])
            if entry.get("matched"):
                overrides.append(f"exploration.sigma={_sigma_of_equal_displacement(run)!r}")
                run = composed([*overrides, "seed=0"])
            OmegaConf.resolve(run)
            settings = plain(run)
            shared = pretraining_key(settings) or f"{task}-{arm}"
            for seed in range(config.first_seed, config.first_seed + seeds):
                path = run_path({**settings, "seed": seed})
                check_finished(path, {**settings, "seed": seed})
                planned.append(PlannedRun(task, arm, seed, (*overrides, f"seed={seed}"), path, run, f"{shared}-{seed}"))
    return sorted(planned, key=lambda run: run.seed)


def check_finished(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a finished run of other settings: it would stand in the figure under these.

    Settings that the run does not know, because a later version added them, are taken to be as they were then, but for
    those of which it is known how they were (:data:`~o3f.runs.identity.LATER_KEYS`).

    Args:
        path: of the run folder, finished or not, or not there.
        settings: that the figure would start it with.
    """
    if not (path / "done.json").exists():
        return
    old = leaves(read_settings(path / "config.yaml"))
    known = old.keys() | LATER_KEYS.keys()
    changed = config_difference(old, {key: value for key, value in leaves(settings).items() if key in known})
    require(
        not changed,
        f"{path} is finished, with other settings than these (then -> now):\n  " + "\n  ".join(changed) + "\n"
        "Give prefix=NAME to make runs of their own for the new settings, or the old ones.",
    )


def _first_of_each(overrides: Sequence[str]) -> list[str]:
    """An arm's own values come before those of its sizes, and win."""
    own: dict[str, str] = {}
    for override in overrides:
        own.setdefault(override.partition("=")[0], override)
    return list(own.values())


def pretraining_key(settings: Mapping[str, Any]) -> str:
    """Return a digest of what pre-training depends on, but the seed and the data; empty where there is none.

    Args:
        settings: resolved configuration of a fine-tuning or a pre-training run.
    """
    if settings.get("pretrained", "auto") != "auto" or settings["dataset"]["id"] == "none":
        return ""
    offline = {key: value for key, value in settings.items() if key not in ONLINE_KEYS}
    offline["algorithm"] = offline_algorithm(settings)
    facts = identity(offline, FREE_KEYS | WATCHING_KEYS | ACTING_KEYS | {"seed", "name"})
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _sigma_of_equal_displacement(config: DictConfig) -> float:
    """Sigma for the run's number of candidates, so that its choice goes as far as that of a hundred."""
    env = make_gym_env(build.env_config(config), seed=0)
    action_dim = int((env.action_space.shape or (1,))[0])
    env.close()
    target = matched_sigma(float(config.task.sigma), REFERENCE_CANDIDATES, action_dim)
    return target / matched_sigma(1.0, int(config.exploration.num_candidates), action_dim)
