"""The documentation: the site builds without a warning and needs no network; what its pages say of the code is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from o3f.algorithms import make_learner
from o3f.data import RETURN_KEY, load_file
from o3f.runs import tags
from tests.support.learners import NAMES
from tests.support.pages import blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HEADS = ["Overview", "Usage", "Logged metrics explained", "Differences from paper and reference code", "Results"]
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video)[^>]*\ssrc=\"?(https?:)?//|<link(?![^>]*canonical)[^>]*href=\"?https?://"
)


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    """Pages, links, anchors, links to files outside docs/, and the names that docstrings refer to."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "security.html", "reference/acting.html", "tutorials/own_task.html"} <= pages.keys()
    for name, path in pages.items():
        text = path.read_text(encoding="utf-8")
        assert not FETCHED.search(text), (name, FETCHED.search(text))
        assert not re.search(r":(?:class|func|meth|attr|data|mod|math):|\.\. math::", text), name
    acting = pages["reference/acting.html"].read_text(encoding="utf-8")
    assert re.search(r'<a class="autorefs[^>]*href="networks.html#o3f.modules.EnsembleQValue"><code>', acting)
    assert acting.count('<p class="math"><img') >= 8


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_an_algorithm_runs_and_names_every_figure(name: str) -> None:
    page = DOCS / "algorithms" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADS
    (code,) = blocks(page)
    run: dict[str, Any] = {}
    exec(code, run)
    figures = {f"train/{tag}" for tag in run["figures"]}
    if name == "cql":
        batch = run["batch"].set(RETURN_KEY, run["batch"]["next", "reward"].clone())
        learner = make_learner("cql", 17, 6, {"hidden_sizes": [8], "lagrange": "weighted_gap", "calibrate": True})
        figures |= {f"train/{tag}" for tag in learner.update([batch])}
    assert set(re.findall(r"^\| `(train/[^`]+)`", text, re.MULTILINE)) == figures
    assert run["actor"](run["batch"].select("observation"))["action"].abs().max() <= 1


def test_the_example_of_own_data_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, of_sb3 = blocks(DOCS / "own-data.md")
    run: dict[str, Any] = {}
    exec(code, run)
    assert capsys.readouterr().out == "98 2 2\n"
    assert "It prints `98 2 2`." in (DOCS / "own-data.md").read_text(encoding="utf-8")
    exec(of_sb3, run)
    assert len(load_file("replay.npz", env=gymnasium.make("Pendulum-v1"))) == 300


def test_the_example_of_the_first_page_runs() -> None:
    run: dict[str, Any] = {}
    for code in blocks(DOCS / "index.md"):
        exec(code, run)
    assert run["action"].shape == (6,)


def test_the_page_of_figures_is_the_list_in_the_code() -> None:
    """After a change there: the output of ``python -m o3f.tags`` belongs into docs/metrics.md."""
    assert tags.table() in (DOCS / "metrics.md").read_text(encoding="utf-8")
