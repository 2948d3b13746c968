"""What needs no more than the configuration is answered before torch is imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted(file.stem for file in (ROOT / "recipes").glob("*.py") if file.stem != "__init__")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run python, which writes the name of each module that it imports to the standard error."""
    return subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=False)


def imported(ended: subprocess.CompletedProcess[str]) -> set[str]:
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def answer(recipe: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    ended = python(str(ROOT / "recipes" / f"{recipe}.py"), *arguments)
    assert "hydra" in imported(ended)  # or the check would see nothing
    assert not imported(ended) & {"torch", "tensordict", "torchrl", "numpy"}
    return ended


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_shows_its_configuration(recipe):
    ended = answer(recipe, "--cfg", "job")
    assert ended.returncode == 0
    assert "\n" in ended.stdout


def test_help():
    ended = answer("finetune", "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith("finetune is powered by Hydra")
    assert "exploration: ascent, matched_noise" in ended.stdout


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("online.stepz=3", "online.stepz: no such key. Did you mean online.steps"),
        ("task.env.kwarg={a: 1}", "task.env.kwarg: no such key. Did you mean task.env.kwargs"),
        ("+online.stepz=3", "online.stepz: no such key; nothing would read it. Did you mean online.steps"),
        ("task=hoper/medium", "task=hoper/medium: no such choice. Did you mean hopper/medium"),
        ("transfer.targets=maybe", "transfer.targets must be true or false, found 'maybe'."),
        ("threads=0", "threads must be a whole number in [1, 1024], found 0."),
    ],
)
def test_a_misspelt_command_line(argument, message):
    ended = answer("finetune", "task=hopper/medium", argument)
    assert ended.returncode == 2
    assert f"error: {message}" in ended.stderr


def test_the_package_alone_imports_no_torch_and_knows_its_names():
    code = "import sys, o3f; assert 'OptimisticActor' in dir(o3f); assert 'torch' not in sys.modules"
    names = "from o3f import OptimisticActor, load_minari; import o3f; assert all(hasattr(o3f, n) for n in o3f.__all__)"
    rooms = "assert o3f.OptimisticActor is o3f.modules.OptimisticActor; assert o3f.objectives; assert o3f.data"
    ended = python("-c", f"{code}\n{names}\n{rooms}\nassert 'torch' in sys.modules\no3f.nothing")
    assert "\nAttributeError: module 'o3f' has no attribute 'nothing'\n" in ended.stderr
