"""A report counts what a dataset holds and lists all its faults; each fault: tests/faults/test_data.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from o3f.data import DatasetReport, check_dataset, load_minari
from tests.support.minari_datasets import Episodes, datasets_folder, make_episodes, write_dataset

SPACES: dict[str, Any] = {
    "observation_space": Box(-np.inf, np.inf, (3,), np.float64),
    "action_space": Box(-1.0, 1.0, (2,), np.float32),
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return datasets_folder(monkeypatch, tmp_path)


@pytest.fixture
def episodes() -> Episodes:
    return make_episodes([4, 5, 3], **SPACES)


def test_a_sound_dataset_is_counted(episodes: Episodes) -> None:
    write_dataset("toy/sound-v0", episodes, **SPACES)
    report = check_dataset("toy/sound-v0")
    assert (report.transitions, report.terminated, report.truncated, report.unfinished) == (12, 2, 1, 0)
    assert (report.clipped_actions, report.faults) == (0, {})
    assert report.returns == pytest.approx([float(each["rewards"].sum()) for each in episodes])


def test_all_faults_are_listed_at_once(episodes: Episodes) -> None:
    episodes[0]["rewards"][0] = np.nan
    episodes[1]["actions"][1, 1] = 7.0
    episodes[2]["truncations"][0] = True
    write_dataset("toy/faulty-v0", episodes, **SPACES)
    with pytest.raises(ValueError, match="Dataset 'toy/faulty-v0' cannot be used") as caught:
        check_dataset("toy/faulty-v0")
    for part in ("'rewards' is not finite", "'actions' exceeds", "'truncations' ends", "by up to 6 "):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("observations", r"'observations' of episode 1 has shape \(5, 3\), expected \(6, 3\) for 5 rewards"),
        ("actions", r"'actions' of episode 1 has shape \(4, 2\), expected \(5, 2\)"),
        ("terminations", r"'terminations' of episode 1 has shape \(4,\), expected \(5,\)"),
        ("truncations", r"'truncations' of episode 1 has shape \(4,\), expected \(5,\)"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_fields_of_another_length_would_mix_episodes(episodes: Episodes, field: str, found: str, check: bool) -> None:
    episodes[1][field] = episodes[1][field][:-1]
    write_dataset("toy/short-v0", episodes, **SPACES)
    with pytest.raises(ValueError, match=f"{found}.* T \\+ 1"):
        load_minari("toy/short-v0", check=check)


def test_without_transitions_there_is_nothing_to_check() -> None:
    with pytest.raises(ValueError, match="no transitions"):
        DatasetReport("toy/empty-v0").raise_faults()
