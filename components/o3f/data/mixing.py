"""How offline and online rows share one buffer: where rows are written, and which are drawn."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import RandomSampler, RoundRobinWriter

from o3f.data.rows import RETURN_KEY, ROW_KEYS, Key
from o3f.errors import number

Form = tuple[torch.Size, torch.dtype]


class OnlineWriter(RoundRobinWriter):
    """Writes new rows round and round behind the first ``num_offline`` rows, which it never touches.

    Of the data given it keeps exactly the row keys, so a collector's extra keys do no harm; any batch shape
    is taken and flattened. It works with every TorchRL storage of one dimension.

    Args:
        num_offline: number of rows at the start of the storage that belong to the dataset.
        returns: rows carry a return, see :func:`select_rows`.
    """

    _storage: Any

    def __init__(self, num_offline: int, returns: bool = False) -> None:
        super().__init__()
        self.num_offline = num_offline
        self.returns = returns
        self._cursor = num_offline
        self._form: dict[Key, Form] = {}  # of a row stored, by key

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
            ValueError: if a value has another shape or type than in the rows that are there.
        """
        if self.capacity <= 0:
            raise RuntimeError("This buffer has no room for online rows. Make it with online_capacity > 0.")
        rows = select_rows(data, self.returns)
        if not len(rows):
            return torch.zeros(0, dtype=torch.int64)
        self._check_form(rows)
        count, kept = len(rows), min(len(rows), self.capacity)
        start = self._cursor - self.num_offline
        index = self.num_offline + torch.arange(start + count - kept, start + count) % self.capacity
        self._cursor = self.num_offline + (start + count) % self.capacity
        self._write_count += count
        self._storage.set(index, rows if kept == count else rows[-kept:])
        self._mark_update_entities(index)
        return index

    def _check_form(self, rows: TensorDictBase) -> None:
        """What is too narrow would be written into every column."""
        if not self._form:
            first: Any = self._storage.get(0) if len(self._storage) else rows[0]
            self._form = {key: (first[key].shape, first[key].dtype) for key in ROW_KEYS}
        for key, (shape, dtype) in self._form.items():
            found = rows[key]
            if found.shape[1:] != shape or found.dtype != dtype:
                raise ValueError(
                    f"{key!r} of the rows is {found.dtype} {list(found.shape)}, expected {dtype} [{len(rows)}, "
                    f"{', '.join(map(str, shape))}] as in the rows of this buffer. Reshape or convert it first."
                )

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
        check_fraction(online_fraction)
        self.num_offline = num_offline
        self.online_fraction = online_fraction

    def sample(self, storage: Any, batch_size: int) -> tuple[Tensor, dict[str, Any]]:
        """Draw ``batch_size`` indices, the dataset's first where a share is fixed.

        Raises:
            RuntimeError: if the buffer is empty.
        """
        stored = len(storage)
        if stored == 0:
            raise RuntimeError("The buffer is empty: nothing to sample. Load a dataset or collect transitions first.")
        if self.online_fraction is None or self.num_offline in (0, stored):
            return self._draw(0, stored, batch_size), {}
        count = num_online(batch_size, self.online_fraction)
        offline = self._draw(0, self.num_offline, batch_size - count)
        return torch.cat([offline, self._draw(self.num_offline, stored, count)]), {}

    def _draw(self, low: int, high: int, count: int) -> Tensor:
        return torch.randint(low, high, (count,), generator=self._rng)


def check_fraction(online_fraction: float | None) -> None:
    """Check a share of a batch.

    Raises:
        ConfigError: (a ValueError) if it is neither None nor in [0, 1].
    """
    if online_fraction is not None:
        number("online_fraction", online_fraction, "[0, 1]")


def num_online(batch_size: int, online_fraction: float) -> int:
    """Return how many rows of a batch are online ones: the share of it, rounded down.

    Examples:
        >>> num_online(100, 0.29), num_online(16, 0.05)
        (29, 0)
    """
    return int(batch_size * online_fraction + 1e-6)  # the small term undoes rounding: 100 * 0.29 is 28.999...


def select_rows(data: TensorDictBase, returns: bool = False) -> TensorDictBase:
    """Keep the row keys of data ``[*B]``, flattened to ``[D]``.

    Args:
        data: with these keys, and any others.
        returns: keep the return, too; -inf, which bounds nothing, where there is none yet.

    Raises:
        KeyError: if one is missing.
        TypeError: if it is no TensorDict.
    """
    if not isinstance(data, TensorDictBase):
        raise TypeError(f"Rows must be a TensorDict [D], got {type(data).__name__}: give TensorDict(rows, [D]).")
    try:
        rows = data.select(*ROW_KEYS)
    except KeyError as error:
        found = sorted(map(str, data.keys(include_nested=True, leaves_only=True)))
        raise KeyError(f"Rows need exactly the keys {list(ROW_KEYS)}; found {found}.") from error
    if returns:
        unknown = torch.full_like(rows["next", "reward"], -torch.inf)
        rows = rows.copy().set(RETURN_KEY, data.get(RETURN_KEY, unknown))
    return rows if rows.ndim == 1 else rows.reshape(-1)
