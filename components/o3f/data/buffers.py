"""Replay buffer whose first rows are a dataset that is never overwritten, followed by online rows."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.data import LazyTensorStorage, ReplayBuffer, TensorStorage

from o3f.data.balancing import BalancedSampler
from o3f.data.info import DatasetInfo
from o3f.data.mixing import OfflineOnlineSampler, OnlineWriter, select_rows
from o3f.data.returns import ReturnRule
from o3f.data.rows import ROW_KEYS, allocate_rows
from o3f.modules.arguments import check_switches, whole_number
from o3f.modules.noise_source import NoiseSource


class RowsBuffer(ReplayBuffer):
    """TorchRL's buffer, knowing the dataset that it holds.

    Attributes:
        dataset_info: what was recorded about the dataset, None where the rows were not read from one.
        return_rule: what the returns are that its rows carry, None where they carry none.
    """

    dataset_info: DatasetInfo | None = None
    return_rule: ReturnRule | None = None


def make_buffer(
    offline: TensorDictBase | None,
    *,
    online_capacity: int = 0,
    online_fraction: float | None = None,
    balanced: bool = False,
    return_rule: ReturnRule | None = None,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
) -> RowsBuffer:
    """Make a replay buffer from a copy of dataset rows and room for online ones.

    Args:
        offline: dataset rows ``[D]`` with the keys of :data:`~o3f.data.rows.ROW_KEYS`; ``None`` for a buffer
            that is online from scratch.
        online_capacity: number of online rows kept; the oldest is replaced first, dataset rows never are.
        online_fraction: see :class:`~o3f.data.mixing.OfflineOnlineSampler`.
        balanced: draw with a :class:`~o3f.data.balancing.BalancedSampler`, which ``online_fraction`` is for then.
        return_rule: rows carry these returns as ``"return_to_go"``; None carries none.
        batch_size: rows a sample, 256 as in IQL.
        generator: source of the draws, saved with the buffer; ``None`` is torch's global stream.

    Raises:
        KeyError: if a row key is missing.
        TypeError: if ``return_rule`` is no rule, or ``offline`` no TensorDict.
        ValueError: if there is neither a dataset nor room for online rows, a size is no whole number, or the rows'
            entries have not the shapes that rows have.

    Examples:
        >>> from o3f.data.rows import allocate_rows
        >>> buffer = make_buffer(allocate_rows(100, 3, 2), online_capacity=50, batch_size=8)
        >>> len(buffer), buffer.sample()["observation"].shape
        (100, torch.Size([8, 3]))
    """
    check_sizes(batch_size, online_capacity)
    check_switches(balanced=balanced)
    if not (return_rule is None or isinstance(return_rule, ReturnRule)):
        raise TypeError(
            f"return_rule must be a ReturnRule or None, got {return_rule!r}: ReturnRule.of(rows, discount)."
        )
    if offline is None:
        if online_capacity <= 0:
            raise ValueError("A buffer without a dataset needs online_capacity > 0.")
        if balanced:
            raise ValueError("balanced=True weighs a dataset's rows; without a dataset leave it out.")
        sampler = OfflineOnlineSampler(0, online_fraction)
        return _assemble(LazyTensorStorage(online_capacity), sampler, return_rule, batch_size, generator)
    dataset = select_rows(offline)
    _check_rows(dataset)
    num_offline, carries = len(dataset), return_rule is not None
    sizes = (num_offline + online_capacity, dataset["observation"].shape[-1], dataset["action"].shape[-1])
    rows = allocate_rows(*sizes, returns=carries)
    filled: Any = rows[:num_offline]  # a view
    filled.update_(dataset)
    if return_rule is not None:
        return_rule.fill(filled)
    return buffer_over(
        rows,
        num_offline,
        online_fraction=online_fraction,
        balanced=balanced,
        return_rule=return_rule,
        batch_size=batch_size,
        generator=generator,
    )


def check_sizes(batch_size: Any, online_capacity: Any) -> None:
    """Check the sizes of a buffer.

    Raises:
        ValueError: if one is no whole number, or too small.
    """
    whole_number("batch_size", batch_size)
    whole_number("online_capacity", online_capacity, least=0)


def _check_rows(rows: TensorDictBase) -> None:
    """Check the shapes of a dataset's rows ``[D]``: what is too narrow would be written into every column.

    Raises:
        ValueError: naming the entry.
    """
    if not len(rows):
        raise ValueError("The dataset has no rows. Give some, or None for a buffer that is online from scratch.")
    widths = {key: 1 for key in ROW_KEYS}
    for name in ("observation", "action"):
        if rows[name].ndim != 2:
            raise ValueError(f"{name!r} of the rows is {list(rows[name].shape)}, expected [{len(rows)}, n].")
        widths[name] = rows[name].shape[-1]
    widths["next", "observation"] = widths["observation"]
    for key, width in widths.items():
        if rows[key].shape != (len(rows), width):
            raise ValueError(f"{key!r} of the rows is {list(rows[key].shape)}, expected [{len(rows)}, {width}].")


def buffer_over(
    rows: TensorDictBase,
    num_offline: int,
    *,
    online_fraction: float | None = None,
    balanced: bool = False,
    return_rule: ReturnRule | None = None,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
) -> RowsBuffer:
    """Like :func:`make_buffer`, over rows that are there already and are not copied.

    Args:
        rows: ``[D + online_capacity]``, for instance from :func:`~o3f.data.rows.allocate_rows`.
        num_offline: ``D``, the number of rows at the start that are filled with the dataset.
        online_fraction: see :class:`~o3f.data.mixing.OfflineOnlineSampler`.
        balanced: as there.
        return_rule: as there; the dataset's rows have their returns.
        batch_size: rows a sample.
        generator: source of the draws.
    """
    storage = TensorStorage(rows)
    set_length(storage, num_offline)
    sampler: OfflineOnlineSampler = OfflineOnlineSampler(num_offline, online_fraction)
    if balanced:
        sampler = BalancedSampler(rows, num_offline, online_fraction)
    return _assemble(storage, sampler, return_rule, batch_size, generator)


def _assemble(
    storage: TensorStorage,
    sampler: OfflineOnlineSampler,
    return_rule: ReturnRule | None,
    batch_size: int,
    generator: torch.Generator | None,
) -> RowsBuffer:
    NoiseSource(generator)  # refuses a seed
    buffer = RowsBuffer(
        storage=storage,
        sampler=sampler,
        writer=OnlineWriter(sampler.num_offline, return_rule is not None),
        batch_size=batch_size,
        generator=generator,
    )
    buffer.return_rule = return_rule
    return buffer


def set_length(storage: Any, length: int) -> None:
    """Say how many rows at the start of a storage are filled."""
    # TorchRL counts a storage made from tensors as full and has no public way to say that its end is free.
    storage._len = length
