"""Data that d3rlpy, TorchRL and Stable-Baselines3 keep become the rows that they train on, with the same ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data import ReplayBuffer as TorchRLBuffer
from torchrl.envs import GymWrapper

from docs.tools.recordings import make
from o3f.data import array_files, dataset_info, load_file, sb3_arrays
from o3f.errors import ConfigError

LOST = "row.s. of '.*' were left out"


def write_d3rlpy(path: Path, ends: dict[int, bool], **left_out: Any) -> Path:
    """A file as ``d3rlpy.dataset.io.dump`` writes it (2.8.1): lengths of episodes and whether they terminated.

    Observations are numbers from 0, rewards 10 times theirs.
    """
    start = 0
    with h5py.File(path, "w") as file:
        file["columns"], file["num_episodes"] = ["observations", "actions", "rewards", "terminated"], len(ends)
        for number, (length, terminated) in enumerate(ends.items()):
            rows = np.arange(start, start + length, dtype=np.float32)[:, None]
            file[f"observations_{number}"], file[f"rewards_{number}"] = rows, 10 * rows
            file[f"actions_{number}"], file[f"terminated_{number}"] = rows / 100, terminated
            start += length
        file["version"] = "2.1"
        for name in left_out:
            del file[name]
    return path


@pytest.mark.parametrize("block", [1, 4, 16_384])
def test_d3rlpy_a_last_step_that_did_not_terminate_is_no_transition(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As d3rlpy itself counts: its ``transition_count`` of these episodes is 3, 4, 0 and 4."""
    monkeypatch.setattr(array_files, "BLOCK", block)
    file = write_d3rlpy(tmp_path / "dataset.h5", {3: True, 5: False, 1: False, 4: True})
    with pytest.warns(UserWarning, match=f"2 {LOST}"):
        buffer = load_file(file)
    rows = buffer[:]
    after = rows["next"]
    now = [0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12]
    assert rows["observation"].flatten().tolist() == now
    assert after["observation"].flatten().tolist() == [1, 2, 2, 4, 5, 6, 7, 10, 11, 12, 12]
    assert after["reward"].flatten().tolist() == [10 * row for row in now]
    assert torch.equal(rows["action"], rows["observation"] / 100)
    assert after["terminated"].flatten().nonzero().flatten().tolist() == [2, 10]
    assert after["truncated"].flatten().nonzero().flatten().tolist() == [6]


def test_d3rlpy_what_is_not_supported_is_named(tmp_path: Path) -> None:
    file = write_d3rlpy(tmp_path / "dataset.h5", {3: True, 5: False}, observations_1=None)
    with pytest.raises(ConfigError, match=r"\(version 2.1\) of 2 episode.s., without observations in each"):
        load_file(file)


@pytest.mark.parametrize("rows", [2, 4])
def test_d3rlpy_an_episode_with_a_reward_too_few_or_too_many_moves_no_other(tmp_path: Path, rows: int) -> None:
    file = write_d3rlpy(tmp_path / "dataset.h5", {3: True, 5: True}, rewards_0=None)
    with h5py.File(file, "a") as arrays:
        arrays["rewards_0"] = np.zeros((rows, 1), np.float32)
    with pytest.raises(ConfigError, match=rf"'rewards_0' of .* has shape \({rows}, 1\), expected \(3, 1\): as many"):
        load_file(file)


def test_d3rlpy_an_episode_of_another_width(tmp_path: Path) -> None:
    file = write_d3rlpy(tmp_path / "dataset.h5", {3: True, 5: True}, observations_1=None)
    with h5py.File(file, "a") as arrays:
        arrays["observations_1"] = np.zeros((5, 2), np.float32)
    with pytest.raises(ConfigError, match=r"'observations_1' of .* has shape \(5, 2\), expected \(5, 1\)"):
        load_file(file)


@pytest.mark.parametrize("count", ["two", np.nan, -1, 1.5])
def test_d3rlpy_a_number_of_episodes_that_is_none(tmp_path: Path, count: Any) -> None:
    file = write_d3rlpy(tmp_path / "dataset.h5", {3: True}, num_episodes=None)
    with h5py.File(file, "a") as arrays:
        arrays["num_episodes"] = count
    with pytest.raises(ConfigError, match=r"'num_episodes' of .*, expected the number of its episodes"):
        load_file(file)


def test_torchrl_a_type_that_is_not_read_is_no_damage(tmp_path: Path) -> None:
    rows = collected(12)
    rows["action"] = rows["action"].bfloat16()
    rows.memmap(tmp_path / "half")
    with pytest.raises(ConfigError, match="action is of type bfloat16, which is not read: convert it first"):
        load_file(tmp_path / "half")


