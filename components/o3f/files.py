"""Files that are either the old version or the new one, whenever the process or the machine stops."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def fsync(path: Path) -> None:
    """Wait until ``path`` (a file, or a folder's list of names) is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(staged: Path, target: Path) -> None:
    """Move the finished file ``staged`` to ``target`` (same file system), durably and at once.

    Args:
        staged: a complete file; it is synchronised before it is moved, so that a power loss cannot publish an
            empty one.
        target: where readers look; an existing file is replaced.
    """
    fsync(staged)
    os.replace(staged, target)
    fsync(target.parent)


def write_text(target: Path, text: str) -> None:
    """Replace the contents of ``target`` by ``text``, durably and at once.

    Examples:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
        >>> write_text(file, "kept")
        >>> file.read_text()
        'kept'
    """
    staged = target.with_name(f".{target.name}.stage")
    try:
        staged.write_text(text, encoding="utf-8")
        publish(staged, target)
    finally:
        staged.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the digest of a file, as the ``sha256sum`` command prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
