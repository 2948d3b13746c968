"""Datasets and files as TorchRL replay buffers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import gymnasium
import torch
from torchrl.data import ReplayBuffer

from o3f.data.array_files import Format, open_file
from o3f.data.buffers import RowsBuffer, buffer_over, check_sizes
from o3f.data.info import DatasetInfo
from o3f.data.kitchen import Rewards
from o3f.data.minari_store import Recorded, open_dataset
from o3f.data.mixing import check_fraction, num_online
from o3f.data.reading import ReadOptions, read_rows
from o3f.data.report import OnNonfinite, UnmarkedEnds
from o3f.data.reset_steps import ResetSteps
from o3f.data.returns import ReturnRule
from o3f.data.rewards import RewardRule


class LoadOptions(ReadOptions, total=False):
    """Arguments of :func:`load_rows`, see :func:`~o3f.data.loading.load_minari`."""

    batch_size: int
    online_capacity: int
    online_fraction: float | None
    balanced: bool
    return_discount: float | None
    storage: Literal["memory", "memmap"]
    generator: torch.Generator | None


def load_file(
    path: str | Path,
    *,
    format: Format = "auto",
    env: gymnasium.Env[Any, Any] | None = None,
    **options: Unpack[LoadOptions],
) -> ReplayBuffer:
    """Load a D4RL, OGBench or plain file of arrays into a TorchRL replay buffer with room for online rows.

    Everything after reading the file is as with :func:`~o3f.data.loading.load_minari`: keys, checks, rewards, content
    hash. The file is never changed and nothing in it is unpickled.

    Args:
        path: an HDF5 or NPZ file, or a folder of TorchRL's; :func:`~o3f.data.array_files.open_file` says which arrays
            it must have.
        format: ``"d4rl"``, ``"ogbench"``, or ``"auto"`` by the arrays there are.
        env: the environment the data are of: sizes are compared with it, and its action bounds rescaled to [-1, 1].
            None takes actions as they are.
        **options: arguments of :func:`~o3f.data.loading.load_minari` by the same names. ``observation_keys`` are also
            the parts of ``env``'s observation that a flat one in the file consists of.

    Raises:
        ConfigError: if the file is not there, lacks an array, or does not fit ``env``.
        OSError: if the disk has no room for ``storage="memmap"``.
        RuntimeError: if the file is damaged.
        ValueError: at faults of the data, or arguments that do not fit together.
    """
    check_storage(options.get("storage", "memory"), options.get("storage_dir"))
    keys = options.get("observation_keys")
    dataset = open_file(path, format=format, env=env, observation_keys=keys)
    if not isinstance(dataset.observation_space, gymnasium.spaces.Dict):
        if keys is not None and env is None:
            raise ValueError(
                f"observation_keys={list(keys)} take parts of an observation, and those of {path} have none: leave them"
                " out, or give the env whose parts they are."
            )
        options["observation_keys"] = None
    return load_rows(dataset, **options)


def load_rows(
    dataset: Recorded,
    *,
    batch_size: int = 256,
    online_capacity: int = 0,
    online_fraction: float | None = None,
    balanced: bool = False,
    return_discount: float | None = None,
    storage: Literal["memory", "memmap"] = "memory",
    generator: torch.Generator | None = None,
    **options: Unpack[ReadOptions],
) -> ReplayBuffer:
    """Load an open dataset; see :func:`~o3f.data.loading.load_minari`."""
    _check_shares(batch_size, online_capacity, online_fraction, balanced)
    options |= {"free_rows": online_capacity, "returns": return_discount is not None}
    rows, info = read_rows(dataset, **options)
    rule = None
    if return_discount is not None:
        rule = ReturnRule.of(rows[: info.transitions], return_discount)
        rule.fill(rows[: info.transitions])
    buffer = buffer_over(
        rows,
        info.transitions,
        online_fraction=online_fraction,
        balanced=balanced,
        return_rule=rule,
        batch_size=batch_size,
        generator=generator,
    )
    buffer.dataset_info = info
    return buffer


def _check_shares(batch_size: int, capacity: int, fraction: float | None, balanced: bool) -> None:
    """Refuse, before anything is read, what would leave out online rows without a word."""
    check_sizes(batch_size, capacity)
    check_fraction(fraction)
    if not capacity and (fraction or balanced):
        given = f"online_fraction={fraction}" if fraction else "balanced=True"
        raise ValueError(f"{given} is about online rows, and there is no room for one: give online_capacity > 0.")
    if fraction and not num_online(batch_size, fraction):
        raise ValueError(
            f"online_fraction={fraction} of batch_size={batch_size} is not one row, so that no online row would ever be"
            " drawn: give a larger one of either, or 0 if that is meant."
        )


def check_storage(storage: str, storage_dir: str | Path | None) -> None:
    """Check the arguments that say where rows are kept.

    Raises:
        ValueError: if the kind is not known, its folder is missing, or a folder is given that it does not use.
    """
    if storage not in ("memory", "memmap"):
        raise ValueError(f"storage is {storage!r}, expected 'memory' or 'memmap'.")
    if storage == "memmap" and storage_dir is None:
        raise ValueError("storage='memmap' needs storage_dir, the folder for its files.")
    if storage == "memory" and storage_dir is not None:
        raise ValueError(f"storage_dir={str(storage_dir)!r} is for files of rows: give storage='memmap' with it.")


def dataset_info(buffer: ReplayBuffer) -> DatasetInfo:
    """Return what was recorded about the dataset in a buffer.

    Raises:
        ValueError: if the buffer holds no dataset.
    """
    if not isinstance(buffer, RowsBuffer) or buffer.dataset_info is None:
        raise ValueError("This buffer was not made by load_minari or load_file, so it has no dataset_info.")
    return buffer.dataset_info


def load_minari(
    dataset_id: str,
    *,
    download: bool = False,
    root: str | Path | None = None,
    batch_size: int = 256,
    reward: RewardRule | None = None,
    observation_keys: Sequence[str] | None = None,
    action_scale: float = 1.0,
    online_capacity: int = 0,
    online_fraction: float | None = None,
    balanced: bool = False,
    return_discount: float | None = None,
    storage: Literal["memory", "memmap"] = "memory",
    storage_dir: str | Path | None = None,
    max_transitions: int | None = None,
    check: bool = True,
    clip_actions: bool = False,
    on_nonfinite: OnNonfinite = "stop",
    unmarked_ends: UnmarkedEnds = "stop",
    reset_steps: ResetSteps = "keep",
    rewards: Rewards = "recorded",
    generator: torch.Generator | None = None,
) -> ReplayBuffer:
    """Load a Minari dataset into a TorchRL replay buffer with room for online rows.

    Rows have exactly the keys :data:`~o3f.data.rows.ROW_KEYS`, float32, reward and flags ``[*B, 1]``; the
    dataset's come first, in order, and are never overwritten. Unlike TorchRL's ``MinariExperienceReplay``
    it reads through Minari's own interface, one episode at a time, in any file format, and marks an episode
    whose data just stop as truncated. What was read is told by :func:`~o3f.data.loading.dataset_info`.

    Args:
        dataset_id: a Minari id, ``namespace/name-v0``.
        download: fetch the dataset when it is not in the folder; nothing is downloaded otherwise.
        root: folder of the datasets; default ``$MINARI_DATASETS_PATH``, then ``~/.minari/datasets``.
        batch_size: rows a sample, 256 as in IQL.
        reward: rule applied to every reward once, here; default the raw reward.
        observation_keys: parts of a Dict observation, in order; default all, see
            :func:`~o3f.data.observations.observation_layout`.
        action_scale: share of the dataset's action bounds that the agent's [-1, 1] spans.
        online_capacity: number of online rows kept besides the dataset.
        online_fraction: share of each batch drawn from the online rows; default uniform over the union.
        balanced: draw rows in proportion to how near they are to what is collected now, see
            :class:`~o3f.data.balancing.BalancedSampler`; ``online_fraction`` is the share of online rows at first.
        return_discount: gamma of the returns that rows carry then as ``"return_to_go"`` ``[*B, 1]``, see
            :class:`~o3f.data.returns.ReturnRule`; None carries none. An online row has -inf until
            :func:`~o3f.data.store_returns` knows better.
        storage: ``"memory"``, or ``"memmap"`` for files in ``storage_dir`` claimed in full before reading.
        storage_dir: folder of those files.
        max_transitions: stop after this many rows; the last one counts as truncated unless it is terminal.
        check: stop at faults, see :func:`~o3f.data.checks.check_dataset`, warn of what is odd, and compare three
            episodes value by value with what is read again.
        clip_actions: accept actions far out of bounds; actions are clipped in any case.
        on_nonfinite: ``"drop_episode"`` leaves out episodes with NaN or infinite values instead of stopping.
        unmarked_ends: ``"truncate"`` accepts data in which no episode end is marked: each is a truncation.
        reset_steps: ``"drop"`` leaves out the first step of episodes in which the environment was reset instead of
            acting, see :class:`~o3f.data.reset_steps.SharedStarts`.
        rewards: for FrankaKitchen, ``"tasks_once"`` rewards each task when it is first done, ``"tasks_counted"`` every
            step with the number of tasks that are done; both end the episode with the last one, see
            :class:`~o3f.data.kitchen.KitchenTasks`. ``reward`` applies after that; counts go with its ``running_sum``
            for what is played.
        generator: source of the draws; ``None`` is torch's global stream.

    Raises:
        FileNotFoundError: if the dataset is not in the folder; the message says how to get it.
        OSError: if the disk has no room for ``storage="memmap"``.
        RuntimeError: if the dataset's files are damaged, or the rows are not what they hold.
        ValueError: at faults of the data, or arguments that do not fit together.
    """
    check_storage(storage, storage_dir)
    return load_rows(
        open_dataset(dataset_id, download=download, root=root),
        batch_size=batch_size,
        reward=reward,
        observation_keys=observation_keys,
        action_scale=action_scale,
        online_capacity=online_capacity,
        online_fraction=online_fraction,
        balanced=balanced,
        return_discount=return_discount,
        storage=storage,
        storage_dir=storage_dir,
        max_transitions=max_transitions,
        check=check,
        clip_actions=clip_actions,
        on_nonfinite=on_nonfinite,
        unmarked_ends=unmarked_ends,
        reset_steps=reset_steps,
        rewards=rewards,
        generator=generator,
    )
