"""D4RL, OGBench and plain files become the rows that they mean, value by value; faults: tests/faults/test_files.py."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from tensordict import TensorDict

from o3f.data import RewardRule, check_dataset, dataset_info, load_file, load_minari, open_file
from o3f.data import array_files as files
from o3f.data.arrays import open_arrays
from tests.support.array_files import Arrays, flat, numbered, write
from tests.support.minari_datasets import datasets_folder, make_episodes, write_dataset

SPACES: dict[str, Any] = {
    "observation_space": Box(-np.inf, np.inf, (3,), np.float32),
    "action_space": Box(-1.0, 1.0, (2,), np.float32),
}
PARTS = Dict(achieved_goal=Box(-9, 9, (2,)), desired_goal=Box(-9, 9, (2,)), observation=Box(-9, 9, (3,)))
LOST = r"row.s. of '.*' were left out: an episode was cut off there"
KINDS = ("a.hdf5", "a.npz", "a.zip.npz")


def numbers(rows: TensorDict) -> list[tuple[int, int, int, str]]:
    """Number of observation and next observation, a tenth of the reward, and the end of each row."""
    after = rows["next"]
    ends = ["-tub"[int(t) + 2 * int(u)] for t, u in zip(after["terminated"], after["truncated"], strict=True)]
    columns = (rows["observation"][:, 0], after["observation"][:, 0], after["reward"][:, 0] / 10)
    return list(zip(*(map(int, column) for column in columns), ends, strict=True))


D4RL = {"terminals": [3], "timeouts": [7]}
ENDS_OF_D4RL = [
    *((0, 1, 0, "-"), (1, 2, 1, "-"), (2, 3, 2, "-")),
    (3, 3, 3, "t"),  # the next observation, of no use to a target, is its own
    *((4, 5, 4, "-"), (5, 6, 5, "-"), (6, 7, 6, "u")),  # step 7 was cut off: its next observation is nowhere
    (8, 9, 8, "u"),  # step 9 is the last
]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("flags", [("terminals", "timeouts"), ("terminations", "truncations")])
def test_d4rl_a_terminal_step_has_no_future_and_a_timeout_loses_its_step(
    tmp_path: Path, name: str, flags: tuple[str, str]
) -> None:
    file = write(tmp_path / name, numbered(10, **dict(zip(flags, D4RL.values(), strict=True))))
    before = file.read_bytes()
    with pytest.warns(UserWarning, match=f"2 {LOST}"):
        buffer = load_file(file)
    assert numbers(buffer[:]) == ENDS_OF_D4RL
    info = dataset_info(buffer)
    assert (info.transitions, info.episodes, info.unfinished, info.dropped_rows) == (8, 3, 1, 2)
    assert info.changes == {"dataset_dropped_rows": 2, "dataset_unfinished": 1}
    assert (info.dataset_id, info.returns) == (name, pytest.approx((60.0, 290 / 3, 150.0)))
    assert file.read_bytes() == before


def test_d4rl_next_observations_keep_every_step(tmp_path: Path) -> None:
    arrays = numbered(10, **D4RL)
    arrays["next_observations"] = arrays["observations"] + 1
    arrays["next_observations"][[3, 7, 9]] += 100
    rows = load_file(write(tmp_path / "a.hdf5", arrays))[:]
    expected = [(i, i + 1, i, "-") for i in range(10)]
    expected[3], expected[7], expected[9] = (3, 104, 3, "t"), (7, 108, 7, "u"), (9, 110, 9, "u")
    assert numbers(rows) == expected


def test_d4rl_an_end_that_is_not_marked_shows_in_the_next_observation(tmp_path: Path) -> None:
    arrays = numbered(6, terminals=[], timeouts=[5])
    arrays["next_observations"] = arrays["observations"] + 1
    arrays["next_observations"][2, 1] = 50.0
    buffer = load_file(write(tmp_path / "a.npz", arrays))
    assert [end for *_, end in numbers(buffer[:])] == list("--u--u")
    assert buffer[2]["next", "observation"].tolist() == [3.0, 50.0]
    assert dataset_info(buffer).unfinished == 1


def test_d4rl_a_step_with_both_marks_is_dropped_as_by_d4rl(tmp_path: Path) -> None:
    """In D4RL's AntMaze files the terminal mark of a timeout is judged by the start of the next episode."""
    file = write(tmp_path / "a.npz", numbered(6, terminals=[2, 5], timeouts=[2]))
    with pytest.warns(UserWarning, match=f"1 {LOST}"):
        assert [(row, end) for row, _, _, end in numbers(load_file(file)[:])] == [
            *((0, "-"), (1, "u"), (3, "-"), (4, "-"), (5, "t"))
        ]


