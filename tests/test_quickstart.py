"""The quickstart, at toy size: every recipe as a command, a table, a figure, and commands that work."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.recipe_runs import ROOT


@pytest.mark.slow
def test_quickstart_runs_resumes_and_says_what_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    sizes = "['debug=toy','online.steps=1000','online.evaluate_every=1000','online.online_fraction=0.5']"
    command = [sys.executable, str(ROOT / "recipes/quickstart.py"), "seeds=[0]", "arms=[optimistic,policy]"]
    command += ["transitions=2000", f"overrides={sizes}"]
    outputs = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    tables = [[line for line in text.splitlines() if line.startswith("│")] for text in outputs]
    assert tables[0] == tables[1]  # finished runs are not done again
    assert len(tables[0]) == 2
    assert "O3F" in tables[0][0]
    assert "plain policy" in tables[0][1]
    assert (tmp_path / "runs/quickstart/quickstart.png").read_bytes().startswith(b"\x89PNG")
    evaluate = re.search(r"python recipes/(evaluate\.py run=\S+)", outputs[1])
    assert evaluate is not None
    script, run = evaluate[1].split()
    arguments = [sys.executable, str(ROOT / "recipes" / script), run, "episodes=1"]
    assert subprocess.run(arguments, cwd=tmp_path, check=False).returncode == 0
