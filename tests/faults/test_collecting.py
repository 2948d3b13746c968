"""Faults while a dataset is collected, numbered as in docs/reliability.md: what was played is not lost for them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import minari
import numpy as np
import pytest

import tests.support.own_envs  # noqa: F401  (registers own/*)
from o3f.collection.behaviours import MinariWriter, UniformBehaviour, minari_writer, record, rollout
from o3f.data import check_dataset
from o3f.envs import EnvConfig, episode_seed, make_raw_env
from o3f.errors import EnvironmentFailure, ResourceError
from tests.support.faulty_envs import Faulty
from tests.support.minari_datasets import datasets_folder
from tests.support.own_envs import Kept
from tests.support.recipe_runs import command, run

ABOUT = {"behaviour": "uniform", "description": "a test"}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return datasets_folder(monkeypatch, tmp_path)


def task(env_id: str) -> list[str]:
    return ["task=custom", f"task.env.id={env_id}", "task.dataset.id=me/own-v0"]


def collect(env_id: str, *overrides: str) -> None:
    run("collect", *task(env_id), *overrides)


def episodes() -> list[Any]:
    return list(minari.load_dataset("me/own-v0").iterate_episodes())


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_f55_an_array_that_the_environment_changes_in_place_is_copied() -> None:
    """Without a copy all rows are the last one; the actions that it changes in place are those it was given."""
    collect("own/Kept-v0", "steps=10", "task.env.frame_skip=1")
    for number, episode in enumerate(episodes()):
        start = np.random.default_rng(episode_seed(0, number)).random()
        assert episode.observations.tolist() == [[float(step), start] for step in range(6)]
        assert np.ptp(episode.actions) > 0.01
    env = make_raw_env(EnvConfig("own/Kept-v0", frame_skip=2, max_episode_steps=2))
    env.reset(seed=0)
    env.step(np.ones(1, np.float32))
    assert [float(each[0]) for each in env.unwrapped.received] == [np.float32(0.1)] * 2  # type: ignore[attr-defined]


def test_f55_observations_that_stand_still_through_an_episode_are_told() -> None:
    env = make_raw_env(EnvConfig("own/Kept-v0"))
    trajectories = [rollout(env, UniformBehaviour(1), seed=0, episode=number, max_steps=5) for number in range(3)]
    trajectories[1].observations[:] = trajectories[1].observations[-1]
    with MinariWriter("me/own-v0", env, **ABOUT) as writer:
        for trajectory in trajectories:
            writer.add(trajectory)
        writer.publish()
    (remark,) = [each for each in check_dataset("me/own-v0").remarks() if "stand still" in each]
    assert "In 1 of 3 episodes" in remark
    assert "first in episode 1" in remark


def test_f57_an_environment_registered_by_its_class_is_written_by_its_name() -> None:
    gymnasium.register("own/ByClass-v0", Kept, max_episode_steps=5)
    collect("own/ByClass-v0", "steps=5", "+task.env.kwargs.high=0.5")
    spec = minari.load_dataset("me/own-v0").env_spec
    assert spec is not None
    assert (spec.entry_point, spec.kwargs) == ("tests.support.own_envs:Kept", {"high": 0.5})
    assert minari.load_dataset("me/own-v0").recover_environment().action_space.high == np.float32(0.5)


def test_f57_wrappers_of_the_entry_point_are_no_obstacle() -> None:
    """They are applied when it is called again; a lambda among their arguments could not be written."""
    collect("own/Bounded-v0", "steps=5")
    dataset = minari.load_dataset("me/own-v0")
    assert dataset.action_space == make_raw_env(EnvConfig("own/Bounded-v0")).get_wrapper_attr("bounds")
    assert dataset.recover_environment().action_space == dataset.action_space


def test_f57_what_cannot_be_written_is_refused_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(Kept):
        steps: ClassVar[int] = 0

        def step(self, action: Any) -> Any:
            Local.steps += 1
            return super().step(action)

    gymnasium.register("own/Local-v0", Local, max_episode_steps=5)
    with pytest.raises(ValueError, match=r"own/Local-v0 cannot be written.*gymnasium.register\('own/Local-v0', 'modu"):
        collect("own/Local-v0", "steps=5")
    assert Local.steps == 1  # the look at what the environment returns
    with pytest.raises(ResourceError, match=r"1000000000000000 steps need about 30000000000.0 MB, and .* MB left"):
        collect("own/Kept-v0", f"steps={10**15}")


def test_f57_an_episode_that_fails_is_left_out_and_the_others_are_kept(folder: Path) -> None:
    """The third step of two fifths of the episodes raises; the others have the seeds of their numbers."""
    with pytest.warns(
        RuntimeWarning, match=r"Episode \d is left out: motor 3 does not answer \(ConnectionError in step"
    ):
        collect("faulty/Env-v0", "steps=24", "+task.env.kwargs.share=0.4")
    seeds = [episode_seed(0, number) for number in range(9)]
    whole = [seed for seed in seeds if np.random.default_rng(seed).random() >= 0.4]
    assert [episode.observations[0, 1] for episode in episodes()] == [
        np.random.default_rng(seed).random() for seed in whole[:4]
    ]
    assert [len(episode.rewards) for episode in episodes()] == [6] * 4
    assert leftovers(folder) == []


@pytest.mark.parametrize("how", ["raise", "nonfinite", "reward", "exit"])
@pytest.mark.filterwarnings("ignore:Episode .* is left out")
def test_f57_where_every_episode_fails_what_is_whole_is_kept(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the fourth episode on; with a dataset of the same id there, that one stays."""
    reset = Faulty.reset

    def later(self: Faulty, *, seed: int | None = None, options: Any = None) -> Any:
        result = reset(self, seed=seed, options=options)
        self.share = 0.0 if seed in [episode_seed(0, number) for number in range(3)] else 1.0
        return result

    monkeypatch.setattr(Faulty, "reset", later)
    arguments = ["faulty/Env-v0", "steps=100", f"+task.env.kwargs.how={how}"]
    for overwrite in (False, True):
        with pytest.raises(EnvironmentFailure, match=r"Episode 5 is left out: (?s:.*)failure 3 in a row"):
            collect(*arguments, f"overwrite={overwrite}")
        assert [len(episode.rewards) for episode in episodes()] == [6, 6, 6]
        assert leftovers(folder) == []
        told = capsys.readouterr().err
        assert ("is as it was" if overwrite else "Kept: the 3 episodes that were whole, 18 steps, in ") in told


