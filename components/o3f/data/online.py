"""The online rows of a buffer: saved and restored beside a dataset that can be loaded again, ended, given returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.data import ReplayBuffer

from o3f.data.balancing import BalancedSampler
from o3f.data.buffers import RowsBuffer, set_length
from o3f.data.mixing import OnlineWriter
from o3f.data.rows import RETURN_KEY


def online_rows(buffer: ReplayBuffer) -> dict[str, Any]:
    """Everything a checkpoint must hold of a buffer whose dataset rows can be loaded again.

    Returns:
        Copies as plain numbers, tensors and nested dicts: ``cursor``, ``written``, ``capacity``, ``rows``
        ``[N]`` in storage order if there are any, the state of the ``generator`` if the buffer was given one, and
        that of the ``sampler`` if it weighs rows.
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
    if isinstance(buffer.sampler, BalancedSampler):
        state["sampler"] = buffer.sampler.state_dict()
    return state


def restore_online(buffer: ReplayBuffer, state: Mapping[str, Any]) -> None:
    """Put the result of :func:`online_rows` back, into a buffer made from the same dataset and config.

    Afterwards rows, cursor and (where the buffer has a generator of its own) all further draws are those of
    the buffer that was saved.

    Raises:
        ValueError: if the capacity or the use of a generator differs from the saved buffer's.
    """
    writer, generator = _online_writer(buffer), buffer.sampler._rng
    if missing := [name for name in ("capacity", "cursor", "written") if name not in state]:
        raise ValueError(f"The state has no {missing[0]!r}, but {list(state)}: expected what online_rows returned.")
    if state["capacity"] != writer.capacity:
        raise ValueError(
            f"The saved buffer has room for {state['capacity']} online rows, this one for {writer.capacity}."
            " Resume with the same online_capacity (online.steps of a run)."
        )
    if (generator is None) != ("generator" not in state):
        raise ValueError("Only one of the saved and the present buffer has a generator. Give it to both or none.")
    set_length(buffer.storage, writer.num_offline)
    writer.load_state_dict({"_cursor": writer.num_offline, "_write_count": 0})
    if "rows" in state:
        writer.extend(TensorDict(state["rows"], batch_size=[len(state["rows"]["action"])]))
    writer.load_state_dict({"_cursor": state["cursor"], "_write_count": state["written"]})
    if isinstance(buffer.sampler, BalancedSampler):
        buffer.sampler.load_state_dict(state["sampler"])
    if generator is not None:
        generator.set_state(state["generator"])


def end_episode(buffer: ReplayBuffer, age: int = 0) -> None:
    """Mark an online row as the end of a truncated episode, which keeps its bootstrap.

    For an episode that has no next step, because the environment failed. Nothing happens where the row is an
    episode's end already, or where it is there no more, or not yet.

    Args:
        buffer: made by :func:`make_buffer`.
        age: rows written after it; 0 is the newest one, as where there is one environment only.
    """
    writer = _online_writer(buffer)
    if age >= min(buffer.write_count, writer.capacity):
        return
    row: Any = buffer.storage.get(_index_of(writer, age))  # a view
    if not row["next", "done"]:
        for key in ("done", "truncated"):
            row["next", key].fill_(True)


def store_returns(buffer: ReplayBuffer, ages: Sequence[int]) -> None:
    """Write the returns of an episode that has ended into its online rows; nothing where rows carry none.

    Args:
        buffer: made by :func:`make_buffer`.
        ages: of its rows, the first step's first: how many rows were written after each. Rows that are there no more
            are passed over.
    """
    rule = buffer.return_rule if isinstance(buffer, RowsBuffer) else None
    if rule is None:
        return
    writer = _online_writer(buffer)
    kept = min(buffer.write_count, writer.capacity)
    index = torch.tensor([_index_of(writer, age) for age in ages if age < kept], dtype=torch.int64)
    if len(index):
        storage: Any = buffer.storage
        stored = storage.get(slice(None))  # a view
        following = stored["next"][index]
        returns = rule(following["reward"].flatten(), bool(following["terminated"][-1]))
        stored[RETURN_KEY][index] = returns.unsqueeze(-1)


def _index_of(writer: OnlineWriter, age: int) -> int:
    cursor = writer.state_dict()["_cursor"]
    return int(writer.num_offline + (cursor - writer.num_offline - 1 - age) % writer.capacity)


def _online_writer(buffer: ReplayBuffer) -> OnlineWriter:
    writer = buffer.writer
    if not isinstance(writer, OnlineWriter):
        raise ValueError(f"The buffer's writer is {type(writer).__name__}, expected one made by make_buffer.")
    return writer
