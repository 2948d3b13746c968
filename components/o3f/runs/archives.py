"""What a checkpoint's archive may hold: tensors, numbers and text, and nothing that a reader would execute or follow.

A digest beside a file says that it is whole, not who wrote it. TorchRL and tensordict unpickle what an archive holds
in some of their formats, so the contents are checked before either reads them.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from torchrl.checkpoint import Checkpoint
from torchrl.checkpoint import CheckpointError as UnreadableError

from o3f.errors import CheckpointError
from o3f.runs.files import sha256

_MEMBER = re.compile(r"manifest\.json|components/\d{4}-[A-Za-z0-9._-]+/state\.(json|tdz)")
_TENSOR = re.compile(r"meta\.json|[A-Za-z0-9_]+\.memmap")
_TYPES = ("<class 'tensordict._td.TensorDict'>",)


def verified_manifest(path: Path, digest_file: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint that is whole and holds what it may.

    Raises:
        torchrl.checkpoint.CheckpointError: it is damaged.
        zipfile.BadZipFile: it is damaged, or holds what does not belong there.
        o3f.errors.CheckpointError: its format is newer than the installed TorchRL.
    """
    try:
        intact = sha256(path) in digest_file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(str(error)) from None
    if not intact:
        raise UnreadableError(f"its SHA-256 is not the one in {digest_file.name}")
    check_archive(path)
    try:
        return dict(Checkpoint.manifest(path))
    except UnreadableError as error:
        if "newer checkpoint format" in str(error):
            raise CheckpointError(f"{path} was written by a newer version of torchrl: {error} Use that one.") from error
        raise


def check_archive(path: Path) -> None:
    """Raise unless ``path`` is an archive such as :func:`o3f.runs.checkpoint.save` writes, of the size it says.

    Raises:
        zipfile.BadZipFile: naming what does not belong there: pickles, links, paths out of the folder, compressed or
            overlapping members (which could fill a disk), types other than plain tensors.
    """
    with zipfile.ZipFile(path) as archive:
        _check_members(archive, _MEMBER, path.stat().st_size)
        for member in archive.infolist():
            if member.filename.endswith(".tdz"):
                with archive.open(member) as file, zipfile.ZipFile(file) as tensors:
                    _check_members(tensors, _TENSOR, member.file_size)
                    _check_type(tensors)


def _check_members(archive: zipfile.ZipFile, allowed: re.Pattern[str], size: int) -> None:
    members = archive.infolist()
    for member in members:
        regular = member.external_attr >> 28 in (0, 0o10)  # the file type of st_mode: unknown or a plain file
        if not allowed.fullmatch(member.filename) or not regular or member.compress_type != zipfile.ZIP_STORED:
            raise zipfile.BadZipFile(f"{member.filename!r} does not belong into a checkpoint")
    if len({member.filename for member in members}) < len(members) or sum(m.file_size for m in members) > size:
        raise zipfile.BadZipFile("its members overlap")


def _check_type(tensors: zipfile.ZipFile) -> None:
    try:
        found = json.loads(tensors.read("meta.json"))["_type"]
    except (KeyError, TypeError, ValueError) as error:
        raise zipfile.BadZipFile("its tensors have no readable description") from error
    if found not in _TYPES:
        raise zipfile.BadZipFile(f"it holds a {found}, not plain tensors")
