"""A pre-trained agent and an undisturbed run, made once and shared by the tests that do not touch them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.recipe_runs import SHORT, TINY, run


@pytest.fixture(scope="session")
def pretrained(shared_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """``pretrained=FOLDER`` of a finished pre-training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
        folder = run("pretrain", *TINY, f"runs={tmp_path_factory.mktemp('shared')}")
    return f"pretrained={folder}"


@pytest.fixture(scope="session")
def undisturbed(pretrained: str, shared_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of SHORT that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
        return run("finetune", *SHORT, pretrained, f"runs={tmp_path_factory.mktemp('undisturbed')}")


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """The least that a run folder needs."""
    return {
        "runs": str(tmp_path / "runs"),
        "name": "first",
        "task": {"name": "hopper-medium", "sigma": 0.2},
        "algorithm": {"name": "iql", "expectile": 0.7},
        "exploration": {"kind": "optimistic", "sigma": 0.2},
        "seed": 3,
        "resume": "auto",
        "threads": 1,
    }
