"""Checkpoints that survive a kill, a full disk and a damaged file.

A thin layer over :mod:`torchrl.checkpoint`, which brings the container, the manifest and the encoding of
state dicts without pickle. TorchRL's default payload (memory-mapped folders) loads damaged weights silently
and dies of SIGBUS on a full disk, so each component is stored here as an archive, which carries a CRC. Added:
files synchronised before they are published, a SHA-256 beside each, a check of what the archive holds, fall-back
to the newest good one, all-or-nothing restore, and the global random state (torch, numpy, python), always saved,
restored last.

::

    checkpoints/step_000000020000.ckpt           one archive: manifest, and a state dict for each component
    checkpoints/step_000000020000.ckpt.sha256    its digest
    checkpoints/newest                           the name of the newest, so that one that was removed is missed
"""

from __future__ import annotations

import copy
import errno
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torchrl.checkpoint import Checkpoint, GlobalRNGState, StateDictCheckpointAdapter
from torchrl.checkpoint import CheckpointError as UnreadableError

from o3f.errors import CheckpointError, first_lines
from o3f.runs.archives import verified_manifest
from o3f.runs.files import publish, sha256, write_text
from o3f.runs.stateful import Stateful

FOLDERS = {"latest": "checkpoints", "best": "best"}
"""Of a run folder: the newest checkpoints, and the one of fine-tuning's best evaluation."""

_RNG = "rng"
_STAGE = ".stage"
_NEWEST = "newest"


def checkpoints(directory: str | Path) -> list[Path]:
    """Return the checkpoint files of ``directory``, good or damaged, oldest first."""
    return sorted(Path(directory).glob(f"step_{'[0-9]' * 12}.ckpt"))


def save(
    directory: str | Path,
    step: int,
    components: Mapping[str, Stateful],
    metadata: Mapping[str, Any] | None = None,
    *,
    keep: int = 2,
) -> Path:
    """Write ``components`` and the global random state as the newest checkpoint.

    Nothing under the final name changes before the new file is complete and on the disk. Checkpoints of later
    steps (left by a run that fell back to an older one) are removed, and all but the newest ``keep``.

    Args:
        directory: created if missing; one process at a time may save into it.
        step: the step the state belongs to; saving a step again replaces it.
        components: objects with ``state_dict`` and ``load_state_dict``.
        metadata: JSON-compatible facts, returned by :func:`load_latest` together with ``step``.
        keep: how many to keep, at least 1.

    Returns:
        The file.

    Raises:
        OSError: disk full or not writable; nothing is left behind and earlier checkpoints are untouched.
    """
    if step < 0 or keep < 1 or _RNG in components:
        raise ValueError(
            f"step must be at least 0, keep at least 1, and {_RNG!r} is the name of the global random state;"
            f" found step={step}, keep={keep}, components {list(components)}."
        )
    target = Path(directory) / f"step_{step:012d}.ckpt"
    staged = target.parent / _STAGE / target.name
    try:
        coordinator = _coordinator({**components, _RNG: GlobalRNGState()})
        _write(coordinator, staged, {**(metadata or {}), "step": step})
        # The digest of a file about to be replaced stays valid until the replacement is in place.
        replaced = _digest_file(target).read_text().splitlines()[:1] if target.exists() else []
        write_text(_digest_file(target), "\n".join([f"{sha256(staged)}  {target.name}", *replaced, ""]))
        publish(staged, target)
        write_text(target.with_name(_NEWEST), f"{target.name}\n")
    finally:
        clear_stage(directory)
    _prune(target, keep)
    return target


def _write(coordinator: Checkpoint, staged: Path, metadata: dict[str, Any]) -> None:
    try:
        coordinator.save(staged, metadata=metadata)
    except RuntimeError as error:  # as torch tells of a full file system in memory
        for number in (errno.ENOSPC, errno.EDQUOT):
            if os.strerror(number) in str(error):
                raise OSError(number, str(error)) from error
        raise


