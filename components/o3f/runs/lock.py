"""A run's folder belongs to one process at a time."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from o3f.errors import ResourceError
from o3f.runs.files import read_text, refuse_links, write_text


def lock_folder(path: Path, timeout: float) -> FileLock:
    """Take a folder for this process; the system lets go of it with the process, however that ends.

    Args:
        path: an existing folder.
        timeout: seconds to wait for another process; -1 waits for ever.

    Raises:
        ResourceError: another process has it; the message says which.
        OSError: the folder cannot be written.
    """
    refuse_links(path)
    lock, owner = FileLock(path / ".lock", thread_local=False), path / ".owner"
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        who = read_text(owner) if owner.exists() else "unknown"
        raise ResourceError(f"{path} is in use by process {who}; wait for it, or stop it first.") from None
    except FileNotFoundError:  # who had it was refused before its first step, and took the folder away: begin there
        path.mkdir(parents=True, exist_ok=True)
        return lock_folder(path, timeout)
    if not Path(lock.lock_file).exists():  # likewise, a moment later: this would be a lock that nobody else meets
        lock.release()
        path.mkdir(parents=True, exist_ok=True)
        return lock_folder(path, timeout)
    write_text(owner, f"{os.getpid()} on {socket.gethostname()}")
    return lock
