"""The wheel carries package, recipes and configurations, and runs from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of a freshly built wheel, as pip would lay them out."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("o3f-*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(site: Path, folder: Path, *arguments: str) -> str:
    """Run Python from an empty folder with the wheel's contents first on its path."""
    environment = os.environ | {"PYTHONPATH": str(site), "MINARI_DATASETS_PATH": str(folder / "datasets")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_is_in_the_wheel(installed: Path) -> None:
    assert {"components", "recipes", "conf", "tests"}.isdisjoint(path.name for path in installed.iterdir())
    for part in ("py.typed", "cli/assets/halfcheetah.npz", "recipes/finetune.py", "conf/task/hopper/medium.yaml"):
        assert (installed / "o3f" / part).is_file(), part
    recipes = {path.name for path in (ROOT / "recipes").glob("*.py")}
    assert {path.name for path in (installed / "o3f/recipes").glob("*.py")} == recipes


def test_recipes_run_as_modules_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import o3f; print(o3f.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    task = ["task=custom", "task.env.id=Reacher-v5", "task.dataset.id=test/reacher-v0"]
    told = run(installed, tmp_path, "-m", "o3f.recipes.collect", *task, "steps=200")
    assert "next: python -m o3f.recipes.pretrain" in told.lower()
    told = run(installed, tmp_path, "-m", "o3f.recipes.finetune", *task, "debug=toy")
    assert "python -m o3f.recipes.evaluate run=runs/default/Reacher-v5-iql-optimistic/seed0" in told
    assert (tmp_path / "runs/default/Reacher-v5-iql-optimistic/seed0/done.json").exists()