def collected(num_rows: int) -> TensorDict:
    env = GymWrapper(make())
    env.set_seed(0)
    source = Collector(env, None, frames_per_batch=num_rows, total_frames=num_rows)
    (rows,) = (each.clone() for each in source)
    source.shutdown()
    return rows


@pytest.mark.parametrize("kind", [TorchRLBuffer, TensorDictReplayBuffer])
@pytest.mark.parametrize(
    ("storage", "capacity"), [(LazyMemmapStorage, 64), (LazyMemmapStorage, 30), (LazyTensorStorage, 64)]
)
def test_torchrl_a_buffer_that_was_dumped_has_the_same_rows(
    tmp_path: Path, kind: Any, storage: Any, capacity: int
) -> None:
    """Not full, and full with its first rows written over."""
    theirs = kind(storage=storage(capacity), batch_size=4)
    theirs.extend(collected(40))
    theirs.dumps(tmp_path / "dump")
    ours, expected = load_file(tmp_path / "dump")[:], theirs[:]
    assert len(ours) == min(40, capacity)
    for key in ("observation", "action", *(("next", name) for name in ("observation", "reward", "terminated"))):
        assert torch.equal(ours[key], expected[key].to(ours[key].dtype)), key
    cut = expected["next", "truncated"].clone()
    cut[-1] = not expected["next", "terminated"][-1]  # where the storage ends
    if capacity == 30:
        cut[9] = True  # the newest row, before the oldest
    assert torch.equal(ours["next", "truncated"], cut)


def test_torchrl_observations_with_a_goal_keep_their_parts(tmp_path: Path) -> None:
    rows = collected(12)
    for level in (rows, rows["next"]):
        level["desired_goal"] = level["observation"][:, :2] + 100
    rows.memmap(tmp_path / "goals")
    ours = load_file(tmp_path / "goals")[:]
    assert torch.equal(ours["observation"], torch.cat([rows["desired_goal"], rows["observation"]], -1))
    ours = load_file(tmp_path / "goals", observation_keys=["observation"])[:]
    assert torch.equal(ours["next", "observation"], rows["next", "observation"])


def test_torchrl_rows_that_were_never_written_are_not_taken_for_data(tmp_path: Path) -> None:
    """The folder of a storage itself does not say how many of its rows are filled; the rest is zeros."""
    theirs = TorchRLBuffer(storage=LazyMemmapStorage(64, scratch_dir=tmp_path / "scratch"), batch_size=4)
    theirs.extend(collected(40))
    with pytest.raises(ConfigError, match=r"The last 24 row.s. of .*scratch are zeros.*buffer.dumps"):
        load_file(tmp_path / "scratch")
    theirs.extend(collected(24))
    assert torch.equal(load_file(tmp_path / "scratch")[:]["observation"], theirs[:]["observation"])


def test_torchrl_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    rows = collected(12)
    rows.exclude(("next", "reward"), "action").memmap(tmp_path / "less")
    with pytest.raises(ConfigError, match=r"has no action, no next/reward\. Found: next/observation, next/term"):
        load_file(tmp_path / "less")
    rows.reshape(2, 6).memmap(tmp_path / "two")
    with pytest.raises(ConfigError, match=r"rows of shape \[2, 6\], expected \[N\]"):
        load_file(tmp_path / "two")
    with pytest.raises(ConfigError, match=r"is a folder without meta.json. Expected an HDF5 or NPZ file"):
        load_file(tmp_path)
    rows.memmap(tmp_path / "damaged")
    (tmp_path / "damaged/action.memmap").write_bytes(b"1234")
    with pytest.raises(RuntimeError, match="damaged cannot be read"):
        load_file(tmp_path / "damaged")
    (tmp_path / "damaged/meta.json").write_text(json.dumps({"shape": [12], "action": 3}))
    with pytest.raises(RuntimeError, match="damaged cannot be read"):
        load_file(tmp_path / "damaged")