def load_latest(directory: str | Path, components: Mapping[str, Stateful]) -> dict[str, Any] | None:
    """Restore ``components`` and the global random state from the newest good checkpoint.

    The file is verified and read completely before anything changes; if a component refuses its state, all of
    them get their previous state back.

    Returns:
        The metadata with ``step``, or None where there is no checkpoint.

    Raises:
        CheckpointError: there are (or were) checkpoints but none is readable, they do not fit ``components``, or
            the newest was written by a newer version.
    """
    newest = _newest_good(directory, [*components, _RNG])
    if newest is None:
        return None
    metadata, states = newest
    live = {**components, _RNG: GlobalRNGState()}
    before = {name: copy.deepcopy(component.state_dict()) for name, component in live.items()}
    for name, component in live.items():
        try:
            component.load_state_dict(states[name])
        except Exception as error:
            for other, state in before.items():
                live[other].load_state_dict(state)
            raise CheckpointError(
                f"component {name!r} refuses the state of step {metadata['step']} in {directory}:"
                f" {first_lines(error)}\n"
                "Nothing was changed. Use the configuration and versions the checkpoint was made with."
            ) from error
    return metadata


def load_component(directory: str | Path, name: str) -> dict[str, Any]:
    """Return the state dict of one component (tensors on the CPU) from the newest good checkpoint.

    Raises:
        CheckpointError: no checkpoint, none readable, or no component of that name.
    """
    newest = _newest_good(directory, [name])
    if newest is None:
        raise CheckpointError(f"no checkpoint in {directory}; run the recipe that writes it first.")
    return newest[1][name]


def load_metadata(directory: str | Path) -> dict[str, Any]:
    """Return what was saved beside the components of the newest good checkpoint: its ``step``, among others.

    Raises:
        CheckpointError: no checkpoint, or none readable.
    """
    newest = _newest_good(directory, [])
    if newest is None:
        raise CheckpointError(f"no checkpoint in {directory}; run the recipe that writes it first.")
    return newest[0]


def clear_stage(directory: str | Path) -> None:
    """Remove what a killed save left behind; only for the process that owns the folder."""
    shutil.rmtree(Path(directory) / _STAGE, ignore_errors=True)
    for half_written in Path(directory).glob(".*.stage"):
        half_written.unlink()


class _Received:
    """Takes the state dict of a component, so that nothing live changes while a file is being read."""

    state: dict[str, Any]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict


_Contents = tuple[dict[str, Any], dict[str, dict[str, Any]]]


def _newest_good(directory: str | Path, names: Iterable[str]) -> _Contents | None:
    found, newest = checkpoints(directory), Path(directory, _NEWEST)
    removed = newest.read_text(encoding="utf-8", errors="replace").split()[:1] if newest.exists() else []
    if found and removed and removed[0] > found[-1].name:
        warnings.warn(f"{removed[0]} was removed from {directory}; trying the one before it.", stacklevel=3)
    for path in reversed(found):
        try:
            return _read(path, names)
        except (UnreadableError, zipfile.BadZipFile) as error:
            if isinstance(error.__cause__, OSError):
                raise  # The temporary folder is full, for example: the checkpoint may well be good.
            warnings.warn(f"{path} is damaged ({error}); trying the one before it.", stacklevel=3)
    if not found and not newest.exists():
        return None
    lost = f"none of the {len(found)} checkpoints in {directory} can be read" if found else f"{directory} has lost all"
    raise CheckpointError(f"{lost}. Restore one from a backup, or delete the run folder to start anew.")


def _read(path: Path, names: Iterable[str]) -> _Contents:
    manifest = verified_manifest(path, _digest_file(path))
    if missing := sorted(set(names) - set(manifest["components"])):
        raise CheckpointError(f"{path} has no component {missing}; it has {sorted(manifest['components'])}.")
    received = {name: _Received() for name in names}
    # On the CPU, so that a checkpoint made on an accelerator loads anywhere.
    _coordinator(received).load(path, map_location="cpu")
    return manifest["metadata"], {name: part.state for name, part in received.items()}


def _coordinator(components: Mapping[str, Any]) -> Checkpoint:
    coordinator = Checkpoint(format="archive", strict="error")
    for name, component in components.items():
        adapter = StateDictCheckpointAdapter(payload_format="archive")
        coordinator.register(name, component, adapter=adapter)
    return coordinator


def _prune(newest: Path, keep: int) -> None:
    kept = [path.name for path in checkpoints(newest.parent) if path.name <= newest.name][-keep:]
    for path in sorted(newest.parent.glob("step_*")):
        if path.name.removesuffix(".sha256") not in kept:
            path.unlink()


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
