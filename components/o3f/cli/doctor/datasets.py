"""The Minari datasets on this machine, and which tasks have theirs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from packaging.requirements import InvalidRequirement, Requirement

import o3f
from o3f.cli.doctor.findings import Finding
from o3f.data.minari_store import datasets_root, is_local, open_dataset

#: Opening stops after so many seconds; what is left is counted.
PATIENCE = 3.0

#: Packages that decide what a step leads to.
SIMULATORS = ("mujoco", "gymnasium", "gymnasium-robotics")


def check_datasets() -> Iterator[Finding]:
    """Open every dataset of the root: its last episode tells a file that was cut short."""
    root = datasets_root()
    ids = dataset_ids(root)
    yield Finding("ok" if ids else "note", f"{len(ids)} in {root}", "" if ids else "the tasks below say how to get one")
    start = time.monotonic()
    for number, dataset_id in enumerate(ids):
        if time.monotonic() - start > PATIENCE:
            yield Finding("note", f"{len(ids) - number} more were not opened, to be quick")
            return
        try:
            yield describe(dataset_id, root)
        except Exception as error:
            told = (str(error).strip().splitlines() or ["no message"])[0]
            todo = f"delete {root / dataset_id} and get it again"
            yield Finding("broken", f"{dataset_id}: {type(error).__name__}: {told}", todo)


def dataset_ids(root: Path) -> list[str]:
    """Return the ids below a root: folders that hold a folder ``data`` with Minari's description in it."""
    found = []
    for folder, inner, _ in os.walk(root):
        if "data" in inner and Path(folder) != root:
            found.append(Path(folder).relative_to(root).as_posix())
            inner.clear()
    return sorted(found)


def describe(dataset_id: str, root: Path) -> Finding:
    """Return id, steps, environment and size of a dataset, and the simulators it was recorded with, where not these.

    Raises:
        RuntimeError: it cannot be read.
    """
    dataset = open_dataset(dataset_id, root=root)
    (last,) = dataset.iterate_episodes([dataset.total_episodes - 1])
    if len(last.rewards) == 0:
        raise RuntimeError("its last episode is empty")
    environment = dataset.env_spec.id if dataset.env_spec is not None else "no environment named"
    size = sum(file.stat().st_size for file in (root / dataset_id).rglob("*") if file.is_file())
    text = f"{dataset_id}: {int(dataset.total_steps):,} steps, {environment}, {size / 1e6:.1f} MB"
    others = list(other_simulators(dataset.storage.metadata.get("requirements", [])))
    if not others:
        return Finding("ok", text)
    return Finding("note", f"{text}; asks for {', '.join(others)}", "which versions change numbers: docs/versions.md")


def other_simulators(requirements: Iterable[str]) -> Iterator[str]:
    """Name the simulators that a dataset asks for in another version; Minari compares when it makes the environment.

    Args:
        requirements: as the dataset states them, in pip's form; those that are not in it are left out.

    Examples:
        >>> list(other_simulators(["gymnasium<0.1", "gymnasium>=1", "numpy<1", "not a requirement"]))
        ['gymnasium<0.1']
    """
    for text in requirements:
        try:
            need = Requirement(text)
            installed = metadata.version(need.name)
        except (InvalidRequirement, metadata.PackageNotFoundError):
            continue
        if need.name in SIMULATORS and not need.specifier.contains(installed, prereleases=True):
            yield text


def check_tasks() -> Iterator[Finding]:
    """Name the tasks of ``conf/task`` that have their dataset, and the command for each of the others."""
    conf = conf_folder()
    there: list[str] = []
    lacking: list[Finding] = []
    for file in sorted(conf.glob("task/*/*.yaml")):
        task = file.relative_to(conf / "task").with_suffix("").as_posix()
        settings = OmegaConf.load(file)
        dataset_id = OmegaConf.select(settings, "dataset.id")
        if task.startswith("d4rl/"):
            continue
        if is_local(dataset_id):
            there.append(task)
        else:
            lacking.append(Finding("missing", f"{task}: {dataset_id}", how_to_get(task, settings)))
    yield Finding("ok" if there else "note", f"with their dataset: {', '.join(there) or 'none'}")
    yield from lacking
    yield Finding("note", "d4rl/*: each reads a file of D4RL's: dataset=path dataset.path=FILE.hdf5")


def how_to_get(task: str, settings: Any) -> str:
    """Return the command that gets a task's dataset.

    Args:
        task: as on the command line.
        settings: its file in ``conf/task``.
    """
    call = "python -m o3f.recipes.{}" if (Path(o3f.__file__).parent / "conf").is_dir() else "python recipes/{}.py"
    if not settings.dataset.id.startswith("o3f/"):
        return f"{call.format('pretrain')} task={task} dataset.download=true"
    behaviour = OmegaConf.to_container(settings.get("behaviour") or OmegaConf.create(), resolve=False)
    assert isinstance(behaviour, dict)
    needs_policy = behaviour.get("kind") in ("npz", "waypoint") and "path" not in behaviour
    return f"{call.format('collect')} task={task}{' task.behaviour.path=YOUR_POLICY.npz' if needs_policy else ''}"


def conf_folder() -> Path:
    """The configurations: beside the package in a clone, inside it in a wheel."""
    package = Path(o3f.__file__).parent
    return next(folder for folder in (package / "conf", package.parents[1] / "conf") if folder.is_dir())
