"""Is a gain that of exploration, or would choosing the best candidate at evaluation have given it, too?

The agents of some arms, before and after fine-tuning, play with and without the choice of the best of N candidates.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from o3f.commands import arguments
from o3f.errors import ResourceError
from o3f.figures.launch import POLL_SECONDS, end, one_thread, stopped
from o3f.figures.plan import PlannedRun, pretraining_key
from o3f.files import read_json
from o3f.run_config import read_settings
from o3f.signals import StopSignals


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
    for done in sorted(Path(run.config.runs).glob(f"pretrained-*/*-offline/seed{run.seed}/done.json")):
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
        ResourceError: an evaluation failed; what it said stands above.
    """
    missing = [each.folder.as_posix() for each in agents(runs) if scores(each.folder, episodes) is None]
    shares = [share for job in range(jobs) if (share := missing[job::jobs])]
    running: list[subprocess.Popen[bytes]] = []
    with StopSignals() as stop:
        try:
            for share in shares:
                call = arguments("evaluate", f"run={share}", f"episodes={episodes}", "optimistic=true")
                running.append(
                    subprocess.Popen(call, stdout=subprocess.DEVNULL, env=one_thread(), start_new_session=True)
                )
            while stop.received is None and any(process.poll() is None for process in running):
                time.sleep(POLL_SECONDS)
        finally:
            end([process for process in running if process.poll() is None])
    if stop.received is not None:
        raise stopped(stop.received)
    if failed := sum(process.returncode != 0 for process in running):
        raise ResourceError(f"{failed} evaluations failed, see above; the same command does them again.")


def scores(folder: Path, episodes: int) -> tuple[float, float] | None:
    """Return the scores without and with the choice (returns where the task has none); None: not evaluated so."""
    file = folder / "evaluation.json"
    evaluation = read_json(file) if file.exists() else {}
    asked = {"episodes": episodes, "checkpoint": "latest"}
    if not asked.items() <= evaluation.items() or "optimistic" not in evaluation["acting"]:
        return None
    plain, best = (evaluation["acting"][name] for name in ("policy", "optimistic"))
    name = "score" if "score" in plain else "return"
    return float(plain[name]), float(best[name])


def optimistic_section(runs: Sequence[PlannedRun], settings: DictConfig) -> list[str]:
    """Return a Markdown section about the agents that were evaluated so; nothing where there are none."""
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for agent in agents(runs):
        if (pair := scores(agent.folder, settings.budget.optimistic_episodes)) is not None:
            groups.setdefault((agent.task, agent.label), []).append(pair)
    if not groups:
        return []
    lines = ["| task | agent | seeds | plain policy | best of N |", "|---|---|---|---|---|"]
    for (task, label), pairs in groups.items():
        plain, best = np.mean(pairs, axis=0)
        name = settings.catalogue[label].label if label in settings.catalogue else label
        lines.append(f"| {task} | {name} | {len(pairs)} | {plain:.1f} | {best:.1f} |")
    text = f"Means over seeds of {settings.budget.optimistic_episodes} episodes each, other ones than while training."
    return ["## Exploration, or choice at evaluation?\n", f"{text}\n", "\n".join(lines) + "\n"]
