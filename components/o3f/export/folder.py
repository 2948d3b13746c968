"""An exported policy's folder: written beside its place, checked, and moved there as a whole."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from o3f.collection.behaviours.gaussian_mlp import GaussianMLP
from o3f.errors import ConfigError, require
from o3f.runs.files import fsync, sha256

FORMAT = "o3f-policy-1"
FILES = ("model.safetensors", "policy.pt2", "optimistic.pt2", "policy.json", "README.md")


def check_destination(target: Path, *, overwrite: bool) -> None:
    """Refuse a destination that exists, or with ``overwrite`` one that is not an exported policy.

    Raises:
        ConfigError: saying what is there.
    """
    if not (target.exists() or target.is_symlink()):
        return
    require(overwrite, f"to={target} exists already. Give another one, or overwrite=true to replace it.")
    if target.is_file() and not target.is_symlink():
        require(
            _is_exported_file(target),
            f"to={target} is a file that no export wrote, so it is not overwritten. Give another name, or remove it"
            " yourself.",
        )
    if target.is_dir() or target.is_symlink():
        foreign = sorted({path.name for path in target.iterdir()} - set(FILES)) if target.is_dir() else ["a link"]
        if target.is_symlink() or foreign or not (target / "policy.json").exists():
            raise ConfigError(
                f"to={target} is not an exported policy (found {', '.join(foreign) or 'no policy.json'}), so it is"
                " not overwritten. Give another folder, or remove this one yourself."
            )


def _is_exported_file(target: Path) -> bool:
    try:
        GaussianMLP.load(target)
    except (OSError, ValueError):
        return False
    return True


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside ``target`` that takes its place when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        staged = Path(scratch) / "new"
        staged.mkdir()
        yield staged
        for file in staged.iterdir():
            file.chmod(0o644)  # some writers make theirs private, others do not
            fsync(file)
        fsync(staged)
        if target.exists():
            target.rename(Path(scratch) / "old")
        os.replace(staged, target)
        fsync(target.parent)
        shutil.rmtree(Path(scratch) / "old", ignore_errors=True)


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``policy.json``: facts, and the SHA-256 of the files there. Returns its contents."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    manifest = {"format": FORMAT, **facts, "files": files}
    text = json.dumps(manifest, indent=2, allow_nan=False)
    text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)  # a list on a line
    (folder / "policy.json").write_text(text + "\n", encoding="utf-8")
    return manifest
