"""The recipes on a file in place of a Minari dataset: the same run, continued wherever the file lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import minari
import pytest

from o3f.data import dataset_hash
from o3f.runs.files import read_json
from o3f.runs.folder import RunFolder
from tests.support.array_files import flat, write
from tests.support.minari_datasets import with_resets
from tests.support.recipe_runs import TINY, assert_same_run, command, part, run, run_stopped, same

TASK = ["task=custom", "task.env.id=Reacher-v5", "debug=toy", "task.reward={scale: 0.5, shift: -1.0}"]
FILE = [*TASK, "dataset=path", "dataset.path=reacher.hdf5"]


@pytest.fixture(autouse=True)
def file(place: Path) -> Path:
    """The shared dataset as D4RL would have written it."""
    episodes: list[dict[str, Any]] = [vars(each) for each in minari.load_dataset("me/reacher-v0").iterate_episodes()]
    return write(place / "reacher.hdf5", flat(episodes))


def test_a_file_trains_the_same_agent_as_the_dataset() -> None:
    ours, theirs = run("pretrain", *FILE, "name=file"), run("pretrain", *TINY, "name=minari")
    assert same(part(ours, "learner"), part(theirs, "learner"))
    facts, others = read_json(ours / "env.json"), read_json(theirs / "env.json")
    assert (facts["dataset"], facts["dataset_hash"]) == ("reacher.hdf5", others["dataset_hash"])


def test_a_run_is_continued_where_the_file_was_moved_and_not_on_other_rows(file: Path, place: Path) -> None:
    """Killed between two checkpoints, moved, continued: the run that was never stopped. Another file is refused."""
    settings = [*FILE, "online.steps=60", "name=stopped"]  # checkpoints at 50 and 60
    whole = run("finetune", *settings, "name=whole")
    run_stopped(RunFolder, "save", 2, *settings)
    (place / "elsewhere").mkdir()
    moved = file.rename(place / "elsewhere" / file.name)
    settings.append(f"dataset.path={moved}")
    content = moved.read_bytes()
    with h5py.File(moved, "a") as changed:
        changed["rewards"][7] += 1.0
    with pytest.raises(ValueError, match="dataset_hash"):
        run("finetune", *settings)
    moved.write_bytes(content)
    assert_same_run(run("finetune", *settings), whole)


def test_resets_among_the_steps_are_left_out_where_that_is_asked_for(place: Path) -> None:
    """Then the rows are those of the dataset without them, by their hash; the run notes how many were left out."""
    episodes: list[dict[str, Any]] = [vars(each) for each in minari.load_dataset("me/reacher-v0").iterate_episodes()]
    write(place / "resets.hdf5", flat(with_resets(episodes)))
    settings = [*FILE, "dataset.path=resets.hdf5", "dataset.reset_steps=drop"]
    with pytest.warns(UserWarning, match=f"first step of {len(episodes) - 1} episode"):
        facts = read_json(run("pretrain", *settings, "name=dropped") / "env.json")
    assert facts["dataset_dropped_reset_steps"] == len(episodes) - 1
    assert facts["dataset_hash"] == dataset_hash("me/reacher-v0")


def test_faults_of_the_file_end_a_recipe_with_one_message(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for override, message in {
        "dataset.path=none.hdf5": "There is no file none.hdf5",
        "dataset.format=rlds": "dataset.format: 'rlds' is not known",
        "task.env.id=Hopper-v5": "observations: 10 numbers in the file, 11 here",
    }.items():
        assert command("pretrain", *FILE, override) == 2
        assert message in capsys.readouterr().err
    assert command("pretrain", *TASK, "dataset=path") == 2
    assert "no value for dataset.path" in capsys.readouterr().err
    with h5py.File(file, "a") as broken:
        del broken["terminals"]
    assert command("finetune", *FILE) == 2
    assert "has no terminals. Found: actions (300, 2), " in capsys.readouterr().err
