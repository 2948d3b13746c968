"""Every value of the buffer equals what Minari itself reads; nothing is downloaded unasked."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict

from o3f.data import (
    ROW_KEYS,
    RewardRule,
    dataset_info,
    load_minari,
    make_buffer,
    observation_layout,
    read_minari,
)
from tests.support.minari_datasets import datasets_folder, make_episodes, stack, write_dataset

CHEETAH = {
    "observation_space": Box(-np.inf, np.inf, (17,), np.float64),
    "action_space": Box(-1.0, 1.0, (6,), np.float32),
}
GOAL = {
    "observation_space": Dict(
        observation=Box(-9.0, 9.0, (4,), np.float64),
        desired_goal=Box(-9.0, 9.0, (2,), np.float64),
        achieved_goal=Box(-9.0, 9.0, (2,), np.float64),
    ),
    "action_space": Box(-1.0, 1.0, (2,), np.float32),
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def no_network(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a test tried to download")

    monkeypatch.setattr(minari, "download_dataset", no_network)
    return datasets_folder(monkeypatch, tmp_path)


def write(dataset_id: str, lengths: list[int], spaces: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    spaces = spaces or CHEETAH
    return write_dataset(dataset_id, make_episodes(lengths, **spaces, **kwargs), **spaces)


def assert_equals_minari(
    rows: Any, dataset: minari.MinariDataset, flatten: Any = lambda value: value, half: float = 1.0
) -> None:
    """Compare row by row, in plain loops over what ``iterate_episodes`` gives."""
    row = 0
    for episode in dataset.iterate_episodes():
        for step in range(len(episode.rewards)):
            stored = rows[row]
            observations = np.asarray(flatten(episode.observations))
            expected = {
                "observation": observations[step],
                "action": episode.actions[step] / half,
                ("next", "observation"): observations[step + 1],
                ("next", "reward"): [episode.rewards[step]],
                ("next", "done"): [episode.terminations[step] or episode.truncations[step]],
                ("next", "terminated"): [episode.terminations[step]],
                ("next", "truncated"): [episode.truncations[step]],
            }
            for key, value in expected.items():
                flag = np.asarray(value).dtype == np.bool_
                value = np.asarray(value, dtype=np.bool_ if flag else np.float32)
                assert stored[key].dtype == (torch.bool if flag else torch.float32)
                assert np.array_equal(stored[key].numpy(), value), (key, episode.id, step)
            row += 1
    assert row == len(rows)


def test_flat_float64_observations_equal_minari() -> None:
    dataset = write("toy/cheetah-v0", [7, 1, 2, 30])
    buffer = load_minari("toy/cheetah-v0", batch_size=16)
    assert_equals_minari(buffer[:], dataset)
    assert float(buffer[:]["observation"].abs().mean()) > 0.1
    batch = buffer.sample()
    assert set(batch.keys(include_nested=True, leaves_only=True)) == set(ROW_KEYS)
    assert batch["next", "reward"].shape == batch["next", "done"].shape == (16, 1)
    assert batch["observation"].shape == (16, 17)


def test_goal_observations_equal_minari_in_the_environments_order() -> None:
    dataset = write("toy/goal-v0", [5, 3], GOAL)

    def flatten(value: Any) -> Any:
        return np.concatenate([value["achieved_goal"], value["desired_goal"], value["observation"]], axis=-1)

    rows = load_minari("toy/goal-v0")[:]
    assert_equals_minari(rows, dataset, flatten)
    episode = next(iter(dataset.iterate_episodes()))
    first = {key: value[0] for key, value in episode.observations.items()}
    layout = observation_layout(GOAL["observation_space"])
    assert np.array_equal(rows["observation"][0].numpy(), layout.flatten(first))


def test_chosen_observation_keys() -> None:
    dataset = write("toy/goal-v0", [5, 3], GOAL)
    rows = load_minari("toy/goal-v0", observation_keys=["observation", "achieved_goal"])[:]
    assert_equals_minari(
        rows, dataset, lambda value: np.concatenate([value["observation"], value["achieved_goal"]], axis=-1)
    )


def test_pusher_actions_of_two_become_one_at_both_borders() -> None:
    env = gymnasium.make("Pusher-v5")
    env.action_space.seed(0)
    low, high = env.action_space.low, env.action_space.high
    episodes = []
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        record: dict[str, list[Any]] = {"observations": [observation], "actions": [], "rewards": []}
        for step in range(6):
            action = (low, high, env.action_space.sample())[step % 3]
            observation, reward, *_ = env.step(action)
            for key, value in (("observations", observation), ("actions", action), ("rewards", reward)):
                record[key].append(value)
        episodes.append({key: stack(value) for key, value in record.items()})
        episodes[-1] |= {"terminations": np.zeros(6, bool), "truncations": np.arange(6) == 5}
    dataset = write_dataset("toy/pusher-v0", episodes, env=env)
    with pytest.warns(UserWarning, match="never change"):  # the goal
        buffer = load_minari("toy/pusher-v0")
    assert high.tolist() == [2.0] * 7
    assert torch.equal(buffer[0]["action"], -torch.ones(7))
    assert torch.equal(buffer[1]["action"], torch.ones(7))
    assert_equals_minari(buffer[:], dataset, half=2.0)
    assert dataset_info(buffer).env_id == "Pusher-v5"
    env.close()


def test_action_scale_is_the_share_of_the_bounds_that_the_agent_uses() -> None:
    spaces = {**CHEETAH, "action_space": Box(np.float32([-1, 0]), np.float32([1, 4]), dtype=np.float32)}
    episodes = make_episodes([2], **spaces)
    episodes[0]["actions"] = np.float32([[0.25, 2.5], [-0.125, 1.5]])
    write_dataset("toy/scaled-v0", episodes, **spaces)
    actions = load_minari("toy/scaled-v0", action_scale=0.25)[:]["action"]
    assert actions.tolist() == [[1.0, 1.0], [-0.5, -1.0]]


def test_both_flags_at_once_are_both_kept() -> None:
    episodes = make_episodes([2], **CHEETAH)
    episodes[0]["truncations"] = episodes[0]["terminations"].copy()
    write_dataset("toy/both-v0", episodes, **CHEETAH)
    rows = load_minari("toy/both-v0")[:]["next"]
    assert rows["terminated"].flatten().tolist() == rows["truncated"].flatten().tolist() == [False, True]


def test_reward_rule_is_applied_once_and_the_hash_does_not_see_it() -> None:
    write("toy/cheetah-v0", [4, 5])
    raw = load_minari("toy/cheetah-v0")
    ruled = load_minari("toy/cheetah-v0", reward=RewardRule(scale=3.0, shift=-1.0))
    expected = raw[:]["next", "reward"] * 3.0 - 1.0
    assert torch.equal(ruled[:]["next", "reward"], expected)
    assert torch.equal(ruled[:]["observation"], raw[:]["observation"])
    assert dataset_info(ruled).hash == dataset_info(raw).hash


def test_return_range_rule_takes_its_scale_from_the_dataset() -> None:
    episodes = make_episodes([2, 2], **CHEETAH)
    for episode, rewards in zip(episodes, ([1.0, 2.0], [3.0, 5.0]), strict=True):
        episode["rewards"] = np.array(rewards)
    write_dataset("toy/range-v0", episodes, **CHEETAH)
    buffer = load_minari("toy/range-v0", reward=RewardRule("return_range", shift=0.5))
    assert buffer[:]["next", "reward"].flatten().tolist() == [200.5, 400.5, 600.5, 1000.5]
    info = dataset_info(buffer)
    assert info.reward == RewardRule(200.0, 0.5)
    assert info.returns == (3.0, 5.5, 8.0)


def test_memmap_equals_memory_and_leaves_nothing_behind(tmp_path: Path) -> None:
    dataset = write("toy/cheetah-v0", [7, 2, 9])
    storage_dir = tmp_path / "storage"
    arguments: dict[str, Any] = {"online_capacity": 5, "reward": RewardRule(2.0)}
    memory = load_minari("toy/cheetah-v0", **arguments)
    mapped = load_minari("toy/cheetah-v0", storage="memmap", storage_dir=storage_dir, **arguments)
    assert_equals_minari(load_minari("toy/cheetah-v0", storage="memmap", storage_dir=storage_dir)[:], dataset)
    dataset_rows = memory[:7].clone()
    for buffer in (memory, mapped):
        buffer.extend(dataset_rows)  # more than the online rows there is room for
    assert len(mapped) == 18 + 5
    for key in ROW_KEYS:
        assert torch.equal(memory[:][key], mapped[:][key])
    assert dataset_info(memory).hash == dataset_info(mapped).hash
    assert list(storage_dir.iterdir()) == []


def test_a_full_disk_is_an_error_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("toy/cheetah-v0", [4])
    claimed = []

    def full(descriptor: int, offset: int, size: int) -> None:
        claimed.append(size)
        if len(claimed) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"Cannot claim .* storage_dir") as caught:
        load_minari("toy/cheetah-v0", storage="memmap", storage_dir=tmp_path / "s", online_capacity=100)
    assert caught.value.errno == errno.ENOSPC
    assert claimed == [104 * 17 * 4, 104 * 6 * 4, 104 * 17 * 4]
    assert list((tmp_path / "s").iterdir()) == []


def test_disk_space_is_really_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse files would take no blocks until written, and then kill the process on a full disk."""
    write("toy/cheetah-v0", [4])
    blocks = []
    unlink = Path.unlink

    def count_blocks(path: Path, **kwargs: Any) -> None:
        blocks.append(path.stat().st_blocks * 512)
        unlink(path, **kwargs)

    monkeypatch.setattr(Path, "unlink", count_blocks)
    load_minari("toy/cheetah-v0", storage="memmap", storage_dir=tmp_path / "s", online_capacity=9996)
    assert len(blocks) == len(ROW_KEYS)
    assert blocks[0] >= 10_000 * 17 * 4


