"""A run's folder: found again from its configuration, owned by one process, never mixed up with another run.

::

    runs/<name>/<task>-<algorithm>-<exploration>/seed<k>/     exploration "offline": nothing collected
        config.yaml      the resolved configuration
        env.json         versions, machine, dataset hash, seed
        checkpoints/     see o3f.runs.checkpoint
        metrics.csv ...  see o3f.runs.logger
        done.json        the final scores; there when the run is finished
"""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from o3f.errors import CheckpointError, ConfigError, SaveError, check_keys, require
from o3f.runs.checkpoint import checkpoints, clear_stage, load_latest, save
from o3f.runs.files import read_json, read_scores, write_text
from o3f.runs.identity import FREE_KEYS, config_difference, leaves, plain, read_settings, run_path
from o3f.runs.lock import lock_folder
from o3f.runs.logger import read_csv, readable_size
from o3f.runs.provenance import provenance
from o3f.runs.stateful import Stateful

#: A checkpoint that cannot be saved is tried again at the next interval, so often.
FAILED_SAVES = 3

_SAVED = ".saved"  # tells lost checkpoints from none so far, wherever the folder of checkpoints is
_FILES = ("config.yaml", "env.json", "done.json", "metrics.csv", "timing.csv", ".owner")
#: What is there before the first step: after a refusal it is no run.
_AT_ONCE = {"config.yaml", "env.json", ".owner", ".lock", "storage", "agent.safetensors", "checkpoints"}

Components = Mapping[str, Stateful]


