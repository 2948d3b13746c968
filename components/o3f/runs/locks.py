"""One process at a time in a run folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from o3f.errors import ResourceError


def lock_folder(path: Path, timeout: float) -> FileLock:
    """Take a folder for this process; the system lets go of it with the process, however that ends.

    Args:
        path: an existing folder.
        timeout: seconds to wait for another process; -1 waits for ever.

    Raises:
        ResourceError: another process has it; the message says which.
        OSError: the folder cannot be written.
    """
    lock, owner = FileLock(path / ".lock", thread_local=False), path / ".owner"
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        who = owner.read_text(encoding="utf-8") if owner.exists() else "unknown"
        raise ResourceError(f"{path} is in use by process {who}; wait for it, or stop it first.") from None
    owner.write_text(f"{os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    return lock
