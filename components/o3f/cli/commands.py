"""Recipes as command lines: the next steps that a recipe prints, and the runs that another one starts."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig


def command(recipe: str, *overrides: str) -> str:
    """Return how to start a recipe from where this one was started, ready to be typed.

    Examples:
        >>> command("evaluate", "run=runs/default")
        'python recipes/evaluate.py run=runs/default'
    """
    start = ["-m", f"o3f.recipes.{recipe}"] if _installed() else [f"recipes/{recipe}.py"]
    return shlex.join(["python", *start, *overrides])


def arguments(recipe: str, *overrides: str) -> list[str]:
    """Return the same command for :mod:`subprocess`: this interpreter, and the recipe wherever it lies."""
    if _installed():
        return [sys.executable, "-m", f"o3f.recipes.{recipe}", *overrides]
    return [sys.executable, str(Path(sys.argv[0]).resolve().with_name(f"{recipe}.py")), *overrides]


def given_overrides() -> list[str]:
    """Return the overrides on this command line, and ``--config-dir``, without the sweep's and Hydra's own."""
    if not HydraConfig.initialized():
        return []
    running = HydraConfig.get()
    folders = [source.path for source in running.runtime.config_sources if source.provider == "command-line"]
    return [*(f"--config-dir={os.path.relpath(folder)}" for folder in folders), *running.overrides.task]


def is_given(key: str) -> bool:
    """Whether the command line, and not a file, gives a key its value; False where there is no command line."""
    return any(each.lstrip("+").partition("=")[0] == key for each in given_overrides())


def _installed() -> bool:
    """Whether the running program is a recipe of the installed package, rather than a file of a clone."""
    main = sys.modules["__main__"]
    return (getattr(main, "__package__", None) or "").startswith("o3f.recipes")
