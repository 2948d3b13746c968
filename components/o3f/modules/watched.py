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
    buffers, state = module._buffers, module.__dict__
    present: list[Any] = [buffer for name in names if (buffer := buffers.get(name)) is not None]
    try:
        now = [(id(buffer), buffer._version) for buffer in present]
    except RuntimeError:  # made in inference mode, where writes are not counted
        return
    if state.get("_passed") != now:
        if all(buffer.device.type == "cpu" for buffer in present):
            check()
        state["_passed"] = now
