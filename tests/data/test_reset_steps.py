"""Resets that were recorded as steps are found, told and left out; what only looks like them is left alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import Autoreset
from minari import StepDataCallback

from docs.tools import recordings
from docs.tools.sections import section
from o3f.data import check_dataset, dataset_hash, dataset_info, load_file, load_minari, open_file
from tests.support.array_files import flat, write
from tests.support.minari_datasets import datasets_folder, make_episodes, stack, with_resets, write_dataset

SPACES: dict[str, Any] = {
    "observation_space": Dict(a=Box(-np.inf, np.inf, (2,), np.float64), b=Box(-np.inf, np.inf, (1,), np.float32)),
    "action_space": Box(-1.0, 1.0, (1,), np.float32),
}
TOLD = r"2 episode\(s\) of '.*', first episode 1, begin with a step that no action made"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    recordings.make()
    return datasets_folder(monkeypatch, tmp_path)


class Line(gymnasium.Env[Any, Any]):
    """A point that moves by a tenth of the action; reward 1 within 0.1 of a goal, which is elsewhere after each hit."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    goes_on = True

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-3, 3, 2)
        return np.array([self.position, self.goal]), {}

    def step(self, action: Any) -> Any:
        self.position += 0.1 * float(action[0])
        hit = abs(self.position - self.goal) < 0.1
        observation = np.array([self.position, self.goal])
        if hit and self.goes_on:
            self.goal = self.np_random.uniform(-3, 3)
        return observation, float(hit), hit and not self.goes_on, False, {"hit": hit}


class CutAtHits(StepDataCallback):
    """Ends an episode of the recording where the environment goes on."""

    def __call__(self, env: Any, **step: Any) -> Any:
        data = super().__call__(env, **step)
        return {**data, "truncated": data["truncated"] or bool(step["info"].get("hit"))}


def record_line(name: str, env: gymnasium.Env[Any, Any], **arguments: Any) -> None:
    recorder = minari.DataCollector(env, **arguments)
    now, _ = recorder.reset(seed=0)
    with recordings.recording():
        for _ in range(600):
            now, *_ = recorder.step(np.sign(now[1:] - now[:1]).astype(np.float32))
    recordings.save(recorder, name)


def test_what_recorders_leave_is_as_the_page_says() -> None:
    assert recordings.table() in section("recordings"), "run: python docs/tools/recordings.py"


def test_steps_in_which_autoreset_reset_are_told_with_their_number_and_left_out() -> None:
    """The rows left are those of the recording in which the same actions came in episodes of their own."""
    record = recordings.collector(Autoreset)
    kept, told, info = recordings.try_way(record, "tally/auto-v0")
    assert (kept["real"], kept["resets"], info.transitions, info.changes) == (64, 16, 80, {})
    (message,) = told
    assert "16 episode(s) of 'tally/auto-v0', first episode 1" in message
    assert "reset_steps=drop" in message
    left, told, info = recordings.try_way(record, "tally/auto-v0", reset_steps="drop")
    assert left == {"real": 64, **{kind: 0 for kind in recordings.KINDS[1:]}}
    (message,) = told
    assert "The first step of 16 episode(s) of 'tally/auto-v0' was left out" in message
    assert info.changes == {"dataset_dropped_reset_steps": 16}


def test_what_is_left_are_the_rows_of_the_data_without_resets(tmp_path: Path) -> None:
    """In datasets and files, with the same hash; only as many of them as are asked for, too."""
    clean = make_episodes([4, 3, 5], **SPACES)
    write_dataset("toy/clean-v0", clean, **SPACES)
    write_dataset("toy/resets-v0", with_resets(clean), **SPACES)
    expected = dataset_info(load_minari("toy/clean-v0")).hash
    assert dataset_hash("toy/resets-v0", reset_steps="drop") == expected != dataset_hash("toy/resets-v0")
    with pytest.warns(UserWarning, match=TOLD):
        assert dataset_info(load_minari("toy/resets-v0")).transitions == 14
    file = write(tmp_path / "resets.hdf5", flat(with_resets(clean)))
    with pytest.warns(UserWarning, match=TOLD):
        load_file(file)
    with pytest.warns(UserWarning, match=r"first step of 2 episode\(s\) of 'resets.hdf5' was left out"):
        assert dataset_info(load_file(file, reset_steps="drop")).hash == expected
    with pytest.warns(UserWarning, match="was left out"):
        rows = load_minari("toy/resets-v0", reset_steps="drop", max_transitions=5)[:]
    assert rows["action"].tolist() == load_minari("toy/clean-v0", max_transitions=5)[:]["action"].tolist()