class RunFolder:
    """One run's folder, locked by this process until :meth:`close` (or the end of a ``with`` block).

    Attributes:
        path: the folder.
        checkpoints: where :mod:`o3f.runs.checkpoint` saves.
        saved: step of the newest checkpoint loaded or saved, 0 where there is none.
    """

    saved = 0

    def __init__(self, path: Path, seed: int, lock: FileLock, made: Sequence[Path] = ()) -> None:
        self.path = path
        self._made = made
        self._seed = seed
        self.checkpoints = path / "checkpoints"
        self._lock = lock
        self._failures = 0
        self._changed: dict[str, Any] | None = None

    @classmethod
    def open(
        cls,
        config: DictConfig | Mapping[str, Any],
        *,
        free_keys: Collection[str] = FREE_KEYS,
        timeout: float = 0.0,
    ) -> RunFolder:
        """Create or reopen the folder of a configuration and write ``config.yaml``.

        Args:
            config: see :func:`~o3f.runs.identity.run_path`; resolved before it is compared or written. Its
                ``resume`` is ``auto`` (default: continue what is there), ``must`` (fail unless there is a
                checkpoint or a finished run) or ``never`` (fail if there is a run).
            free_keys: dotted keys that may differ from those of the run already there.
            timeout: seconds to wait for another process to finish with the folder; -1 waits for ever.

        Raises:
            ConfigError: a run of another configuration is there (the message lists the differences), one whose
                ``config.yaml`` is gone, or any run and ``never``. What failed before it logged or saved anything is
                no run.
            CheckpointError: ``must``, and there is nothing to resume.
            ResourceError: another process has the folder; the message says which.
        """
        settings = plain(config)
        path = run_path(settings)
        resume = settings.get("resume", "auto")
        allowed = settings.get("resume_allow") or []
        require(isinstance(allowed, list), f"resume_allow must be a list of keys, [KEY,...], found {allowed!r}.")
        if resume not in ("auto", "must", "never"):
            raise ConfigError(f"resume must be auto, must or never, found {resume!r}.")
        if resume == "must" and not checkpoints(path / "checkpoints") and not (path / "done.json").exists():
            raise CheckpointError(f"resume=must, but {path} holds no checkpoint; use resume=auto to start there.")
        made = [each for each in (path, *path.parents) if not each.exists()]
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, settings["seed"], lock_folder(path, timeout), made)
        try:
            run._claim(settings, resume, free_keys)
        except BaseException:
            run.close()
            raise
        return run

    def _withdraw(self) -> None:
        """Remove the folder again, and those above it, where this process made it and it holds no work yet."""
        holds = {each.name for each in self.path.iterdir()}
        if self.path not in self._made or self._begun() or not holds <= _AT_ONCE:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run has come to be there
            for folder in self._made[1:]:
                folder.rmdir()

    def _claim(self, settings: dict[str, Any], resume: str, free_keys: Collection[str]) -> None:
        file = self.path / "config.yaml"
        if not self._begun():
            check_keys(settings.get("resume_allow") or [], leaves(settings), "resume_allow")
            write_text(file, OmegaConf.to_yaml(OmegaConf.create(settings)))
        elif resume == "never":
            raise ConfigError(f"resume=never, but {self.path} holds a run; use another name, or delete it.")
        else:
            self._refuse_loss(file, "with which settings that was")
            self._compare(settings, read_settings(file), free_keys)
        clear_stage(self.checkpoints)
        for name in _FILES:
            for half_written in self.path.glob(f".{name}.*.stage"):
                half_written.unlink()

    def _refuse_loss(self, file: Path, unknown: str) -> None:
        require(
            file.exists(),
            f"{file} is gone from a folder that holds a run, and nothing else says {unknown}: it is not continued"
            f" unseen. Restore that file, give this run another name (name=...), or delete {self.path} to start anew.",
        )

    def _compare(self, settings: dict[str, Any], old: dict[str, Any], free_keys: Collection[str]) -> None:
        allowed = settings.get("resume_allow") or []
        check_keys(allowed, leaves(old) | leaves(settings), "resume_allow")
        if changed := config_difference(old, settings, {*free_keys, *allowed}):
            longer = any(each.startswith("online.steps:") for each in changed)
            raise ConfigError(
                f"{self.path} holds a run with another configuration (old -> new):\n  "
                + "\n  ".join(changed)
                + "\nGive this run another name (name=...), delete that folder, or list in resume_allow=[KEY,...] what"
                f" may change on the way{', but not online.steps, the size of its buffer' if longer else ''}."
            )
        if not (changed := config_difference(old, settings, free_keys)):
            return
        if (self.path / "done.json").exists():
            warnings.warn(
                f"{self.path} is finished and stays what it is, a run with another configuration than this (there ->"
                f" asked for): {', '.join(changed)}. Give name=... for a run with the new one.",
                stacklevel=4,
            )
        else:
            warnings.warn(f"{self.path} goes on with another configuration: {', '.join(changed)}.", stacklevel=4)
            # Until there is something of the new one, the folder is a run of the old one: this may still be refused.
            self._changed = settings

    def _publish_change(self) -> None:
        if self._changed is not None:
            write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(self._changed)))
            self._changed = None

    def _begun(self) -> bool:
        # A run that failed before (no dataset, say) must not stand in the way of the corrected one.
        results = any((self.path / name).exists() for name in ("metrics.csv", "done.json"))
        return results or bool(checkpoints(self.checkpoints))

    def record_environment(self, **facts: Any) -> None:
        """Write ``env.json``, or compare with the one written when the run began.

        Args:
            **facts: what the results depend on beside the configuration: ``dataset_hash``, ...

        Raises:
            ConfigError: a fact differs, so that this would be another run, or what was written is gone. Other
                versions, threads or machines only warn: results may then differ in the last digits from an
                uninterrupted run.
        """
        file = self.path / "env.json"
        now = json.loads(json.dumps({**provenance(), "seed": self._seed, **facts}))
        if not self._begun():
            write_text(file, json.dumps(now, indent=2) + "\n")
            return
        self._refuse_loss(file, "on which data it was begun")
        then = {"reward_scale": facts.get("reward_scale"), **read_json(file)}  # earlier versions did not write it down
        same_rows = facts.get("dataset_hash") is not None and then.get("dataset_hash") == facts["dataset_hash"]
        compared = facts.keys() - ({"dataset"} if same_rows else set())  # a file's content counts, not its name
        if changed := [line for line in config_difference(then, now) if line.split(":")[0] in compared]:
            raise ConfigError(f"{self.path} was begun with something else (old -> new): {', '.join(changed)}.")
        if changed := config_difference(then, now, free_keys=() if not same_rows else ("dataset",)):
            warnings.warn(
                f"{self.path} was begun elsewhere ({', '.join(changed)}): not bit-exact from here.",
                stacklevel=2,
            )

    def load(self, components: Components) -> bool:
        """Restore the newest good checkpoint, see :func:`o3f.runs.checkpoint.load_latest`; False if there is none.

        Raises:
            CheckpointError: as there, or the folder of checkpoints is gone.
        """
        metadata = load_latest(self.checkpoints, components)
        if metadata is None and (self.path / _SAVED).exists():
            raise CheckpointError(
                f"{self.checkpoints} is gone, with checkpoints that were saved there. Restore it from a backup, or"
                f" delete {self.path} to start anew."
            )
        self.saved = metadata["step"] if metadata else 0
        self._check_metrics((metadata or {}).get("metrics", 0))
        return metadata is not None

    def _check_metrics(self, expected: int) -> None:
        file = self.path / "metrics.csv"
        if (found := readable_size(file, self.saved)) < expected:
            rows = read_csv(file) if file.exists() else []
            warnings.warn(
                f"{file} has lost metrics: {found} of the {expected} bytes up to step {self.saved} can be read, the"
                f" last row is of step {rows[-1][0] if rows else 0}. The run goes on without them.",
                stacklevel=3,
            )

    def save(self, step: int, components: Components, *, last: bool) -> None:
        """Save a checkpoint; one that fails only warns, for the next one may not.

        Args:
            step: of the state.
            components: as in :func:`o3f.runs.checkpoint.save`.
            last: whether no other one will follow, so that this one must not fail.

        Raises:
            OSError: the last one failed: disk full, for example.
            SaveError: so did several in a row.
        """
        try:
            self._publish_change()
            metrics = self.path / "metrics.csv"
            save(self.checkpoints, step, components, {"metrics": metrics.stat().st_size if metrics.exists() else 0})
        except OSError as error:
            self._failures += 1
            still = f"the newest checkpoint is that of step {self.saved}"
            if last:
                raise
            if self._failures == FAILED_SAVES:
                raise SaveError(f"{FAILED_SAVES} checkpoints in a row could not be saved: {error}; {still}.") from error
            warnings.warn(f"cannot save step {step} ({error}); going on, {still}.", stacklevel=2)
        else:
            self.saved, self._failures = step, 0
            (self.path / _SAVED).touch()

    @property
    def scores(self) -> dict[str, Any] | None:
        """The final scores of a finished run, else None.

        Raises:
            CheckpointError: there is a ``done.json``, and it is not what a run writes.
        """
        file = self.path / "done.json"
        return read_scores(file) if file.exists() else None

    def finish(self, scores: Mapping[str, Any]) -> None:
        """Mark the run as finished: the same command will then say so and stop."""
        self._publish_change()
        write_text(self.path / "done.json", json.dumps(dict(scores), indent=2) + "\n")

    def close(self) -> None:
        """Let other processes use the folder."""
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._withdraw()
        self.close()
