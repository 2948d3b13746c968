"""Files that are either the old version or the new one, whenever the process or the machine stops."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from o3f.errors import CheckpointError


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


def read_json(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file that :func:`write_text` wrote.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Restore it, or delete the folder.") from error


def sha256(path: Path) -> str:
    """Return the digest of a file, as the ``sha256sum`` command prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class AppendFile:
    """Appends to a file in whole blocks: a block that cannot be written stays in memory for the next attempt.

    Args:
        path: created at the first write if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending = bytearray()

    def add(self, block: bytes) -> None:
        """Keep a block until the next :meth:`write`."""
        self._pending += block

    def write(self, *, durable: bool = False) -> None:
        """Append what is kept; with ``durable`` wait until it is on the disk.

        Raises:
            OSError: disk full, for example; the file is as long as before and nothing is lost.
        """
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                written = 0
                while written < len(self._pending):
                    written += os.write(descriptor, self._pending[written:])
            except OSError:
                os.ftruncate(descriptor, size)
                raise
            self._pending.clear()
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
