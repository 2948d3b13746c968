"""Datasets as rows of a replay buffer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import NoReturn, TypedDict, Unpack, cast

import numpy as np
import torch
from tensordict import TensorDict

from o3f.data.actions import check_action_scale, check_action_space
from o3f.data.episodes import Episode, read_episodes
from o3f.data.info import DatasetInfo
from o3f.data.kitchen import Rewards, with_rewards
from o3f.data.minari_store import Recorded, limit_of, open_dataset
from o3f.data.observations import observation_layout
from o3f.data.report import DatasetReport, OnNonfinite, UnmarkedEnds
from o3f.data.reset_steps import ResetSteps, with_reset_steps
from o3f.data.rewards import RewardRule, warn_of_far_rewards
from o3f.data.rows import ROW_KEYS, allocate_rows, hash_rows
from o3f.data.summary import Summary
from o3f.data.verify import Stored, verify_rows


class ReadOptions(TypedDict, total=False):
    """Arguments of :func:`read_rows`, see :func:`~o3f.data.loading.load_minari`."""

    reward: RewardRule | None
    observation_keys: Sequence[str] | None
    action_scale: float
    max_transitions: int | None
    check: bool
    clip_actions: bool
    on_nonfinite: OnNonfinite
    unmarked_ends: UnmarkedEnds
    reset_steps: ResetSteps
    rewards: Rewards
    returns: bool
    free_rows: int
    storage_dir: str | Path | None


def read_minari(
    dataset_id: str, *, download: bool = False, root: str | Path | None = None, **options: Unpack[ReadOptions]
) -> tuple[TensorDict, DatasetInfo]:
    """Read a Minari dataset into rows ``[D + free_rows]`` without making a buffer of them.

    Arguments and errors are those of :func:`~o3f.data.loading.load_minari`; ``free_rows`` zero rows are left
    at the end.
    """
    return read_rows(open_dataset(dataset_id, download=download, root=root), **options)


def read_rows(
    dataset: Recorded,
    *,
    reward: RewardRule | None = None,
    observation_keys: Sequence[str] | None = None,
    action_scale: float = 1.0,
    max_transitions: int | None = None,
    check: bool = True,
    clip_actions: bool = False,
    on_nonfinite: OnNonfinite = "stop",
    unmarked_ends: UnmarkedEnds = "stop",
    reset_steps: ResetSteps = "keep",
    rewards: Rewards = "recorded",
    returns: bool = False,
    free_rows: int = 0,
    storage_dir: str | Path | None = None,
) -> tuple[TensorDict, DatasetInfo]:
    """Read an open dataset, with ``returns`` also with an empty column for them; see :func:`read_minari`."""
    check_action_scale(action_scale)
    if not isinstance(reward, RewardRule | None):
        raise ValueError(f"reward is {reward!r}, expected None or a rule: RewardRule(scale=..., shift=...).")
    layout = observation_layout(dataset.observation_space, observation_keys)
    recorded = with_reset_steps(dataset, layout, reset_steps)
    dataset = with_rewards(recorded, rewards)
    (action_dim,) = check_action_space(dataset.action_space).shape
    count = _num_rows(dataset, max_transitions)
    rows = allocate_rows(count + free_rows, layout.size, action_dim, storage_dir=storage_dir, returns=returns)
    summary = Summary(limit_of(dataset), layout.space, check_action_space(dataset.action_space))
    left_out = len(getattr(recorded, "left_out", ()))
    report = DatasetReport(dataset.id, clip_actions, on_nonfinite, unmarked_ends, summary, left_out)
    episodes = read_episodes(dataset, layout, action_scale)
    stored, whole = _fill(rows, count, episodes, report)
    filled = sum(each.steps for each in stored)
    if check or not stored:
        report.raise_faults()
    if check:
        verify_rows(rows, stored, dataset, layout, action_scale)
        for remark in report.remarks():
            warnings.warn(remark, stacklevel=4)
        warn_of_far_rewards(rows["next", "reward"][:filled], dataset.id)
    if count != max_transitions and (not whole or any(map(len, episodes))):
        _raise_miscounted(dataset, count, "more", "what says so is not of these data")
    if filled < count and not report.dropped_episodes:
        _raise_miscounted(dataset, count, str(filled), "it is incomplete")
    if filled < count:
        rows = cast(TensorDict, rows[: filled + free_rows]).lock_()
    return rows, _finish(rows[:filled], dataset, report, reward or RewardRule())


def _raise_miscounted(dataset: Recorded, stated: int, found: str, reason: str) -> NoReturn:
    raise RuntimeError(
        f"Dataset '{dataset.id}' states {stated} transitions but holds {found}: {reason}. Delete"
        f" {dataset.storage.data_path} and get it again."
    )


def _fill(
    rows: TensorDict, count: int, episodes: Iterable[Episode], report: DatasetReport
) -> tuple[list[Stored], bool]:
    """Put episodes into the first ``count`` rows; return where each lies, and whether the last one is there whole."""
    columns = {key: np.asarray(rows[key]) for key in ROW_KEYS}  # views
    stored: list[Stored] = []
    filled, whole = 0, True
    for episode in episodes:
        if not report.add(episode):
            continue
        start, filled = filled, min(filled + len(episode), count)
        whole = filled - start == len(episode)
        stored.append(Stored(episode.index, start, filled - start))
        for key, values in episode.rows(filled - start).items():
            columns[key][start:filled] = values
        if filled == count:
            break
    return stored, whole


def dataset_hash(
    dataset_id: str,
    *,
    root: str | Path | None = None,
    observation_keys: Sequence[str] | None = None,
    action_scale: float = 1.0,
    max_transitions: int | None = None,
    on_nonfinite: OnNonfinite = "stop",
    reset_steps: ResetSteps = "keep",
    rewards: Rewards = "recorded",
) -> str:
    """Read a local dataset and return the hash of its rows, equal to ``dataset_info(buffer).hash``."""
    _, info = read_minari(
        dataset_id,
        root=root,
        observation_keys=observation_keys,
        action_scale=action_scale,
        max_transitions=max_transitions,
        on_nonfinite=on_nonfinite,
        reset_steps=reset_steps,
        rewards=rewards,
        check=False,
    )
    return info.hash


def _num_rows(dataset: Recorded, max_transitions: int | None) -> int:
    if max_transitions is not None and not (isinstance(max_transitions, Integral) and max_transitions >= 1):
        raise ValueError(f"max_transitions is {max_transitions!r}, expected None or a whole number, at least 1.")
    total = int(dataset.total_steps)
    if total == 0:
        raise ValueError(f"Dataset '{dataset.id}' has no transitions. Collect or download it again.")
    return total if max_transitions is None else min(total, max_transitions)


def _finish(rows: TensorDict, dataset: Recorded, report: DatasetReport, reward: RewardRule) -> DatasetInfo:
    """Hash the raw rows, then apply the reward rule to them in place."""
    content = hash_rows(rows)
    column = rows["next", "reward"]
    rule = reward.resolve(report.returns, float(column.max()))
    column.copy_(torch.as_tensor(rule(column)))
    metadata = dataset.storage.metadata
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    return DatasetInfo(
        dataset_id=dataset.id,
        hash=content,
        env_id=None if dataset.env_spec is None else dataset.env_spec.id,
        episodes=len(report.returns),
        transitions=len(rows),
        unfinished=report.unfinished,
        dropped_episodes=report.dropped_episodes,
        clipped_actions=report.clipped_actions,
        dropped_rows=report.dropped_rows,
        dropped_reset_steps=report.dropped_reset_steps,
        returns=(
            float(np.min(report.returns)),
            float(np.mean(report.returns)),
            float(np.max(report.returns)),
        ),
        reference_scores=None if low is None or high is None else (float(low), float(high)),
        reward=rule,
        summary=str(report),
    )
