"""Faults of files of arrays: each is named before anything is learned, with what was found and expected."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from o3f.data import dataset_info, load_file, open_file
from o3f.envs import EnvConfig, make_raw_env
from o3f.errors import ConfigError
from tests.support.array_files import Arrays, numbered, write

KINDS = ("a.hdf5", "a.npz", "a.zip.npz")


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sound(count: int = 40) -> Arrays:
    return numbered(count, terminals=[count // 2 - 1], timeouts=[count - 1])


def assert_refused(file: Path, *parts: str, **options: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(file, **options)
    for part in parts:
        assert part in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "a.hdf5", f"There is no file {tmp_path}/a.hdf5", "Expected an HDF5 or NPZ file")
    assert_refused(tmp_path, "is a folder without meta.json", "Expected an HDF5 or NPZ file")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    for content in (b"", b"observations,actions\n"):
        (tmp_path / "a.hdf5").write_bytes(content)
        assert_refused(tmp_path / "a.hdf5", "is neither an HDF5 nor an NPZ file", repr(content[:8]))


@pytest.mark.parametrize("missing", ["observations", "actions", "terminals"])
def test_a_missing_array_is_named_and_the_others_listed(tmp_path: Path, name: str, missing: str) -> None:
    arrays = sound()
    del arrays[missing]
    present = "rewards (40,)"
    assert_refused(write(tmp_path / name, arrays), f"has no {missing}. Found: ", present)


def test_no_rewards_are_ogbenchs_goals(tmp_path: Path) -> None:
    arrays = sound()
    del arrays["rewards"], arrays["timeouts"]
    assert_refused(write(tmp_path / "a.npz", arrays), "has no rewards.", "ogbench.make_env_and_datasets")


def test_no_marks_of_episodes_cut_off(tmp_path: Path) -> None:
    arrays = sound()
    del arrays["timeouts"]
    assert_refused(
        write(tmp_path / "a.hdf5", arrays), "no timeouts (or truncations) and no next_observations", "Found:"
    )
    arrays["next_observations"] = arrays["observations"] + 1
    assert dataset_info(load_file(write(tmp_path / "b.hdf5", arrays))).unfinished == 1


def test_no_end_is_marked_and_none_shows(tmp_path: Path) -> None:
    arrays = numbered(9, terminals=[], timeouts=[])
    file = write(tmp_path / "a.npz", arrays)
    with pytest.raises(ValueError, match=r"any of 1 episode.*unmarked_ends=truncate"):
        load_file(file)
    with pytest.warns(UserWarning, match="1 row"):
        assert load_file(file, unmarked_ends="truncate")[:]["next", "truncated"].flatten().nonzero().item() == 7


@pytest.mark.parametrize("field", ["actions", "rewards", "terminals", "timeouts", "next_observations"])
def test_another_length(tmp_path: Path, name: str, field: str) -> None:
    arrays = sound() | {"next_observations": sound()["observations"] + 1}
    arrays[field] = arrays[field][:-1]
    assert_refused(write(tmp_path / name, arrays), f"'{field}' of {tmp_path}/{name} has shape (39", "expected [40")


def test_another_form(tmp_path: Path) -> None:
    for field, values in {
        "actions": np.zeros(40),
        "observations": np.zeros((40, 8, 8, 3)),
        "rewards": np.zeros((40, 2)),
    }.items():
        assert_refused(write(tmp_path / "a.npz", sound() | {field: values}), f"'{field}' of", "expected [40")
    arrays = sound() | {"next_observations": np.zeros((40, 3))}
    assert_refused(write(tmp_path / "a.npz", arrays), "'observations' and 'next_observations' of", "2 and 3")


@pytest.mark.parametrize("field", ["observations", "actions", "rewards"])
def test_values_that_are_not_finite(tmp_path: Path, name: str, field: str) -> None:
    """Rows 20 to 39 are the second episode; an observation is also the one after the row before."""
    arrays = sound()
    arrays["next_observations"] = arrays["observations"] + 1
    arrays[field][25:27] = np.nan
    if field == "observations":
        arrays["next_observations"][24:26] = np.nan
    file = write(tmp_path / name, arrays)
    count = 4 if field == "observations" else 2
    with pytest.raises(ValueError, match=f"'{field}' is not finite at {count} place.s., first in episode 1 at step 5"):
        load_file(file)
    with pytest.warns(UserWarning, match="1 episode.s. of '.*' were left out, because they hold values"):
        info = dataset_info(load_file(file, on_nonfinite="drop_episode"))
    assert (info.episodes, info.dropped_episodes, info.transitions) == (1, 1, 20)


def test_a_next_observation_that_is_not_finite(tmp_path: Path) -> None:
    arrays = sound()
    arrays["next_observations"] = arrays["observations"] + 1
    arrays["next_observations"][39, 1] = np.inf
    with pytest.raises(ValueError, match=r"'observations' is not finite at 1 place.s., first in episode 1 at step 20"):
        load_file(write(tmp_path / "a.hdf5", arrays))


def test_actions_out_of_bounds(tmp_path: Path) -> None:
    arrays = sound()
    arrays["actions"][21] = 1.5
    file = write(tmp_path / "a.hdf5", arrays)
    with pytest.raises(ValueError, match=r"first in episode 1 at step 1, by up to 0\.5"):
        load_file(file)
    with pytest.warns(UserWarning, match=r"1 (action values|row)"):
        assert load_file(file, clip_actions=True)[:]["action"].max() == 1.0


def test_marks_that_are_no_marks(tmp_path: Path) -> None:
    for value in (0.5, np.nan, 2):
        arrays = sound()
        arrays["terminals"][3] = value
        assert_refused(write(tmp_path / "a.npz", arrays), "'terminals' of", "neither 0 nor 1")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("field", ["observations", "actions", "terminals"])
def test_objects_are_never_unpickled(tmp_path: Path, field: str) -> None:
    evil = np.full((40, 1), Evil(tmp_path / "victim"), dtype=object)
    file = write(tmp_path / "a.npz", sound() | {field: evil})
    assert_refused(file, f"'{field}' of", "of type object, expected numbers; nothing is unpickled")
    with pytest.warns(UserWarning, match="1 row"):
        load_file(write(tmp_path / "b.npz", sound() | {"notes": evil}))
    assert not (tmp_path / "victim").exists()


def test_text_in_place_of_numbers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for field, values in sound().items():
            file[field] = ["a"] * 40 if field == "rewards" else values
    assert_refused(tmp_path / "a.hdf5", "'rewards' of", "of type object, expected numbers")


def test_nothing_in_it(tmp_path: Path, name: str) -> None:
    assert_refused(write(tmp_path / name, numbered(0, terminals=[], timeouts=[])), "has no transitions")
    assert_refused(write(tmp_path / f"b{name}", {}), "has no observations, no actions, no terminals. Found: no arrays.")


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_a_file_that_was_cut_short(tmp_path: Path, name: str, kept: float) -> None:
    rng = np.random.default_rng(0)
    file = write(tmp_path / name, sound(4000) | {"observations": rng.normal(size=(4000, 9))})
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(RuntimeError, match=r"cannot be read .*get it again"):
        load_file(file)


def test_a_member_that_is_shorter_than_it_says(tmp_path: Path) -> None:
    file = write(tmp_path / "a.npz", sound())
    with zipfile.ZipFile(file) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, content[:-8] if each == "actions.npy" else content)
    with pytest.raises(RuntimeError, match=r"cannot be read .EOFError: the array is shorter than its header says"):
        load_file(file)


def test_bytes_changed_in_a_member_are_found(tmp_path: Path) -> None:
    """By the checksum of NPZ; HDF5 has one where the array was compressed."""
    file = write(tmp_path / "a.npz", sound())
    content = bytearray(file.read_bytes())
    content[content.index(np.float32([7.0, 7.25]).tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"cannot be read .BadZipFile"):
        load_file(file)


@pytest.mark.parametrize(
    ("env", "sizes", "parts"),
    [
        (
            "Hopper-v5",
            (17, 6),
            ["actions: 6 numbers in the file, 3 here", "observations: 17 numbers in the file, 11 here"],
        ),
        ("FrankaKitchen-v1", (60, 9), ["60 numbers in the file, 59 here", "one cannot be made of the other"]),
        ("AntMaze_UMaze-v5", (29, 8), ["29 numbers in the file, 31 here", "task=d4rl/antmaze-umaze-diverse"]),
    ],
)
def test_another_environment(tmp_path: Path, env: str, sizes: tuple[int, int], parts: list[str]) -> None:
    arrays = sound() | {"observations": np.zeros((40, sizes[0])), "actions": np.zeros((40, sizes[1]))}
    kwargs = {"include_cfrc_ext_in_observation": False} if env.startswith("Ant") else {}
    made = make_raw_env(EnvConfig(env, kwargs))
    keys = ["observation"] if env.startswith("Franka") else None
    file = write(tmp_path / "a.hdf5", arrays)
    assert_refused(file, f"was not made in {env}", *parts, env=made, observation_keys=keys)
    made.close()


def test_a_format_that_is_not_known(tmp_path: Path) -> None:
    file = write(tmp_path / "a.npz", sound())
    with pytest.raises(ConfigError, match="format is 'rlds', expected one of auto, d4rl, ogbench"):
        open_file(file, format="rlds")  # type: ignore[arg-type]


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    file = write(tmp_path / "a.npz", sound())
    with pytest.raises(ValueError, match="storage_dir"):
        load_file(file, storage="memmap")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"action_scale": -1.0}, r"action_scale must be a number in \(0, 1\], found -1.0"),
        ({"action_scale": 2.0}, r"action_scale must be a number in \(0, 1\], found 2.0"),
        ({"online_fraction": 0.001, "online_capacity": 5}, "online_fraction=0.001 of batch_size=256 is not one row"),
        ({"online_fraction": 0.5}, "online_fraction=0.5 is about online rows, and there is no room for one"),
        ({"balanced": True}, "balanced=True is about online rows, and there is no room for one"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"online_capacity": -1}, "online_capacity must be a whole number of at least 0, got -1"),
        ({"max_transitions": 7.5}, "max_transitions is 7.5, expected None or a whole number"),
        ({"storage_dir": "rows"}, "storage_dir='rows' is for files of rows: give storage='memmap'"),
        ({"observation_keys": ["position"]}, r"observation_keys=\['position'\] take parts of an observation"),
        ({"reward": 0.1}, r"reward is 0.1, expected None or a rule: RewardRule\(scale=..., shift=...\)"),
    ],
)
def test_arguments_that_would_do_nothing_or_what_nobody_means(tmp_path: Path, options: Any, told: str) -> None:
    file = write(tmp_path / "a.npz", sound())
    with pytest.raises(ValueError, match=told):
        load_file(file, **options)


def test_two_arrays_of_one_meaning_that_differ(tmp_path: Path, name: str) -> None:
    arrays = sound()
    arrays["terminations"] = arrays["terminals"].copy()
    assert len(open_file(write(tmp_path / name, arrays)).spans) == 2
    arrays["terminations"][3] = 1
    assert_refused(write(tmp_path / name, arrays), "'terminals' and 'terminations' of", "differ, first in row 3")


def test_a_member_that_is_no_array(tmp_path: Path) -> None:
    file = write(tmp_path / "a.npz", sound())
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("notes.npy", b"no array")
    with pytest.raises(RuntimeError, match=r"a.npz cannot be read \(OSError: notes.npy is no array"):
        load_file(file)
