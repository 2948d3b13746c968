"""Dataset rows are never evicted, draws follow the stated distribution, a restored buffer continues exactly."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from o3f.data import ROW_KEYS, hash_rows, make_buffer, online_rows, restore_online
from o3f.data.rows import allocate_rows
from tests.support.rows import make_rows


def numbers(data: Any) -> list[int]:
    return [int(value) for value in data["next", "reward"].squeeze(-1)]


def flat(state: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in state.items():
        out |= {f"{key}.{k}": v for k, v in flat(value).items()} if isinstance(value, Mapping) else {key: value}
    return out


def same_state(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    left, right = flat(one), flat(other)
    return left.keys() == right.keys() and all(
        torch.equal(left[key], right[key]) if isinstance(left[key], Tensor) else left[key] == right[key] for key in left
    )


def test_rows_have_exactly_the_row_keys_whatever_a_collector_adds() -> None:
    buffer = make_buffer(make_rows(4), online_capacity=4, batch_size=5)
    collected = make_rows(2, first=100)
    collected["collector"] = torch.zeros(2, 1)
    collected["next", "info"] = torch.zeros(2, 1)
    buffer.extend(collected)
    batch = buffer.sample()
    assert set(batch.keys(include_nested=True, leaves_only=True)) == set(ROW_KEYS)
    assert batch["next", "terminated"].shape == (5, 1)
    assert batch["observation"].dtype == torch.float32
    assert numbers(buffer[:]) == [0, 1, 2, 3, 100, 101]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    num_offline=st.integers(0, 5),
    capacity=st.integers(1, 6),
    writes=st.lists(st.integers(0, 9), max_size=8),
)
def test_online_rows_go_round_behind_the_dataset(num_offline: int, capacity: int, writes: list[int]) -> None:
    buffer = make_buffer(make_rows(num_offline) if num_offline else None, online_capacity=capacity)
    slots: list[int | None] = [None] * capacity
    written = 0
    for count in writes:
        index = buffer.extend(make_rows(count, first=1000 + written))
        for number in range(written, written + count):
            slots[number % capacity] = 1000 + number
        written += count
        assert index.tolist() == [
            num_offline + number % capacity for number in range(written - min(count, capacity), written)
        ]
        stored = numbers(buffer[:]) if len(buffer) else []
        assert stored == list(range(num_offline)) + [slot for slot in slots if slot is not None]
    assert buffer.write_count == written


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_offline=st.integers(0, 5),
    capacity=st.integers(1, 6),
    fraction=st.none() | st.floats(0, 1),
    batch_size=st.integers(1, 40),
    moves=st.lists(st.sampled_from(["write", "sample", "save", "restore"]), max_size=12),
)
def test_any_course_of_writing_sampling_and_restoring(
    num_offline: int, capacity: int, fraction: float | None, batch_size: int, moves: list[str]
) -> None:
    """Against a list of numbers: what is stored, what is drawn and how much of it, what a saved state brings back."""
    buffer = make_buffer(
        make_rows(num_offline) if num_offline else None,
        online_capacity=capacity,
        online_fraction=fraction,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(0),
    )
    slots: dict[int, int] = {}
    written, saved = 0, None
    for move in moves:
        online = set(slots.values())
        if move == "write":
            buffer.extend(make_rows(1, first=1000 + written))
            slots[written % capacity] = 1000 + written
            written += 1
        elif move == "sample" and len(buffer):
            drawn = numbers(buffer.sample())
            assert len(drawn) == batch_size
            assert set(drawn) <= set(range(num_offline)) | online
            if fraction is not None and online and num_offline:
                assert sum(number in online for number in drawn) == int(batch_size * fraction + 1e-6)
        elif move == "save":
            saved = copy.deepcopy((online_rows(buffer), slots, written))
        elif move == "restore" and saved is not None:
            state, slots, written = copy.deepcopy(saved)
            restore_online(buffer, state)
            assert same_state(online_rows(buffer), state)
        stored = numbers(buffer[:]) if len(buffer) else []
        assert stored == list(range(num_offline)) + [slots[index] for index in sorted(slots)]


def test_one_row_at_a_time_and_any_batch_shape() -> None:
    buffer = make_buffer(make_rows(2), online_capacity=3)
    assert [buffer.add(row) for row in make_rows(4, first=10)] == [2, 3, 4, 2]
    assert numbers(buffer[:]) == [0, 1, 13, 11, 12]
    buffer.extend(make_rows(2, first=20).reshape(2, 1))
    assert numbers(buffer[:]) == [0, 1, 13, 20, 21]


def test_the_dataset_given_is_copied() -> None:
    dataset = make_rows(3)
    buffer = make_buffer(dataset, online_capacity=1)
    dataset["next", "reward"].fill_(-1.0)
    assert numbers(buffer[:]) == [0, 1, 2]


def test_union_is_uniform_over_offline_and_online_rows() -> None:
    buffer = make_buffer(
        make_rows(30), online_capacity=20, batch_size=50_000, generator=torch.Generator().manual_seed(0)
    )
    buffer.extend(make_rows(10, first=30))  # 10 of 20 slots: the free ones must never be drawn
    counts = torch.bincount(torch.tensor(numbers(buffer.sample())), minlength=40)
    assert len(counts) == 40
    error = math.sqrt(50_000 * (1 / 40) * (39 / 40))
    assert (counts - 50_000 / 40).abs().max() < 4.5 * error


@pytest.mark.parametrize(
    ("fraction", "batch_size", "expected"),
    [(0.5, 256, 128), (0.5, 255, 127), (0.29, 100, 29), (0.0, 10, 0), (1.0, 10, 10), (0.05, 10, 0)],
)
def test_a_fixed_fraction_is_exact(fraction: float, batch_size: int, expected: int) -> None:
    buffer = make_buffer(make_rows(30), online_capacity=5, online_fraction=fraction, batch_size=batch_size)
    assert max(numbers(buffer.sample())) < 30  # nothing is online yet
    buffer.extend(make_rows(5, first=1000))
    for _ in range(3):
        drawn = numbers(buffer.sample())
        assert sum(number >= 1000 for number in drawn) == expected
        assert len(drawn) == batch_size


def test_a_fixed_fraction_is_uniform_within_each_part() -> None:
    generator = torch.Generator().manual_seed(1)
    buffer = make_buffer(make_rows(10), online_capacity=4, online_fraction=0.25, batch_size=40_000, generator=generator)
    buffer.extend(make_rows(4, first=10))
    counts = torch.bincount(torch.tensor(numbers(buffer.sample()))).double()
    offline_error, online_error = math.sqrt(30_000 * 0.1 * 0.9), math.sqrt(10_000 * 0.25 * 0.75)
    assert (counts[:10] - 3_000).abs().max() < 4.5 * offline_error
    assert (counts[10:] - 2_500).abs().max() < 4.5 * online_error


def test_without_a_dataset_every_row_is_online() -> None:
    buffer = make_buffer(None, online_capacity=4, online_fraction=0.5, batch_size=64)
    with pytest.raises(RuntimeError, match="buffer is empty"):
        buffer.sample()
    buffer.extend(make_rows(6))
    assert set(numbers(buffer.sample())) == {2, 3, 4, 5}


def test_generator_makes_draws_reproducible_and_leaves_the_global_stream_alone() -> None:
    def draws(seed: int) -> list[int]:
        buffer = make_buffer(make_rows(99), batch_size=32, generator=torch.Generator().manual_seed(seed))
        return numbers(buffer.sample()) + numbers(buffer.sample())

    before = torch.get_rng_state()
    assert draws(3) == draws(3) != draws(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    buffer = make_buffer(make_rows(99), batch_size=32)
    first = numbers(buffer.sample())
    torch.manual_seed(7)
    assert numbers(buffer.sample()) == first


def test_state_dict_round_trip_continues_the_draws_and_the_writing() -> None:
    saved = make_buffer(make_rows(5), online_capacity=4, batch_size=16, generator=torch.Generator().manual_seed(0))
    saved.extend(make_rows(6, first=100))
    saved.sample()
    state = copy.deepcopy(saved.state_dict())
    other = make_buffer(make_rows(5, first=50), online_capacity=4, batch_size=16, generator=torch.Generator())
    other.load_state_dict(state)
    for buffer in (saved, other):
        buffer.extend(make_rows(1, first=200))
    assert numbers(saved[:]) == numbers(other[:]) == [0, 1, 2, 3, 4, 104, 105, 200, 103]
    assert numbers(saved.sample()) == numbers(other.sample())


@pytest.mark.parametrize("num_offline", [0, 5])
@pytest.mark.parametrize("written", [0, 3, 4, 11])
@pytest.mark.parametrize("own_generator", [True, False])
def test_restored_online_rows_are_bit_equal_and_continue_alike(
    num_offline: int, written: int, own_generator: bool
) -> None:
    def new_buffer(seed: int) -> Any:
        dataset = make_rows(num_offline) if num_offline else None
        generator = torch.Generator().manual_seed(seed) if own_generator else None
        return make_buffer(dataset, online_capacity=4, batch_size=8, generator=generator)

    saved = new_buffer(0)
    if written:
        saved.extend(make_rows(written, first=100))
    if num_offline:
        saved.sample()
    state = online_rows(saved)
    restored = new_buffer(1)
    restored.extend(make_rows(2, first=500))  # what was there must go
    restore_online(restored, copy.deepcopy(state))

    assert same_state(online_rows(restored), state)
    assert len(restored) == len(saved)
    assert restored.write_count == saved.write_count == written
    for step in range(6):
        global_state = torch.get_rng_state()
        drawn = []
        for buffer in (saved, restored):
            torch.set_rng_state(global_state)
            buffer.extend(make_rows(1, first=200 + step))
            drawn.append(numbers(buffer.sample()))
        assert drawn[0] == drawn[1]
    assert hash_rows(saved[:]) == hash_rows(restored[:])


def test_saved_online_rows_are_copies() -> None:
    buffer = make_buffer(make_rows(2), online_capacity=2)
    buffer.extend(make_rows(2, first=100))
    state = online_rows(buffer)
    buffer.extend(make_rows(2, first=200))
    assert state["rows"]["next"]["reward"].tolist() == [[100.0], [101.0]]


def test_restoring_into_another_kind_of_buffer_is_refused() -> None:
    state = online_rows(make_buffer(make_rows(2), online_capacity=3))
    with pytest.raises(ValueError, match="room for 3 online rows, this one for 4"):
        restore_online(make_buffer(make_rows(2), online_capacity=4), state)
    with pytest.raises(ValueError, match="generator"):
        restore_online(make_buffer(make_rows(2), online_capacity=3, generator=torch.Generator()), state)


def test_mistakes_are_named() -> None:
    buffer = make_buffer(make_rows(2))
    with pytest.raises(RuntimeError, match="online_capacity > 0"):
        buffer.extend(make_rows(1))
    with pytest.raises(RuntimeError, match="would drop its dataset"):
        buffer.empty()
    assert numbers(buffer[:]) == [0, 1]
    with pytest.raises(KeyError, match="Rows need exactly the keys"):
        make_buffer(make_rows(2), online_capacity=1).extend(make_rows(1).exclude("action"))
    with pytest.raises(ValueError, match="online_capacity > 0"):
        make_buffer(None)
    with pytest.raises(ValueError, match=r"online_fraction must be a number in"):
        make_buffer(make_rows(2), online_fraction=1.5)


@pytest.mark.parametrize("key", ["observation", "action", ("next", "reward")])
def test_rows_of_another_shape_or_type_are_not_spread_over_the_columns(key: Any) -> None:
    buffer = make_buffer(allocate_rows(4, 3, 2), online_capacity=5)
    row = allocate_rows(1, 3, 2).unlock_()
    width = row[key].shape[-1]
    buffer.extend(row)
    for wrong in (torch.ones(1, width + 1), torch.ones(1, 1 if width > 1 else 2), torch.ones(1, width).double()):
        with pytest.raises(
            ValueError, match=rf"of the rows is {wrong.dtype} \[1, .*expected torch.float32 \[1, {width}\]"
        ):
            buffer.extend(row.clone().set(key, wrong))
    assert len(buffer) == 5
    assert buffer[4][key].count_nonzero() == 0
