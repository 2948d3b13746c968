"""Every tutorial runs as it is written, in order, in an empty folder, and its last figures say what its text says.

A block of a page is run (``python``), saved (a ``title`` names the file) or typed (``bash``: lines of ``export`` and
``python recipes/...``, read as a shell reads them and run in this process).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Do what a page says; returns what its blocks printed, one by one, and the names they left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which the recipes set: restored after the test
    monkeypatch.syspath_prepend(ROOT)
    threads, modules = torch.get_num_threads(), set(sys.modules)

    def run(page: str) -> tuple[list[str], dict[str, Any]]:
        names: dict[str, Any] = {"__name__": "__tutorial__"}
        printed = []
        for kind, title, code in BLOCK.findall((PAGES / f"{page}.md").read_text(encoding="utf-8")):
            if title:
                Path(title).parent.mkdir(parents=True, exist_ok=True)
                Path(title).write_text(code, encoding="utf-8")
            elif kind == "python":
                exec(compile(code, f"{page}.md", "exec"), names)
            elif kind == "bash":
                for line in code.replace("\\\n", " ").splitlines():
                    typed(shlex.split(line, comments=True), monkeypatch)
            if text := capsys.readouterr().out:
                printed.append(text)
        return printed, names

    yield run
    torch.set_num_threads(threads)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def typed(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Do what a line of a shell says."""
    if not words:
        return
    command, *rest = words
    if command == "export":
        for word in rest:
            name, value = os.path.expandvars(word).split("=", 1)
            patch.setenv(name, value)
            if name == "PYTHONPATH":
                patch.syspath_prepend(value)
        return
    assert command == "python", words
    script, *arguments = rest
    patch.setattr(sys, "argv", [script, *arguments])
    if script.startswith("recipes/"):
        recipe = importlib.import_module(f"recipes.{Path(script).stem}")
        with pytest.raises(SystemExit) as stop:
            recipe.main()
        assert stop.value.code == 0, words
    else:
        exec(compile(Path(script).read_text(encoding="utf-8"), script, "exec"), {"__name__": "__main__"})


def numbers(text: str) -> list[float]:
    """The numbers in a text."""
    return [float(word) for word in re.findall(r"-?\d+\.\d+", text)]


Follow = Callable[[str], tuple[list[str], dict[str, Any]]]


def test_an_environment_of_ones_own(follow: Follow) -> None:
    """Acting with O3F is far better than the pre-trained policy, and so is the policy at the end."""
    printed, _ = follow("own_task")
    data, offline, collecting, tuned = numbers(printed[-1])
    assert data == -26.5
    assert offline > -28
    assert collecting > offline + 5
    assert tuned > offline + 4
    assert json.loads(Path("runs/default/boat-iql-optimistic/seed0/evaluation.json").read_text())["episodes"] == 50
    assert any("Next: python recipes/finetune.py --config-dir=my_conf experiment=boat" in text for text in printed)
    assert "2000 steps, mean return -26.5\nodd: []" in "".join(printed)


def test_ones_own_torchrl_pipeline(follow: Follow) -> None:
    """The plain policy where TorchRL does not explore; elsewhere what the critics prefer, within the bounds."""
    printed, names = follow("own_torchrl")
    assert "same as the policy: True" in printed[-1]
    largest, gain, share = numbers(printed[-1])
    assert 1.0 < largest <= 2.0
    assert 0.02 < gain < 1.0
    assert share > 0.95
    assert len(names["buffer"]) == 1_200


def test_a_scorer_and_a_sampler_of_ones_own(follow: Follow) -> None:
    """By value: the mean of the largest of 100 Gaussian numbers, and no move where one critic can refuse."""
    printed, names = follow("own_scorer")
    assert [numbers(text) for text in printed] == [[0.5], [0.0, 0.5], [0.98, 0.0]]
    executed, scorer = names["executed"], names["KthLowest"]
    assert executed() == pytest.approx(0.2 * 2.508, abs=0.01)
    assert executed(scorer=scorer(2)) == executed()
    assert abs(executed(scorer=scorer(1))) < 0.01


@pytest.mark.slow
def test_choosing_sigma(follow: Follow) -> None:
    """The critics rank well at every sigma, and yet their choice loses where sigma is large."""
    _, names = follow("choosing_sigma")
    small, middle, large, few, many = map(names["read"], ("sigma_0.1", "sigma_0.4", "sigma_1.2", "n_4", "n_64"))
    assert min(each["rank_correlation"] for each in (small, middle, large)) > 0.3
    assert small["gain"] > small["gain_of_a_random_one"]
    assert large["gain_of_a_random_one"] < large["gain"] < -0.1 < small["gain"]
    assert few["gain"] < many["gain"]
