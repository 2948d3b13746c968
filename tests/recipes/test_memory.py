"""Freed memory is kept: the same large tensors again cost no new pages."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from o3f.cli.recipe import keep_freed_memory

assert keep_freed_memory()
def use():
    parts = [torch.zeros(2**20) for _ in range(8)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_large_tensors_reuse_their_pages() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    pages = 20 * 8 * 2**22 // resource.getpagesize()
    assert int(done.stdout) < pages / 20
