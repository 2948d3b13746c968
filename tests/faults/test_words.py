"""What does not fit ends in a few lines and a documented exit code, never in a stack trace."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from o3f.adapters.native import agent_tensors, read_own, settings
from o3f.algorithms.agent import Agent
from o3f.cli.messages import end_output, report
from o3f.errors import CheckpointError, ConfigError, first_lines
from o3f.modules import gaussian_policy
from o3f.runs.files import read_json
from o3f.runs.given import given_folders
from o3f.runs.identity import run_path
from o3f.training.checks import check_collector
from o3f.training.load import load_run
from o3f.training.task_checks import check_task
from recipes import evaluate
from tests.support import recipe_runs
from tests.support.recipe_runs import TINY


@pytest.fixture
def theirs(pretrained: str, place: Path) -> Path:
    """A copy of a finished run, to be spoilt."""
    return Path(shutil.copytree(pretrained.removeprefix("pretrained="), "theirs"))


def spoil(folder: Path, pattern: str, text: str) -> None:
    file = folder / "config.yaml"
    changed = re.sub(pattern, text, file.read_text(), flags=re.DOTALL)
    assert changed != file.read_text()
    file.write_text(changed)


@pytest.mark.parametrize(
    ("pattern", "text", "code", "told"),
    [
        (r"\A.*", "", 2, "holds no named values"),
        (r"\nalgorithm:.*", "", 2, "is no whole configuration"),
        (r"\A.*", "3", 2, "cannot be read"),
        (r"\nalgorithm:.*?\n(?=[a-z])", "\nalgorithm: null\n", 2, "algorithm is None, expected named values"),
        (r"\A.*", "a: 1", 2, "is no whole configuration"),
        (r"hidden_sizes:\n  - 16", "hidden_sizes:\n  - 8", 3, "the checkpoint of theirs is of another configuration"),
    ],
)
def test_f87_a_run_folder_that_does_not_fit_is_told_in_a_few_lines(
    pattern: str, text: str, code: int, told: str, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(theirs, pattern, text)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipe_runs.RECIPES, "evaluate", evaluate.main)
        assert recipe_runs.command("evaluate", "run=theirs", "episodes=1") == code
    errors = capsys.readouterr().err
    assert told in errors
    assert len(errors.splitlines()) <= 5
    assert "Traceback" not in errors


def test_f87_a_device_that_is_not_here(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="device=cuda:99 cannot be used here"):
        recipe_runs.run("finetune", *TINY, "device=cuda:99")
    for name, given in ((None, "null"), ("meta", "meta")):
        with pytest.raises(ConfigError, match=f"device={name} cannot be used here: expected cpu, cuda or cuda:NUMBER"):
            recipe_runs.run("finetune", *TINY, f"device={given}")
    spoil(theirs, "device: cpu", "device: cuda:99")
    _, learner = load_run(theirs)
    assert all(value.device.type == "cpu" for value in learner.loss.parameters())
    assert "Goes on with the CPU" in capsys.readouterr().out


@pytest.mark.parametrize("given", [None, [], 3, {"a": "b"}, ["a", None]])
def test_f87_runs_are_folders(given: Any) -> None:
    config = recipe_runs.settings("evaluate", "run=x")
    config.run = given
    with pytest.raises(ConfigError, match=r"run must be a run folder, or a list of them as in run=\[A,B\]; found"):
        evaluate.main(config)


def test_f87_a_folder_that_is_given_twice_counts_once() -> None:
    assert given_folders(["a", "b", "a/"]) == [Path("a"), Path("b")]


def test_f87_a_file_of_other_contents_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "done.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"done.json is damaged \(no named values, but \[\]\)"):
        read_json(tmp_path / "done.json")


def test_f87_memory_that_is_not_there_is_a_resource(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    assert report(refused.value) == 4


@pytest.mark.parametrize("seed", [2**70, -1, True])
def test_f87_seeds_are_within_what_generators_take(seed: Any) -> None:
    config = recipe_runs.settings("finetune", *TINY)
    config.seed = seed
    with pytest.raises(ConfigError, match=r"seed must be a whole number in \[0, 9e18\]"):
        check_task(config)
    config.seed = 2**62
    check_task(config)


def test_f87_the_root_of_runs_is_a_folder(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="runs must be the folder of all run folders, found None"):
        run_path({**config, "runs": None})


def test_f87_ray_is_asked_for_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=re.escape('pip install "o3f[ray]"')):
        check_collector(recipe_runs.settings("finetune", *TINY, "collector=ray"))


@pytest.mark.parametrize("bounds", [[2.0, -5.0], [0.0, float("nan")], ["low", 1.0], [1.0], None])
def test_f87_an_agents_header_with_wrong_bounds_is_refused(bounds: Any) -> None:
    agent = Agent(gaussian_policy(3, 2, [8]), None, None, None, "mine")
    header = {**settings(agent), "log_std_bounds": bounds}
    with pytest.raises(ConfigError, match=r"theirs\.safetensors is no agent that save_agent wrote"):
        read_own(agent_tensors(agent), json.dumps(header), "theirs.safetensors")
    for other in ("[]", "3", "{"):
        with pytest.raises(ConfigError, match="is no agent that save_agent wrote"):
            read_own(agent_tensors(agent), other, "theirs.safetensors")


def test_f87_an_output_that_cannot_be_written_is_no_success(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "output").open("w") as file:

        class Full:
            def flush(self) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            def fileno(self) -> int:
                return file.fileno()

        monkeypatch.setattr(sys, "stdout", Full())
        assert end_output(0) == 4
        assert end_output(3) == 3
    assert "the standard output cannot be written" in capsys.readouterr().err


def test_f87_what_nobody_expected_leaves_a_file_to_report(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2) @ torch.ones(3)
    assert report(raised.value, prefix="seed=1") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: [seed=1] RuntimeError: ")
    file = Path(re.search(r"please report it, with (\S+)\.\n", told)[1])  # type: ignore[index]
    assert "Traceback" in file.read_text()
    assert "torch.ones(2) @ torch.ones(3)" in file.read_text()
    file.unlink()
    assert first_lines("\n".join("abcdef")) == "a\nb\nc ..."
