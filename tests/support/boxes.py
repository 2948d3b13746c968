"""Small components to save and restore, and a way to end a process in the middle."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch

from o3f.runs.checkpoint import checkpoints


class Box:
    """A component with one tensor, whose methods can be made to fail or to draw random numbers."""

    def __init__(self, value: float, on_load=lambda: None):
        self.tensor = torch.full((3, 2), float(value))
        self.on_load = on_load

    def state_dict(self):
        return {"tensor": self.tensor.clone()}

    def load_state_dict(self, state):
        self.tensor = state["tensor"]
        self.on_load()

    @property
    def value(self) -> float:
        assert (self.tensor == self.tensor[0, 0]).all()
        return self.tensor[0, 0].item()


def steps_in(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step_")) for path in checkpoints(folder)]


def in_child(work) -> int:
    """Run ``work`` in a forked process; its exit code, or minus the signal that ended it."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode
