"""What a program's user should know of the run it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from o3f.algorithms import Learner
from o3f.data import open_dataset
from o3f.runs.checkpoint import FOLDERS, load_metadata
from o3f.runs.files import read_json
from o3f.runs.identity import plain
from o3f.runs.logger import read_csv
from o3f.runs.provenance import provenance


def run_facts(folder: str | Path, which: str, trained: DictConfig, learner: Learner) -> dict[str, Any]:
    """Return task, algorithm, checkpoint, scores, dataset and versions of a run.

    Args:
        folder: the run's.
        which: the checkpoint that was loaded, ``"latest"`` or ``"best"``.
        trained: the run's configuration.
        learner: of that checkpoint.
    """
    folder = Path(folder)
    step = load_metadata(folder / FOLDERS[which])["step"]
    env = plain(trained)["task"]["env"]
    return {
        "task": trained.task.name,
        "algorithm": trained.algorithm.name,
        "seed": trained.seed,
        "environment": env,
        "phase": "online" if "online" in trained else "offline",
        "checkpoint": {"which": which, "step": step, "critic_updates": learner.updates},
        "scores": scores_at(folder, step, trained.evaluation.episodes),
        "dataset": _dataset(folder),
        "versions": provenance(),
    }


def scores_at(folder: Path, step: int, episodes: int) -> dict[str, Any] | None:
    """Return the means of the evaluation at a step, from ``metrics.csv`` or ``done.json``; None without any."""
    metrics, done = folder / "metrics.csv", folder / "done.json"
    rows = read_csv(metrics) if metrics.exists() else []
    found = {tag.removeprefix("eval/"): value for at, tag, value in rows if at == step and tag.startswith("eval/")}
    found.pop("gain", None)  # the run's, not this agent's
    if not found and done.exists() and read_json(done).get("step") == step:
        found = {name: value for name, value in read_json(done).items() if name != "step"}
    return {"episodes": episodes, **found} if found else None


def _dataset(folder: Path) -> dict[str, Any] | None:
    """Id, hash and the first sentence of the description, where the dataset is at hand."""
    file = folder / "env.json"
    facts = read_json(file) if file.exists() else {}
    name = facts.get("dataset")
    if name is None:
        return None
    try:
        description = open_dataset(name).storage.metadata.get("description")
    except (OSError, RuntimeError, ValueError):  # not here any more
        description = None
    sentence = str(description).split(". ")[0].strip().rstrip(".") + "." if description else None
    shown = Path(name).name if Path(name).is_absolute() else name  # a card is shared: no paths of this machine
    return {"id": shown, "hash": facts.get("dataset_hash"), "description": sentence}