def test_the_check_has_the_same_remark_and_choice(tmp_path: Path) -> None:
    write_dataset("toy/resets-v0", with_resets(make_episodes([4, 3, 5], **SPACES)), **SPACES)
    (remark,) = check_dataset("toy/resets-v0").remarks()
    assert "2 episode(s) of 'toy/resets-v0', first episode 1, begin with a step that no action made" in remark
    (remark,) = check_dataset("toy/resets-v0", reset_steps="drop").remarks()
    assert remark.startswith("The first step of 2 episode(s)")
    file = write(tmp_path / "resets.npz", flat(with_resets(make_episodes([4, 3, 5], **SPACES))))
    assert check_dataset(open_file(file), reset_steps="drop").transitions == 12
    with pytest.raises(ValueError, match="reset_steps is 'skip', expected 'keep' or 'drop'"):
        check_dataset("toy/resets-v0", reset_steps="skip")  # type: ignore[arg-type]


def test_episodes_of_several_environments_that_lie_mixed_are_found() -> None:
    """The end that an episode goes on from need not be that of the episode before it."""
    two = [with_resets(make_episodes([4, 3, 5], **SPACES, seed=seed)) for seed in (1, 2)]
    write_dataset("toy/two-v0", [each for both in zip(*two, strict=True) for each in both], **SPACES)
    (remark,) = check_dataset("toy/two-v0").remarks()
    assert "4 episode(s) of 'toy/two-v0', first episode 2, begin with a step that no action made" in remark


def test_a_recording_that_was_cut_without_a_reset_is_whole() -> None:
    """Its episodes begin with the last observation of the one before, and with reward 0: but nothing jumps."""
    record_line("line/cut-v0", Line(), step_data_callback=CutAtHits)
    report = check_dataset("line/cut-v0")
    assert len(report.starts.found) == len(report.returns) - 1 > 10
    assert {each.reward for each in report.starts.found[:-1]} == {0.0}
    assert report.remarks() == []
    rows = report.transitions
    assert check_dataset("line/cut-v0", reset_steps="drop").transitions == rows
    resetting = Line()
    resetting.goes_on = False
    record_line("line/auto-v0", Autoreset(resetting))
    report = check_dataset("line/auto-v0")
    assert report.starts.reset_steps() == list(range(1, len(report.returns)))


def test_ends_with_the_observation_after_a_reset_are_told_where_they_are_cut_off(tmp_path: Path) -> None:
    """Rewards may all be 0, as where they are sparse: it is the last step that jumps."""
    told = r"first episode 1, begin with what is recorded as the last observation of an earlier one, which was cut off"
    for ends, rewards in (("u", 1.0), ("u", 0.0), ("t", 1.0)):
        rng = np.random.default_rng(0)
        episodes = make_episodes([4, 4, 4, 4], **SPACES, ends=ends)
        for episode in episodes:
            walk = rng.normal(size=3) + 0.01 * rng.normal(size=(5, 3)).cumsum(axis=0)
            episode["observations"] = stack([{"a": row[:2], "b": row[2:].astype(np.float32)} for row in walk])
            episode["rewards"] *= rewards
        for before, after in itertools.pairwise(episodes):
            for key, values in before["observations"].items():
                values[-1] = after["observations"][key][0]
        remarks = " ".join(check_dataset(open_file(write(tmp_path / "a.npz", flat(episodes)))).remarks())
        assert ("3 episode(s) of 'a.npz', " + told in remarks) == (ends == "u")
        assert "no action made" not in remarks
