"""The quickstart, at toy size: every recipe as a command, a table, a figure, and commands that work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from recipes import quickstart
from tests.support.recipe_runs import ROOT, settings


@pytest.mark.slow
def test_quickstart_runs_resumes_and_says_what_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    sizes = "['debug=toy','online.steps=1000','online.evaluate_every=1000','online.online_fraction=0.5']"
    command = [sys.executable, str(ROOT / "recipes/quickstart.py"), "seeds=[0]", "arms=[optimistic,noise]"]
    command += ["transitions=2000", "compile=false", f"overrides={sizes}"]
    outputs = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    tables = [[line for line in text.splitlines() if line.startswith("│ half")] for text in outputs]
    assert tables[0] == tables[1]  # finished runs are not done again
    assert len(tables[0]) == 2
    assert "O3F" in tables[0][0]
    assert "Gaussian noise" in tables[0][1]
    assert (tmp_path / "runs/quickstart/comparison.png").read_bytes().startswith(b"\x89PNG")
    evaluate = re.search(r"python recipes/(evaluate\.py run=\S+)", outputs[1])
    assert evaluate is not None
    script, run = evaluate[1].split()
    arguments = [sys.executable, str(ROOT / "recipes" / script), run, "episodes=1"]
    assert subprocess.run(arguments, cwd=tmp_path, check=False).returncode == 0


def test_a_signal_ends_the_runs_and_starts_no_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of six runs two are at work, which would take a minute; the main thread is stopped while it waits for them."""
    monkeypatch.setattr(quickstart, "arguments", lambda *_: ["sleep", "60"])
    monkeypatch.setattr(quickstart, "is_local", lambda _: True)
    monkeypatch.setattr(quickstart, "STARTED", started := [])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the tests run in the background

    def stop() -> None:
        while len(started) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        quickstart.main(settings("quickstart", f"runs={tmp_path}"))
    signal.signal(signal.SIGINT, before)
    assert [process.poll() for process in started] == [-signal.SIGTERM] * 2


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The overrides of every recipe that the quickstart would have started."""
    calls: list[list[str]] = []
    monkeypatch.setattr(quickstart, "is_local", lambda _: True)
    monkeypatch.setattr(quickstart, "run", lambda recipe, overrides, after=None: calls.append(overrides) or "")
    monkeypatch.setattr(quickstart, "compare_runs", lambda *_: tmp_path)
    monkeypatch.setattr(quickstart, "found_runs", lambda runs: runs)
    return calls


@pytest.mark.parametrize("given", ["auto", "true", "false"])
def test_whether_steps_are_compiled_is_said_to_every_run(given: str, commands: list[list[str]], tmp_path: Path) -> None:
    quickstart.main(settings("quickstart", f"runs={tmp_path}", f"compile={given}"))
    assert len(commands) == 9
    assert all(f"algorithm.compile={given}" in overrides for overrides in commands)


@pytest.mark.parametrize(
    ("given", "tiles", "precision"),
    [("auto", True, "medium"), ("auto", False, "highest"), ("true", False, "medium"), ("false", True, "highest")],
)
def test_products_are_in_bf16_where_that_is_fast(
    given: str,
    tiles: bool,
    precision: str,
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": tiles}, raising=False)
    quickstart.main(settings("quickstart", f"runs={tmp_path}", f"bf16={given}"))
    assert all(f"precision={precision}" in overrides for overrides in commands)
