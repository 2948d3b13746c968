"""Checks of a dataset before anything is learned from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium

from o3f.data.actions import as_made
from o3f.data.array_files import FileDataset
from o3f.data.episodes import read_episodes
from o3f.data.minari_store import Recorded, open_dataset
from o3f.data.observations import observation_layout
from o3f.data.report import DatasetReport, OnNonfinite, UnmarkedEnds


def check_dataset(
    dataset_id: str | FileDataset,
    *,
    env: gymnasium.Env[Any, Any] | None = None,
    root: str | Path | None = None,
    observation_keys: Sequence[str] | None = None,
    action_scale: float = 1.0,
    clip_actions: bool = False,
    on_nonfinite: OnNonfinite = "stop",
    unmarked_ends: UnmarkedEnds = "stop",
) -> DatasetReport:
    """Read a local dataset once and check all of it, and an environment against it.

    Args:
        dataset_id: a Minari id, or what :func:`~o3f.data.array_files.open_file` returned.
        env: the environment to train in, see :func:`check_environment`; for a file, give it to ``open_file``.
        root: folder of the datasets, default as in Minari.
        observation_keys: see :func:`~o3f.data.observations.observation_layout`.
        action_scale: see :func:`~o3f.data.actions.to_agent_actions`.
        clip_actions: accept actions more than :data:`~o3f.data.report.ACTION_TOLERANCE` out of bounds.
        on_nonfinite: ``"drop_episode"`` leaves out episodes with NaN or infinite values.
        unmarked_ends: ``"truncate"`` accepts data in which no episode end is marked.

    Returns:
        Counts and episode returns; :meth:`~o3f.data.report.DatasetReport.remarks` says what is odd.

    Raises:
        ValueError: at any fault; the message lists field, count, first episode and step, and the cure.
        FileNotFoundError: if the dataset is not there.
    """
    dataset: Recorded
    if isinstance(dataset_id, FileDataset):
        dataset = dataset_id
    else:
        dataset = open_dataset(dataset_id, root=root)
        if env is not None:
            check_environment(dataset_id, env, root=root)
    layout = observation_layout(dataset.observation_space, observation_keys)
    report = DatasetReport(dataset.id, clip_actions, on_nonfinite, unmarked_ends)
    for episode in read_episodes(dataset, layout, action_scale):
        report.add(episode)
    report.raise_faults()
    return report


def check_environment(dataset_id: str, env: gymnasium.Env[Any, Any], *, root: str | Path | None = None) -> None:
    """Compare an environment with the one a dataset states: id and version, observation and action space.

    A dataset may hold the environment's own units or those after some of its wrappers: its spaces must equal those
    of ``env`` or of what lies below a wrapper of it. No episode is read.

    Raises:
        ValueError: listing the differences.
    """
    dataset = open_dataset(dataset_id, root=root)
    recorded, present = dataset.env_spec, env.unwrapped.spec
    levels = [env]
    while isinstance(levels[-1], gymnasium.Wrapper):
        levels.append(levels[-1].env)
    differences = []
    if recorded is not None and present is not None and recorded.id != present.id:
        differences.append(f"environment id: {recorded.id} in the dataset, {present.id} here")
    for name in ("observation_space", "action_space"):
        stated = getattr(dataset, name)
        if stated not in [getattr(level, name) for level in levels]:
            differences.append(f"{name}: {stated} in the dataset, {getattr(as_made(env), name)} here")
    if differences:
        raise ValueError(
            f"Dataset '{dataset_id}' was not made in this environment:\n- "
            + "\n- ".join(differences)
            + "\nUse the dataset's environment (id and arguments), or a dataset of this one."
        )
