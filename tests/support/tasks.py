"""Task files, composed as a recipe does."""

from __future__ import annotations

from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.support.recipe_runs import ROOT


def compose_task(name: str, *overrides: str, recipe: str = "collect") -> dict[str, Any]:
    """The configuration of a task file under some overrides, interpolations resolved and nothing missing."""
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        task = OmegaConf.to_container(
            compose(recipe, overrides=[f"task={name}", *overrides]).task, resolve=True, throw_on_missing=True
        )
    assert isinstance(task, dict)
    return task
