"""docs/tools/bits.py: equal numbers have equal digests, others do not, and a checkpoint is made once and then read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from docs.tools import bits


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "SIZES", {"hidden_sizes": (8,)})
    monkeypatch.setattr(bits, "UPDATES", 2)
    monkeypatch.setattr(bits, "STEPS", 40)
    monkeypatch.setattr(bits, "TASKS", ("Hopper-v5",))


def test_one_bit_more_is_another_digest() -> None:
    numbers = np.linspace(0, 1, 6, dtype=np.float32)
    assert bits.digest([numbers]) == bits.digest([numbers[:2], numbers[2:]])
    assert bits.digest([numbers]) != bits.digest([np.nextafter(numbers, 2, dtype=np.float32)])


def test_the_same_versions_print_the_same_digests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bits.main(tmp_path / "here")
    bits.main(tmp_path / "here")
    bits.main(tmp_path / "elsewhere")
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == second == third
    assert set(first) == {*bits.PACKAGES, "Hopper-v5", "iql", "awac", "cql", "checkpoint"}
    assert torch.__version__.startswith(first["torch"])
    assert len({first["iql"], first["awac"], first["cql"], first["Hopper-v5"]}) == 4


def test_a_checkpoint_that_is_there_is_read(tmp_path: Path) -> None:
    made = bits.loaded(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bits, "UPDATES", 1)  # what would be made now is another one
        assert bits.loaded(tmp_path) == made
        assert bits.loaded(tmp_path / "other") != made
