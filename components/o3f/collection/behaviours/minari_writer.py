"""Trajectories to a Minari dataset on disk."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import minari
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.namespace import create_namespace, list_local_namespaces

from o3f.collection.behaviours.rollout import Trajectory
from o3f.data.actions import as_made, check_action_space, to_env_actions
from o3f.data.minari_store import check_dataset_id, datasets_root, minari_root
from o3f.envs.wrappers import Env

_PACKAGES = ("gymnasium", "gymnasium-robotics", "mujoco")


def new_dataset_path(dataset_id: str, *, overwrite: bool = False) -> Path:
    """Where a new dataset will lie.

    Args:
        dataset_id: ``namespace/name-v0``, Minari's grammar.
        overwrite: whether there may be one already.

    Raises:
        ValueError: if the id is not Minari's grammar.
        FileExistsError: if there is one already.
    """
    check_dataset_id(dataset_id)
    path = datasets_root() / dataset_id
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"Dataset {dataset_id} exists at {path}. Choose another id, or replace it: overwrite=true."
        )
    return path


def write_minari(
    dataset_id: str,
    trajectories: Sequence[Trajectory],
    env: Env,
    *,
    behaviour: str,
    description: str,
    score_range: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a Minari dataset under ``$MINARI_DATASETS_PATH`` (default ``~/.minari/datasets``).

    Actions are written in the environment's bounds: agent action 1.0 is the upper bound, whatever the
    action scale; observations and flags as recorded, rewards raw. The dataset appears whole or not at all.

    Args:
        dataset_id: ``namespace/name-v0``.
        trajectories: the episodes.
        env: the environment they were recorded in; its unwrapped spaces and id become the dataset's.
        behaviour: what acted.
        description: free text.
        score_range: reference scores (minimum, maximum).
        overwrite: replace an existing dataset.

    Returns:
        The dataset's folder.

    Raises:
        ValueError: if the id is not Minari's grammar, or there are no trajectories.
        FileExistsError: if there is one already.
    """
    target = new_dataset_path(dataset_id, overwrite=overwrite)
    if not trajectories:
        raise ValueError("No trajectories to write.")
    source = as_made(env)
    bounds = check_action_space(source.action_space)
    episodes = [_episode(index, each, bounds) for index, each in enumerate(trajectories)]
    low, high = score_range or (None, None)
    root = datasets_root()
    root.mkdir(parents=True, exist_ok=True)
    # Hidden folders are invisible to Minari, so a killed process leaves no half dataset behind.
    with tempfile.TemporaryDirectory(dir=root, prefix=".stage-") as stage:
        with minari_root(Path(stage)):
            minari.create_dataset_from_buffers(
                dataset_id,
                buffer=episodes,
                env=source,
                eval_env=source,
                algorithm_name=behaviour,
                author="o3f",
                author_email="none",
                code_permalink="none",
                description=description,
                requirements=_requirements(),
                ref_min_score=low,
                ref_max_score=high,
            )
        _publish(dataset_id, Path(stage) / dataset_id, target)
    return target


def _episode(index: int, trajectory: Trajectory, bounds: gymnasium.spaces.Box) -> EpisodeBuffer:
    columns: dict[str, Any] = {  # Minari writes arrays faster than the lists it asks for
        "observations": trajectory.observations,
        "actions": to_env_actions(trajectory.actions, bounds),
        "rewards": trajectory.rewards,
        "terminations": trajectory.terminated,
        "truncations": trajectory.truncated,
    }
    return EpisodeBuffer(id=index, seed=trajectory.seed, infos={}, **columns)


def _requirements() -> list[str]:
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name}=={importlib.metadata.version(name)}")
    return found


def _publish(dataset_id: str, staged: Path, target: Path) -> None:
    namespace = parse_dataset_id(dataset_id)[0]
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)
    shutil.rmtree(target, ignore_errors=True)
    staged.rename(target)
