"""Is a gain that of exploration, or would choosing the best candidate at evaluation have given it, too?

The agents of some arms, before and after fine-tuning, play with and without the choice of the best of N candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from o3f.figures.plan import PlannedRun, pretraining_key
from o3f.figures.shares import in_shares
from o3f.runs.files import read_json
from o3f.runs.identity import read_settings

#: Ways of acting in ``evaluation.json``, and their heads in the table.
ACTING = {"policy": "plain policy", "optimistic": "best of N", "best_of_n": "best of N and the policy's own action"}

EPISODE_SEED = 2_000
"""Of the episodes; those of a run's own evaluations begin at 1,000."""


@dataclass(frozen=True)
class Agent:
    """A trained agent.

    Attributes:
        task: where.
        label: name of the arm, or ``before fine-tuning``.
        folder: of its run.
    """

    task: str
    label: str
    folder: Path


def agents(runs: Sequence[PlannedRun]) -> list[Agent]:
    """Return the agents of the finished runs, each pre-trained one once and first."""
    finished = [run for run in runs if run.finished]
    before = {folder: run.task for run in finished if (folder := pretrained_folder(run)) is not None}
    found = [Agent(task, "before fine-tuning", folder) for folder, task in before.items()]
    return found + [Agent(run.task, run.arm, run.path) for run in finished]


def pretrained_folder(run: PlannedRun) -> Path | None:
    """Return the folder of the pre-training that a finished run began with, None where it is not to be found."""
    content = read_json(run.path / "env.json").get("dataset_hash")
    for done in sorted(Path(run.config.runs).glob(f"*/*-offline/seed{run.seed}/done.json")):
        same_data = read_json(done.parent / "env.json").get("dataset_hash") == content
        if same_data and f"{pretraining_key(read_settings(done.parent / 'config.yaml'))}-{run.seed}" == run.pretraining:
            return done.parent
    return None


def evaluate_optimistically(runs: Sequence[PlannedRun], episodes: int, jobs: int) -> None:
    """Evaluate the agents of finished runs that have not been evaluated so, several at a time.

    Args:
        runs: whose agents.
        episodes: of each evaluation.
        jobs: processes at a time.

    Raises:
        Stopped: by a signal.
        ResourceError: an evaluation failed.
    """
    missing = [each.folder for each in agents(runs) if scores(each.folder, episodes) is None]
    in_shares("evaluate", missing, [f"episodes={episodes}", f"seed={EPISODE_SEED}", "optimistic=true"], jobs)


def scores(folder: Path, episodes: int) -> tuple[float, ...] | None:
    """Return the scores of each of :data:`ACTING` (returns where the task has none); None: not evaluated so."""
    file = folder / "evaluation.json"
    evaluation = read_json(file) if file.exists() else {}
    step = read_json(folder / "done.json")["step"]  # an evaluation may have been made before the run was finished
    asked = {"episodes": episodes, "checkpoint": "latest", "seed": EPISODE_SEED, "step": step}
    if not asked.items() <= evaluation.items() or not set(ACTING) <= set(evaluation["acting"]):
        return None
    figures = [evaluation["acting"][name] for name in ACTING]
    name = "score" if "score" in figures[0] else "return"
    return tuple(float(each[name]) for each in figures)


def optimistic_section(runs: Sequence[PlannedRun], settings: DictConfig) -> list[str]:
    """Return a Markdown section about the agents that were evaluated so; nothing where there are none."""
    groups: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for agent in agents(runs):
        if (figures := scores(agent.folder, settings.budget.optimistic_episodes)) is not None:
            groups.setdefault((agent.task, agent.label), []).append(figures)
    if not groups:
        return []
    lines = [f"| task | agent | seeds | {' | '.join(ACTING.values())} |", "|---|---|---|" + "---|" * len(ACTING)]
    for (task, label), found in groups.items():
        name = settings.catalogue[label].label if label in settings.catalogue else label
        means = " | ".join(f"{mean:.1f}" for mean in np.mean(found, axis=0))
        lines.append(f"| {task} | {name} | {len(found)} | {means} |")
    text = (
        f"Means over seeds of {settings.budget.optimistic_episodes} episodes each, other ones than while training. All"
        " play from the policy's deterministic action: the candidates lie around it, and not around a sample as while"
        " collecting."
    )
    return ["## Exploration, or choice at evaluation?\n", f"{text}\n", "\n".join(lines) + "\n"]
