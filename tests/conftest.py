"""Data for the tests that run recipes, made once, and an empty folder to run them in.

torch is imported where it is used: the process that hands tests to others reads this file, too, before it starts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

#: Tests of TorchRL's Hydra tree.
TREE = ("test_torchrl_tree", "test_torchrl_examples")

#: Files whose tests start many processes. They are begun first, so that at the end nobody waits for one of them.
LONG = ("test_crash.py", "test_compiled_step.py", "test_wheel.py", "test_sweeps.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long tests at the beginning; the order of all others stays."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes run without TorchRL's Hydra tree; where a test has imported it, its groups are the whole process's."""
    if request.module.__name__.rpartition(".")[2] not in TREE:
        from hydra.core.config_store import ConfigStore

        store = ConfigStore.instance()
        own = {name: node for name, node in store.repo.items() if name in ("hydra", "_dummy_empty_config_.yaml")}
        monkeypatch.setattr(store, "repo", own)


@pytest.fixture(scope="session")
def shared_datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of Minari datasets with six episodes of Reacher."""
    from tests.support.recipe_runs import make_dataset

    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        make_dataset()
    return folder


@pytest.fixture
def place(shared_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to run recipes in."""
    import torch

    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