@pytest.mark.parametrize(("limit", "flags"), [(3, "--u"), (4, "---t"), (5, "---tu"), (6, "---t-u"), (99, "---t-u")])
def test_max_transitions_cuts_and_marks_the_cut(limit: int, flags: str) -> None:
    write("toy/cheetah-v0", [4, 2])
    rows = load_minari("toy/cheetah-v0", max_transitions=limit)[:]
    whole = load_minari("toy/cheetah-v0")[:]
    assert torch.equal(rows["next", "observation"], whole["next", "observation"][:limit])
    terminated, truncated = rows["next", "terminated"].flatten(), rows["next", "truncated"].flatten()
    assert "".join("t" if t else "u" if u else "-" for t, u in zip(terminated, truncated, strict=True)) == flags


def test_info_states_what_was_read() -> None:
    dataset = write("toy/cheetah-v0", [4, 2], ends="u")
    returns = [float(np.sum(episode.rewards)) for episode in dataset.iterate_episodes()]
    info = dataset_info(load_minari("toy/cheetah-v0"))
    assert (info.dataset_id, info.episodes, info.transitions) == ("toy/cheetah-v0", 2, 6)
    assert info.returns == pytest.approx((min(returns), sum(returns) / 2, max(returns)))
    assert (info.env_id, info.reference_scores, info.clipped_actions) == (None, None, 0)
    with pytest.raises(ValueError, match="not made by load_minari"):
        dataset_info(make_buffer(None, online_capacity=1))