def test_d4rl_equals_its_q_learning_rows(tmp_path: Path) -> None:
    """Those of ``d4rl.qlearning_dataset``, and a last row that is terminal, on random flags."""
    rng = np.random.default_rng(0)
    for trial in range(20):
        count = int(rng.integers(9, 30))
        ends, cuts = (set(np.flatnonzero(rng.random(count) < 0.2).tolist()) for _ in range(2))
        kept = [i for i in range(count) if i not in cuts and (i < count - 1 or i in ends)]
        expected = [(i, i if i in ends else i + 1, i in ends) for i in kept]
        file = write(tmp_path / f"{trial}.npz", numbered(count, terminals=list(ends), timeouts=list(cuts)))
        rows = numbers(load_file(file, check=False)[:])
        assert [(now, after, end == "t") for now, after, _, end in rows] == expected


OGBENCH = {"terminals": [4, 8]}  # rows 4 and 8 hold the last observations
CUT_OFF = [(i, i + 1, i, "u" if i in (3, 7) else "-") for i in (0, 1, 2, 3, 5, 6, 7)]


@pytest.mark.parametrize("name", KINDS)
def test_ogbench_terminals_hold_the_last_observation_and_cut_off(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, numbered(9, **OGBENCH) | {"qpos": np.zeros((9, 4))})
    buffer = load_file(file)
    assert numbers(buffer[:]) == CUT_OFF
    info = dataset_info(buffer)
    assert (info.episodes, info.unfinished, info.dropped_rows) == (2, 0, 0)


def test_ogbench_in_the_forms_that_its_loader_returns(tmp_path: Path) -> None:
    """Regular: next observations, terminals on the last step. Compact: ``valids`` tell which rows are steps."""
    raw = numbered(9, **OGBENCH)
    steps = raw["terminals"] == 0
    regular = {name: values[steps] for name, values in raw.items()} | {"masks": np.ones(7)}
    regular |= {"next_observations": raw["observations"][1:][steps[:-1]], "terminals": np.isin(range(7), (3, 6)) + 0.0}
    compact = raw | {"terminals": np.isin(range(9), (3, 4, 7, 8)) + 0.0, "valids": steps + 0.0}
    for name, arrays in {"regular.npz": regular, "compact.npz": compact}.items():
        assert numbers(load_file(write(tmp_path / name, arrays))[:]) == CUT_OFF


def test_ogbench_masks_end_the_future_and_not_the_trajectory(tmp_path: Path) -> None:
    """Of a single task: where it is done, the value is 0; the next row goes on from the observation that followed."""
    arrays = numbered(9, **OGBENCH) | {"masks": 1 - np.isin(range(9), (1, 7, 8))}
    expected = list(CUT_OFF)
    expected[1], expected[6] = (1, 2, 1, "t"), (7, 8, 7, "t")
    assert numbers(load_file(write(tmp_path / "a.npz", arrays))[:]) == expected


def test_a_format_given_is_taken_and_auto_decides_by_the_arrays(tmp_path: Path) -> None:
    file = write(tmp_path / "a.npz", numbered(9, timeouts=[], **OGBENCH))
    assert [end for *_, end in numbers(load_file(file)[:])] == list("----t---t")
    assert numbers(load_file(file, format="ogbench")[:]) == CUT_OFF


