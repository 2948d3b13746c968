"""A whole gradient step as one compiled graph: losses, gradients, Adam and target networks."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from o3f.algorithms.guarded_adam import GuardedAdam
from o3f.errors import require

Step = Callable[..., dict[str, Tensor]]


def can_compile_steps() -> bool:
    """Whether this torch's compiler follows ``torch.autograd.grad``, and so a step from its batch to its targets."""
    return hasattr(torch._dynamo.config, "trace_autograd_ops")


def has_compiler() -> bool:
    """Whether steps can be compiled for a CPU here: by this torch, with ``$CXX`` or g++, and Python's headers."""
    headers = Path(sysconfig.get_path("include"), "Python.h")  # what is compiled is called from Python
    return can_compile_steps() and shutil.which(os.environ.get("CXX", "g++")) is not None and headers.is_file()


class CompiledStep:
    """A step that ``torch.compile`` has made one graph of, at its first call and for each new shape of a batch.

    What a step draws, it draws from torch's global stream, the same numbers as without compilation, so that a run
    stopped and resumed goes on with the same bits. Its results equal those of ``step`` but for the order of
    floating-point operations.

    Args:
        step: takes tensors and TensorDicts, returns detached tensors by name; changes networks, targets and
            optimisers in place, and nothing else.
        optimisers: those it steps, by name.

    Raises:
        ConfigError: if this torch cannot compile steps.
    """

    def __init__(self, step: Step, optimisers: Mapping[str, GuardedAdam]) -> None:
        require(
            can_compile_steps(),
            f"compile=true needs a torch whose compiler follows gradients, as 2.13 does; this is {torch.__version__}.",
        )
        self._optimisers = optimisers
        # dynamic=False: with a symbolic batch size torch cannot trace draws that take a generator, be it None.
        self._step: Any = torch.compile(step, fullgraph=True, dynamic=False, options={"fallback_random": True})

    def __call__(self, *inputs: Any) -> dict[str, Tensor]:
        """Take the step."""
        for optimiser in self._optimisers.values():
            optimiser.prepare_traced()
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            results: dict[str, Tensor] = self._step(*inputs)
        return results