def test_reading_without_a_buffer_leaves_free_rows() -> None:
    write("toy/cheetah-v0", [4])
    rows, info = read_minari("toy/cheetah-v0", free_rows=3)
    assert len(rows) == 7
    assert info.transitions == 4
    assert rows["observation"][4:].count_nonzero() == 0


def test_buffer_arguments_reach_the_buffer() -> None:
    write("toy/cheetah-v0", [20])

    def draws() -> Any:
        buffer = load_minari(
            "toy/cheetah-v0",
            batch_size=10,
            online_capacity=4,
            online_fraction=0.3,
            generator=torch.Generator().manual_seed(5),
        )
        online = buffer[:4].clone()
        online["next", "reward"].fill_(77.0)
        buffer.extend(online)
        return buffer.sample()["next", "reward"]

    first = draws()
    assert int((first == 77.0).sum()) == 3
    assert torch.equal(first, draws())


def test_root_overrides_the_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("toy/cheetah-v0", [3])
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    assert len(load_minari("toy/cheetah-v0", root=tmp_path)) == 3
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        load_minari("toy/cheetah-v0")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"storage": "disk"}, "expected 'memory' or 'memmap'"),
        ({"storage": "memmap"}, "needs storage_dir"),
        ({"max_transitions": 0}, "at least 1"),
        ({"online_fraction": -0.1}, "online_fraction"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    write("toy/cheetah-v0", [5])
    with pytest.raises(ValueError, match=message):
        load_minari("toy/cheetah-v0", **arguments)


@pytest.mark.parametrize(
    "space",
    [gymnasium.spaces.Discrete(3), Box(-np.inf, 1.0, (2,)), Box(-1.0, 1.0, (2, 2)), Box(1.0, 1.0, (2,))],
)
def test_actions_that_are_not_bounded_vectors_are_refused(space: gymnasium.Space[Any]) -> None:
    episodes = make_episodes([2], **CHEETAH)
    write_dataset("toy/bad-v0", episodes, observation_space=CHEETAH["observation_space"], action_space=space)
    with pytest.raises(ValueError, match="action space"):
        load_minari("toy/bad-v0")
