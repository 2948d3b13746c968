"""Every example in a docstring of the package gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest
import torch

import o3f


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, examples = [], 0
    for module in pkgutil.walk_packages(o3f.__path__, "o3f."):
        if module.name.rpartition(".")[2] == "__main__":
            continue
        with torch.random.fork_rng():
            found = doctest.testmod(importlib.import_module(module.name), optionflags=flags)
        examples += found.attempted
        failed += [module.name] if found.failed else []
    assert not failed, capsys.readouterr().out
    assert examples > 150