class Bounded(gymnasium.Env[Any, Any]):
    """Only its spaces are looked at."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float64)
    action_space = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.5], np.float32))


def fill(buffer: Any, steps: int, num_envs: int, parts: bool) -> None:
    """Episodes of 4 and 3 steps by turns, of which the first are cut off and the others terminate."""
    rng = np.random.default_rng(0)

    def observe() -> Any:
        values = rng.normal(size=(num_envs, 3))
        return {"goal": values[:, :1], "state": values[:, 1:]} if parts else values

    now = observe()
    for step in range(1, steps + 1):
        after, done, cut = observe(), step % 7 in (0, 4), step % 7 == 4
        infos = [{"TimeLimit.truncated": cut}] * num_envs
        action = rng.uniform(-1, 1, size=(num_envs, 2)).astype(np.float32)
        buffer.add(now, after, action, rng.normal(size=num_envs), np.array([done] * num_envs), infos)
        now = observe() if done else after


def sampled(buffer: Any) -> Iterator[Any]:
    """All that the buffer could sample, of each environment."""
    shared = int(buffer.optimize_memory_usage)
    places = np.arange(shared * buffer.full, buffer.buffer_size if buffer.full else buffer.pos)
    places = (places + buffer.pos * buffer.full) % buffer.buffer_size
    for env in range(buffer.n_envs):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(np.random, "randint", lambda *_, env=env, **__: np.full(len(places), env))
            yield buffer._get_samples(places)


@pytest.mark.parametrize("steps", [20, 50])
@pytest.mark.parametrize("kind", ["plain", "two", "parts", "shared"])
def test_sb3_rows_are_those_that_are_sampled_in_the_environments_units(tmp_path: Path, steps: int, kind: str) -> None:
    """Not full, and with the oldest rows written over. Loaded again they are what was sampled, to the bit."""
    spaces = Dict(goal=Box(-9, 9, (1,), np.float64), state=Box(-9, 9, (2,), np.float64))
    num_envs = 2 if kind == "two" else 1
    choices: dict[str, Any] = {"n_envs": num_envs, "handle_timeout_termination": kind != "shared"}
    choices["optimize_memory_usage"] = kind == "shared"
    space = spaces if kind == "parts" else Bounded.observation_space
    theirs = (DictReplayBuffer if kind == "parts" else ReplayBuffer)(
        30 * num_envs, space, Bounded.action_space, "cpu", **choices
    )
    fill(theirs, steps, num_envs, parts=kind == "parts")
    arrays = sb3_arrays(theirs)
    assert arrays["actions"][:, 1].min() >= 0.0
    assert arrays["actions"][:, 0].max() > 1.0
    np.savez(tmp_path / "replay.npz", **arrays)
    env = Bounded()
    env.observation_space = space  # type: ignore[assignment]
    ours, samples = load_file(tmp_path / "replay.npz", env=env)[:], list(sampled(theirs))

    def join(name: str) -> Any:
        values = [getattr(each, name) for each in samples]
        if isinstance(values[0], dict):
            values = [torch.cat([each[key] for key in sorted(each)], -1) for each in values]
        return torch.cat(values).to(torch.float32)

    assert torch.equal(ours["observation"], join("observations"))
    assert torch.equal(ours["action"], join("actions"))
    assert torch.equal(ours["next", "observation"], join("next_observations"))
    assert torch.equal(ours["next", "reward"], join("rewards"))
    assert torch.equal(ours["next", "terminated"], join("dones").bool())
    assert 2 * num_envs <= int(ours["next", "terminated"].sum()) < len(ours) / 3


def test_sb3_time_limits_that_it_does_not_tell_apart_are_terminal_as_in_its_training() -> None:
    arrays = {}
    for handled in (True, False):
        buffer = ReplayBuffer(30, Bounded.observation_space, Bounded.action_space, handle_timeout_termination=handled)
        fill(buffer, 11, 1, parts=False)
        arrays[handled] = sb3_arrays(buffer)
    assert arrays[True]["terminals"].nonzero()[0].tolist() == [6]
    assert arrays[True]["timeouts"].nonzero()[0].tolist() == [3, 10]
    assert arrays[False]["terminals"].nonzero()[0].tolist() == [3, 6, 10]
    assert not arrays[False]["timeouts"].any()


def test_sb3_what_is_no_such_buffer_is_refused() -> None:
    with pytest.raises(ConfigError, match="list is no replay buffer of Stable-Baselines3: no observations, "):
        sb3_arrays([])
    with pytest.raises(ConfigError, match="The replay buffer is empty"):
        sb3_arrays(ReplayBuffer(30, Bounded.observation_space, Bounded.action_space))
    with pytest.raises(ConfigError, match=r"The buffer's actions are Discrete\(2\), expected a Box"):
        sb3_arrays(ReplayBuffer(30, Bounded.observation_space, Discrete(2)))


def test_a_folder_is_named_in_what_is_noted_of_it(tmp_path: Path) -> None:
    collected(20).memmap(tmp_path / "mine")
    info = dataset_info(load_file(tmp_path / "mine"))
    assert (info.dataset_id, info.transitions) == ("mine", 20)
