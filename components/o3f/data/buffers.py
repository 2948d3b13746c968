"""Replay buffer whose first rows are a dataset that is never overwritten, followed by online rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import LazyTensorStorage, RandomSampler, ReplayBuffer, RoundRobinWriter, TensorStorage

from o3f.data.rows import ROW_KEYS, allocate_rows


class OnlineWriter(RoundRobinWriter):
    """Writes new rows round and round behind the first ``num_offline`` rows, which it never touches.

    Of the data given it keeps exactly the row keys, so a collector's extra keys do no harm; any batch shape
    is taken and flattened. It works with every TorchRL storage of one dimension.

    Args:
        num_offline: number of rows at the start of the storage that belong to the dataset.
    """

    _storage: Any

    def __init__(self, num_offline: int) -> None:
        super().__init__()
        self.num_offline = num_offline
        self._cursor = num_offline

    @property
    def capacity(self) -> int:
        """How many online rows fit before the oldest of them is replaced."""
        return int(self._storage.max_size) - self.num_offline

    def add(self, data: Any) -> int:
        """Write one row and return its index.

        Raises:
            KeyError: if a row key is missing.
            RuntimeError: if the buffer has no room for online rows.
        """
        return int(self.extend(data)[-1])

    def extend(self, data: Any) -> Tensor:
        """Write rows ``[*B]`` and return their indices; of more rows than fit, the last ones are kept.

        Raises:
            KeyError: if a row key is missing.
            RuntimeError: if the buffer has no room for online rows.
        """
        if self.capacity <= 0:
            raise RuntimeError("This buffer has no room for online rows. Make it with online_capacity > 0.")
        rows = _select_rows(data)
        count, kept = len(rows), min(len(rows), self.capacity)
        start = self._cursor - self.num_offline
        index = self.num_offline + torch.arange(start + count - kept, start + count) % self.capacity
        self._cursor = self.num_offline + (start + count) % self.capacity
        self._write_count += count
        self._storage.set(index, rows if kept == count else rows[-kept:])
        self._mark_update_entities(index)
        return index

    def _empty(self, empty_write_count: bool = True) -> None:
        if self.num_offline:
            raise RuntimeError("Emptying this buffer would drop its dataset. Make a new buffer instead.")
        super()._empty(empty_write_count)


class OfflineOnlineSampler(RandomSampler):
    """Draws uniformly, with replacement, from the union of dataset and online rows, or a fixed share of each.

    The buffer's generator is used where one is given, torch's global stream otherwise.

    Args:
        num_offline: number of dataset rows at the start of the storage.
        online_fraction: share of each batch drawn from the online rows, rounded down to whole rows; all rows
            come from the dataset while nothing is online, and from online when there is no dataset. ``None``
            (default) draws from the union, where every row is equally likely.

    Raises:
        ValueError: if the fraction is outside [0, 1].
    """

    def __init__(self, num_offline: int, online_fraction: float | None = None) -> None:
        super().__init__()
        if online_fraction is not None and not 0.0 <= online_fraction <= 1.0:
            raise ValueError(f"online_fraction is {online_fraction}, expected None or a value in [0, 1].")
        self.num_offline = num_offline
        self.online_fraction = online_fraction

    def sample(self, storage: Any, batch_size: int) -> tuple[Tensor, dict[str, Any]]:
        """Draw ``batch_size`` indices, the dataset's first where a share is fixed.

        Raises:
            RuntimeError: if the buffer is empty.
        """
        stored = len(storage)
        if stored == 0:
            raise RuntimeError(
                "The buffer is empty: nothing to sample. Load a dataset or collect transitions first."
            )
        if self.online_fraction is None or self.num_offline in (0, stored):
            return self._draw(0, stored, batch_size), {}
        # The small term undoes rounding such as 100 * 0.29 = 28.999...
        num_online = int(batch_size * self.online_fraction + 1e-6)
        offline = self._draw(0, self.num_offline, batch_size - num_online)
        return torch.cat([offline, self._draw(self.num_offline, stored, num_online)]), {}

    def _draw(self, low: int, high: int, count: int) -> Tensor:
        return torch.randint(low, high, (count,), generator=self._rng)


def make_buffer(
    offline: TensorDictBase | None,
    *,
    online_capacity: int = 0,
    online_fraction: float | None = None,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
) -> ReplayBuffer:
    """Make a replay buffer from a copy of dataset rows and room for online ones.

    Args:
        offline: dataset rows ``[D]`` with the keys of :data:`~o3f.data.rows.ROW_KEYS`; ``None`` for a buffer
            that is online from scratch.
        online_capacity: number of online rows kept; the oldest is replaced first, dataset rows never are.
        online_fraction: see :class:`OfflineOnlineSampler`.
        batch_size: rows a sample, 256 as in IQL.
        generator: source of the draws, saved with the buffer; ``None`` is torch's global stream.

    Raises:
        KeyError: if a row key is missing.
        ValueError: if there is neither a dataset nor room for online rows.

    Examples:
        >>> from o3f.data.rows import allocate_rows
        >>> buffer = make_buffer(allocate_rows(100, 3, 2), online_capacity=50, batch_size=8)
        >>> len(buffer), buffer.sample()["observation"].shape
        (100, torch.Size([8, 3]))
    """
    if offline is None:
        if online_capacity <= 0:
            raise ValueError("A buffer without a dataset needs online_capacity > 0.")
        return _assemble(LazyTensorStorage(online_capacity), 0, online_fraction, batch_size, generator)
    dataset = _select_rows(offline)
    num_offline = len(dataset)
    rows = allocate_rows(
        num_offline + online_capacity, dataset["observation"].shape[-1], dataset["action"].shape[-1]
    )
    rows[:num_offline].copy_(dataset)
    return buffer_over(
        rows, num_offline, online_fraction=online_fraction, batch_size=batch_size, generator=generator
    )


def buffer_over(
    rows: TensorDictBase,
    num_offline: int,
    *,
    online_fraction: float | None = None,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
) -> ReplayBuffer:
    """Like :func:`make_buffer`, over rows that are there already and are not copied.

    Args:
        rows: ``[D + online_capacity]``, for instance from :func:`~o3f.data.rows.allocate_rows`.
        num_offline: ``D``, the number of rows at the start that are filled with the dataset.
        online_fraction: see :class:`OfflineOnlineSampler`.
        batch_size: rows a sample.
        generator: source of the draws.
    """
    storage = TensorStorage(rows)
    _set_length(storage, num_offline)
    return _assemble(storage, num_offline, online_fraction, batch_size, generator)


def online_rows(buffer: ReplayBuffer) -> dict[str, Any]:
    """Everything a checkpoint must hold of a buffer whose dataset rows can be loaded again.

    Returns:
        Copies as plain numbers, tensors and nested dicts: ``cursor``, ``written``, ``capacity``, ``rows``
        ``[N]`` in storage order if there are any, and the state of the ``generator`` if the buffer was
        given one.
    """
    writer, generator = _online_writer(buffer), buffer.sampler._rng
    state: dict[str, Any] = {
        "cursor": writer.state_dict()["_cursor"],
        "written": buffer.write_count,
        "capacity": writer.capacity,
    }
    if len(buffer) > writer.num_offline:
        state["rows"] = buffer[writer.num_offline : len(buffer)].clone().to_dict()
    if generator is not None:
        state["generator"] = generator.get_state()
    return state


def restore_online(buffer: ReplayBuffer, state: Mapping[str, Any]) -> None:
    """Put the result of :func:`online_rows` back, into a buffer made from the same dataset and config.

    Afterwards rows, cursor and (where the buffer has a generator of its own) all further draws are those of
    the buffer that was saved.

    Raises:
        ValueError: if the capacity or the use of a generator differs from the saved buffer's.
    """
    writer, generator = _online_writer(buffer), buffer.sampler._rng
    if state["capacity"] != writer.capacity:
        raise ValueError(
            f"The saved buffer has room for {state['capacity']} online rows, this one for {writer.capacity}."
            " Resume with the same online_capacity."
        )
    if (generator is None) != ("generator" not in state):
        raise ValueError(
            "Only one of the saved and the present buffer has a generator. Give it to both or none."
        )
    _set_length(buffer.storage, writer.num_offline)
    writer.load_state_dict({"_cursor": writer.num_offline, "_write_count": 0})
    if "rows" in state:
        writer.extend(TensorDict(state["rows"], batch_size=[len(state["rows"]["action"])]))
    writer.load_state_dict({"_cursor": state["cursor"], "_write_count": state["written"]})
    if generator is not None:
        generator.set_state(state["generator"])


def _select_rows(data: TensorDictBase) -> TensorDictBase:
    try:
        return data.select(*ROW_KEYS).reshape(-1)
    except KeyError as error:
        found = sorted(map(str, data.keys(include_nested=True, leaves_only=True)))
        raise KeyError(f"Rows need exactly the keys {list(ROW_KEYS)}; found {found}.") from error


def _assemble(
    storage: TensorStorage,
    num_offline: int,
    online_fraction: float | None,
    batch_size: int,
    generator: torch.Generator | None,
) -> ReplayBuffer:
    return ReplayBuffer(
        storage=storage,
        sampler=OfflineOnlineSampler(num_offline, online_fraction),
        writer=OnlineWriter(num_offline),
        batch_size=batch_size,
        generator=generator,
    )


def _set_length(storage: Any, length: int) -> None:
    # TorchRL counts a storage made from tensors as full and has no public way to say that its end is free.
    storage._len = length


def _online_writer(buffer: ReplayBuffer) -> OnlineWriter:
    writer = buffer.writer
    if not isinstance(writer, OnlineWriter):
        raise ValueError(f"The buffer's writer is {type(writer).__name__}, expected one made by make_buffer.")
    return writer
