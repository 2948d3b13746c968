"""A bar on a terminal; in a pipe one line per evaluation and nothing else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from o3f.cli.progress import Progress

SCRIPT = """
from o3f.cli.progress import Progress
with Progress("online runs/[a]", total=4, done=1) as progress:
    for step in range(2, 5):
        progress.advance()
    progress.say("step 4: return [3.0]")
"""


def test_in_a_pipe_only_the_lines_are_printed(capsys):
    with Progress("online", total=3) as progress:
        progress.advance()
        progress.say("step 1: score [1] " + "x" * 200)
    assert capsys.readouterr().out == "step 1: score [1] " + "x" * 200 + "\n"


def test_on_a_terminal_a_bar_shows_the_steps():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT], stdout=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "online runs/[a]" in shown
    assert "4/4" in shown
    assert "step 4: return [3.0]\r\n" in shown