def test_f57_a_full_disk_leaves_no_hidden_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: Any, episodes: Any) -> None:
        if list(episodes):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("minari.dataset._storages.hdf5_storage.HDF5Storage.update_episodes", full)
    monkeypatch.setattr(minari_writer, "_STEPS_AT_ONCE", 10)
    with pytest.raises(ResourceError, match=r"could not be written after 0 steps: .Errno 28. No space left"):
        collect("own/Kept-v0", "steps=100")
    assert leftovers(folder) == []
    assert "Nothing was kept" in capsys.readouterr().err


def test_f57_what_was_written_before_the_disk_was_full_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Room at the start and for three times ten steps, and then none."""
    room = itertools.chain([10**9] * 4, itertools.repeat(0))
    monkeypatch.setattr(minari_writer.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(room)))
    monkeypatch.setattr(minari_writer, "_STEPS_AT_ONCE", 10)
    with pytest.raises(ResourceError, match=r"20 steps need about 0.1 MB"):
        collect("own/Kept-v0", "steps=100")
    assert [len(episode.rewards) for episode in episodes()] == [5] * 6
    assert "Kept: the 6 episodes that were whole, 30 steps" in capsys.readouterr().err
    assert leftovers(folder) == []


def test_f57_hidden_folders_of_processes_that_are_gone_are_swept(folder: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid in (gone.pid, os.getpid()):
        (folder / f".stage-{pid}-{minari_writer._HOST}-abc").mkdir()
    (folder / f".stage-{gone.pid}-elsewhere-abc").mkdir()
    minari_writer.sweep_stages(folder)
    assert sorted(leftovers(folder)) == sorted(
        [f".stage-{os.getpid()}-{minari_writer._HOST}-abc", f".stage-{gone.pid}-elsewhere-abc"]
    )


def test_f57_a_recording_writes_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minari_writer, "_STEPS_AT_ONCE", 10)
    env = make_raw_env(EnvConfig("own/Kept-v0"))
    written = []
    with MinariWriter("me/own-v0", env, **ABOUT) as writer:
        for trajectory in record(
            lambda: (make_raw_env(EnvConfig("own/Kept-v0")), UniformBehaviour(1)), seed=0, steps=23
        ):
            writer.add(trajectory)
            written.append(writer.steps)
        writer.publish()
    assert written == [0, 10, 10, 20, 20]
    assert [len(episode.rewards) for episode in episodes()] == [5, 5, 5, 5, 3]


def test_f57_sigterm_keeps_what_is_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, count = Kept.step, itertools.count(1)

    def stopped(self: Kept, action: Any) -> Any:
        if next(count) == 18:  # the first is the look at the environment, an episode has five
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, action)

    monkeypatch.setattr(Kept, "step", stopped)
    assert command("collect", *task("own/Kept-v0"), "steps=100", "progress=false") == 143
    assert [len(episode.rewards) for episode in episodes()] == [5] * 3
    told = capsys.readouterr().err
    assert "Kept: the 3 episodes that were whole, 15 steps" in told
    assert "stopped by SIGTERM" in told
    assert leftovers(folder) == []
