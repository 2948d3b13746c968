"""Checks of a dataset before anything is learned from it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium

from o3f.data.actions import as_made, check_action_scale, check_action_space
from o3f.data.array_files import FileDataset
from o3f.data.episodes import read_episodes
from o3f.data.minari_store import ACTION_SCALE, FRAME_SKIP, Recorded, limit_of, open_dataset
from o3f.data.observations import observation_layout
from o3f.data.report import DatasetReport, OnNonfinite, UnmarkedEnds
from o3f.data.reset_steps import ResetSteps, with_reset_steps
from o3f.data.summary import Summary

#: Arguments that change no step, and two of FrankaKitchen whose effect :class:`~o3f.data.kitchen.KitchenTasks` has.
_OF_NO_MATTER = ("render_mode", "remove_task_when_completed", "terminate_on_tasks_completed")


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
    reset_steps: ResetSteps = "keep",
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
        reset_steps: ``"drop"`` leaves out first steps that are resets, see
            :class:`~o3f.data.reset_steps.SharedStarts`.

    Returns:
        Counts and episode returns, in a line if printed; :meth:`~o3f.data.report.DatasetReport.remarks` says what is
        odd.

    Raises:
        ValueError: at any fault; the message lists field, count, first episode and step, and the cure.
        FileNotFoundError: if the dataset is not there.
    """
    check_action_scale(action_scale)
    dataset: Recorded
    if isinstance(dataset_id, FileDataset):
        dataset = dataset_id
    else:
        dataset = open_dataset(dataset_id, root=root)
        if env is not None:
            check_environment(dataset_id, env, root=root)
    layout = observation_layout(dataset.observation_space, observation_keys)
    dataset = with_reset_steps(dataset, layout, reset_steps)
    summary = Summary(limit_of(dataset), layout.space, check_action_space(dataset.action_space))
    left_out = len(getattr(dataset, "left_out", ()))
    report = DatasetReport(dataset.id, clip_actions, on_nonfinite, unmarked_ends, summary, left_out)
    for episode in read_episodes(dataset, layout, action_scale):
        report.add(episode)
    report.raise_faults()
    return report


def check_environment(dataset_id: str, env: gymnasium.Env[Any, Any], *, root: str | Path | None = None) -> None:
    """Compare an environment with the one a dataset states: id and version, observation and action space.

    A dataset may hold the environment's own units or those after some of its wrappers: its spaces must equal those
    of ``env`` or of what lies below a wrapper of it. Other arguments, time limit or frame skip are a warning: they may
    be meant. No episode is read.

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
    others = list(_other_settings(dataset, env))
    if others:
        warnings.warn(
            f"Dataset '{dataset_id}' was made in {present.id if present else env} with other settings, so that what is"
            " learned from it may not hold here:\n- " + "\n- ".join(others),
            stacklevel=2,
        )


def _other_settings(dataset: Recorded, env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    """What differs between the recorded environment and this one though they have the same name."""
    recorded, present = dataset.env_spec, as_made(env).spec
    if recorded is None or present is None:
        return
    before, now = (_plain(spec.kwargs) for spec in (recorded, present))
    for key in sorted(before.keys() | now.keys()):
        if key not in _OF_NO_MATTER and before.get(key) != now.get(key):
            yield f"argument {key}: {before.get(key, 'not given')} in the dataset, {now.get(key, 'not given')} here"
    if recorded.max_episode_steps != present.max_episode_steps:
        yield (
            f"time limit: {recorded.max_episode_steps} of the environment's steps in the dataset,"
            f" {present.max_episode_steps} here"
        )
    skipped, skips = dataset.storage.metadata.get(FRAME_SKIP), frame_skip_of(env)
    if skipped is not None and skipped != skips:
        yield f"frame_skip: {skipped} of the environment's steps a step in the dataset, {skips} here"
    spanned, spans = dataset.storage.metadata.get(ACTION_SCALE), action_scale_of(env)
    if spanned is not None and spanned != spans:
        yield f"action_scale: {spanned} of the action bounds in the dataset, {spans} here"


def frame_skip_of(env: gymnasium.Env[Any, Any]) -> int:
    """Return how many of the environment's steps a step of ``env`` is: the wrappers of this package may skip some."""
    skip, made = 1, as_made(env)
    while env is not made:
        assert isinstance(env, gymnasium.Wrapper)
        skip *= vars(env).get("frames", 1)
        env = env.env
    return skip


def action_scale_of(env: gymnasium.Env[Any, Any]) -> float:
    """Return what share of its action bounds the agent's [-1, 1] spans; 1.0 where ``env`` takes them as they are."""
    made = as_made(env)
    while env is not made:
        assert isinstance(env, gymnasium.Wrapper)
        if "scale" in vars(env):
            return float(vars(env)["scale"])
        env = env.env
    return 1.0


def _plain(kwargs: Any) -> Any:
    """As a file holds it: tuples are lists, numbers of numpy are numbers."""
    return json.loads(
        json.dumps(kwargs, default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value))
    )
