"""How the process's allocator treats freed memory."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGE = 2**25  # the most that every glibc takes for the second


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free, in blocks of up to 32 MiB, instead of returning it to the system.

    The activations of an update are as large as those of the last one, but glibc gives large blocks back and gets
    new ones, whose pages the system must clear: with CQL's 31 actions a state that is a tenth of an update.

    Returns:
        Whether it was done; it is not where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _LARGE) and mallopt(_TRIM_THRESHOLD, 2**30))