def test_ends_that_a_format_does_not_read_are_told(tmp_path: Path) -> None:
    file = write(tmp_path / "a.npz", numbered(9, timeouts=[1, 4, 6], **OGBENCH))
    with pytest.warns(UserWarning, match=r"'timeouts' of .* marks 2 rows that 'terminals' does not, first row 1, and"):
        assert numbers(load_file(file, format="ogbench")[:]) == CUT_OFF


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("space", [SPACES["observation_space"], PARTS], ids=["flat", "goal"])
def test_a_minari_dataset_and_the_same_as_a_file_give_identical_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, space: gymnasium.Space[Any]
) -> None:
    datasets_folder(monkeypatch, tmp_path)
    monkeypatch.setattr(files, "BLOCK", 7)  # so that some blocks hold several episodes and others one
    spaces = {**SPACES, "observation_space": space}
    episodes = make_episodes([3, 9, 1, 2, 2, 5, 1], ends="tu-ut", **spaces)
    write_dataset("toy/same-v0", episodes, **spaces)
    file = write(tmp_path / name, flat(episodes))
    keys = None if space is not PARTS else ["desired_goal", "observation"]
    for options in ({}, {"max_transitions": 10}, {"reward": RewardRule("return_range", -1.0)}):
        theirs = load_minari("toy/same-v0", observation_keys=keys, **options)
        ours = load_file(file, observation_keys=keys, **options)
        assert (ours[:] == theirs[:]).all()
        one, other = dataset_info(ours), dataset_info(theirs)
        assert (one.hash, one.returns, one.episodes, one.reward) == (
            other.hash,
            other.returns,
            other.episodes,
            other.reward,
        )
    mapped = load_file(file, observation_keys=keys, storage="memmap", storage_dir=tmp_path / "rows", online_capacity=3)
    assert dataset_info(mapped).hash == dataset_info(load_minari("toy/same-v0", observation_keys=keys)).hash
    mapped.extend(mapped[:3].clone())
    assert len(mapped) == 26
    assert check_dataset(open_file(file)).returns == check_dataset("toy/same-v0").returns


def test_blocks_are_read_and_not_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = numbered(1000, terminals=range(9, 1000, 10), timeouts=[])
    for name in KINDS:
        with open_arrays(write(tmp_path / name, arrays)) as found:
            array = found["observations"]
            for start, stop in itertools.product((0, 500, 20), (510, 520, 1000)):
                np.testing.assert_array_equal(array[start:stop], arrays["observations"][start:stop])
    seen = []
    read = files.Columns.read
    monkeypatch.setattr(files, "BLOCK", 64)
    monkeypatch.setattr(files.Columns, "read", lambda self, found, rows: seen.append(rows) or read(self, found, rows))
    assert numbers(load_file(tmp_path / "a.npz", check=False)[:])[555] == (555, 556, 555, "-")
    assert max(rows.stop - rows.start for rows in seen) <= 64
    assert len(seen) == 17


def test_arrays_by_columns_and_numbers_as_vectors_of_one(tmp_path: Path) -> None:
    arrays = numbered(8, terminals=[3, 7], timeouts=[])
    expected = load_file(write(tmp_path / "a.npz", arrays))[:]
    odd: Arrays = {name: np.asfortranarray(values) for name, values in arrays.items()}
    odd |= {name: arrays[name][:, None] for name in ("rewards", "terminals")} | {"timeouts": np.zeros(8, np.int8)}
    assert (load_file(write(tmp_path / "b.npz", odd))[:] == expected).all()


def test_actions_are_rescaled_by_the_environments_bounds(tmp_path: Path) -> None:
    """Pendulum's actions are in [-2, 2]."""
    arrays = numbered(4, terminals=[3], timeouts=[])
    arrays |= {
        "observations": np.random.default_rng(0).normal(size=(4, 3)),
        "actions": np.float32([[2], [-1], [0], [0.5]]),
    }
    file = write(tmp_path / "a.npz", arrays)
    with gymnasium.make("Pendulum-v1") as env:  # type: ignore[attr-defined]
        rows = load_file(file, env=env)[:]
        assert rows["action"].flatten().tolist() == [1.0, -0.5, 0.0, 0.25]
        assert load_file(file, env=env, action_scale=1.0)[:]["action"].equal(rows["action"])
    with pytest.raises(ValueError, match="'actions' exceeds the action bounds at 1 place"):
        load_file(file)


def test_d4rls_flat_ant_maze_observation_is_position_and_body(tmp_path: Path) -> None:
    from o3f.envs import EnvConfig, make_raw_env

    kwargs = {"include_cfrc_ext_in_observation": False}
    arrays = numbered(4, terminals=[3], timeouts=[])
    arrays |= {"observations": np.random.default_rng(0).normal(size=(4, 29)), "actions": np.eye(4, 8) + np.eye(4, 8, 4)}
    env = make_raw_env(EnvConfig("AntMaze_UMaze-v5", kwargs))
    rows = load_file(write(tmp_path / "a.hdf5", arrays), env=env, observation_keys=["achieved_goal", "observation"])[:]
    assert torch.equal(rows["observation"], torch.from_numpy(arrays["observations"].astype(np.float32)))
    env.close()
