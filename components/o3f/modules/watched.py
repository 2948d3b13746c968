"""Settings that are tensors, changed in place while a pipeline runs: looked at once after each change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


def check_written(module: nn.Module, names: Iterable[str], check: Callable[[], None]) -> None:
    """Call ``check`` if one of these buffers was written, or replaced, since it last passed.

    torch counts the writes of a tensor, so nothing of a value is looked at where nothing was written: this takes less
    than a microsecond. Left out on a GPU, which would have to be waited for, and in compiled code.

    Args:
        module: holds the buffers.
        names: theirs.
        check: raises where a value is impossible.
    """
    if torch.compiler.is_compiling():
        return
    buffers: Any = module._buffers
    now = [(id(buffer), buffer._version) for buffer in map(buffers.get, names) if _told(buffer)]
    if module.__dict__.get("_passed") != now:
        if now:
            check()
        module.__dict__["_passed"] = now


def _told(buffer: Any) -> bool:
    """Whether a buffer is there, on a CPU, and one whose writes are counted."""
    return buffer is not None and buffer.device.type == "cpu" and not buffer.is_inference()
