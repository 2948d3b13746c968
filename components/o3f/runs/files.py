"""Files that are either the old version or the new one, whenever the process or the machine stops."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from o3f.errors import CheckpointError, ConfigError


class UnreadableFile(ValueError):
    """A file is not what a run writes."""


def fsync(path: Path) -> None:
    """Wait until ``path`` (a file, or a folder's list of names) is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """An empty temporary folder of this process; those that killed ones left are removed.

    Args:
        prefix: of its name, which goes on with the process's id and the machine's name.
    """
    host = socket.gethostname()
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}-*-{host}-*"):
        pid = left.name.removeprefix(f"{prefix}-").partition("-")[0]
        if pid.isdigit() and Path("/proc/self").exists() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{prefix}-{os.getpid()}-{host}-") as folder:
        yield Path(folder)


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
    # A name that nobody could have put a link at: the folder may come from others.
    staged = target.with_name(f".{target.name}.{secrets.token_hex(8)}.stage")
    try:
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "w", encoding="utf-8") as file:
            file.write(text)
        publish(staged, target)
    finally:
        staged.unlink(missing_ok=True)


def read_text(path: Path, limit: int = 1_000_000) -> str:
    """Return the text of a plain file of at most ``limit`` bytes.

    Raises:
        UnreadableFile: it is larger, or no plain file, which might never end.
        OSError: it cannot be opened.
        UnicodeDecodeError: it is no text.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for its other end
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise UnreadableFile(f"{path} is no plain file of at most {limit} bytes")
        return file.read(limit).decode("utf-8")


def refuse_links(folder: Path) -> None:
    """Raise :class:`~o3f.errors.ConfigError` where a folder that will be written into holds a symbolic link."""
    for place, folders, names in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *names)):
            if path.is_symlink():
                raise ConfigError(
                    f"{path} is a symbolic link, to {os.readlink(path)}: a run writes into its own folder alone."
                    " Remove the link; for another disk, give runs=FOLDER."
                )


def read_json(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file that :func:`write_text` wrote.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        contents = json.loads(read_text(path))
        if not isinstance(contents, dict):
            raise TypeError(f"no named values, but {contents!r:.40}")
        return contents
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Restore it, or delete the folder.") from error


def read_scores(path: Path) -> dict[str, Any]:
    """Return the scores in a ``done.json``, by which a run counts as finished.

    Raises:
        CheckpointError: it is damaged, or holds something else.
    """
    scores = read_json(path)
    odd = [name for name, value in scores.items() if not isinstance(value, int | float) or value != value]
    if not scores or odd:
        found = f"{odd[0]!r}: {scores[odd[0]]!r:.40}" if odd else "nothing"
        raise CheckpointError(
            f"{path} is not what a finished run writes, the step and its scores, but has {found}. Delete that file, and"
            " the same command finishes the run from its last checkpoint."
        )
    return scores


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
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
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
