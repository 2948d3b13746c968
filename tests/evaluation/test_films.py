"""Films of a run, when asked for: of the evaluated episode, and no number of the run is another one."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
from tensordict.nn import TensorDictModule

import tests.support.toy_envs  # noqa: F401  (registers toy/*)
from o3f.envs import EnvConfig
from o3f.evaluation.video import record_video
from tests.support.recipe_runs import SCRATCH, assert_same_run, run

COUNTER = [
    *(
        "task=custom",
        "task.name=counter",
        "task.env.id=toy/Counter-v0",
        "task.dataset.id=none",
        "+task.env.kwargs.end=10",
        "debug=toy",
    ),
    *SCRATCH,
]


def test_films_lie_in_the_run_folder_and_change_no_number(place: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    without = run("finetune", *COUNTER, "name=without")
    filmed = run("finetune", *COUNTER, "name=filmed", "evaluation.video_every=60")
    assert_same_run(without, filmed)
    assert not (without / "videos").exists()
    films = sorted((filmed / "videos").iterdir())
    assert [film.name for film in films] == ["step_0.mp4", "step_60.mp4"]  # evaluated at 0, 30 and 60
    assert [imageio_ffmpeg.count_frames_and_secs(str(film))[0] for film in films] == [11, 11]


def test_without_what_films_need_the_run_warns_and_is_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = run("finetune", *COUNTER, "name=without")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        unfilmed = run("finetune", *COUNTER, "name=unfilmed", "evaluation.video_every=30")
    told = [str(each.message) for each in caught if "No video was recorded" in str(each.message)]
    assert len(told) == 1  # of three, to the same place
    assert 'pip install "o3f[video]"' in told[0]
    assert_same_run(without, unfilmed)


def test_a_run_goes_on_with_films(place: Path) -> None:
    """Whether a run is filmed is no part of what it is."""
    folder = run("finetune", *COUNTER)
    scores = (folder / "done.json").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run("finetune", *COUNTER, "evaluation.video_every=30") == folder
    assert (folder / "done.json").read_bytes() == scores


def test_a_film_replaces_a_link_and_leaves_alone_what_it_leads_to(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    outside, link = tmp_path / "outside.txt", tmp_path / "policy.mp4"
    outside.write_text("mine")
    link.symlink_to(outside)
    still = TensorDictModule(lambda observation: observation[..., :1] * 0, ["observation"], ["action"])
    assert record_video(still, EnvConfig("toy/Counter-v0", kwargs={"end": 3}), link, seed=0) == link
    assert outside.read_text() == "mine"
    assert not link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside.txt", "policy.mp4"]
