"""Trajectories to a Minari dataset on disk, an episode at a time."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import minari
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.dataset.minari_storage import MinariStorage
from minari.namespace import create_namespace, list_local_namespaces

from o3f.collection.behaviours.described import Described, written_spec
from o3f.collection.behaviours.rollout import Trajectory
from o3f.data.actions import as_made, check_action_space, to_env_actions
from o3f.data.checks import action_scale_of, frame_skip_of
from o3f.data.minari_store import ACTION_SCALE, FRAME_SKIP, check_dataset_id, datasets_root, minari_root
from o3f.data.observations import observation_layout
from o3f.envs.wrappers import Env
from o3f.errors import ResourceError

_PACKAGES = ("gymnasium", "gymnasium-robotics", "mujoco")
_STEPS_AT_ONCE = 2_000  # opening the file for every short episode would take longer than playing it
_EPISODE_BYTES = 32_000
_HOST = platform.node().replace("-", "_")


def new_dataset_path(dataset_id: str, *, overwrite: bool = False) -> Path:
    """Where a new dataset will lie.

    Args:
        dataset_id: ``namespace/name-v0``, Minari's grammar.
        overwrite: whether there may be one already.

    Raises:
        ValueError: if the id is not Minari's grammar.
        FileExistsError: if there is one already.
    """
    check_dataset_id(dataset_id)
    path = datasets_root() / dataset_id
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"Dataset {dataset_id} exists at {path}. Choose another id, or replace it: overwrite=true."
        )
    return path


class MinariWriter:
    """Writes a Minari dataset under ``$MINARI_DATASETS_PATH`` (default ``~/.minari/datasets``), for a ``with`` block.

    What the writing needs is made or checked here, before there are any episodes. They go into a hidden folder, and
    the dataset appears whole with :meth:`publish` or not at all; the hidden folder goes in any case.

    Actions are written in the environment's bounds: agent action 1.0 is the upper bound, whatever the action scale;
    observations and flags as recorded, rewards raw.

    Args:
        dataset_id: ``namespace/name-v0``.
        env: the environment that is recorded; its spaces and id, below our wrappers, become the dataset's.
        behaviour: what acts.
        description: free text.
        score_range: reference scores (minimum, maximum).
        overwrite: replace an existing dataset.
        steps: so many will be written at most, for which there must be room; None does not ask.

    Attributes:
        episodes: written so far.
        steps: written so far.

    Raises:
        ValueError: if the id is not Minari's grammar, or the environment cannot be described in a file.
        FileExistsError: if there is such a dataset already.
        ResourceError: here or in :meth:`add` and :meth:`publish`, if the disk has no room.
    """

    def __init__(
        self,
        dataset_id: str,
        env: Env,
        *,
        behaviour: str,
        description: str,
        score_range: tuple[float, float] | None = None,
        overwrite: bool = False,
        steps: int | None = None,
    ) -> None:
        self.target, self.dataset_id = new_dataset_path(dataset_id, overwrite=overwrite), dataset_id
        source = Described(as_made(env), written_spec(env))
        self._bounds = check_action_space(source.action_space)
        self.episodes, self.steps = 0, 0
        self._pending: list[EpisodeBuffer] = []
        self._pending_steps = 0
        root = datasets_root()
        root.mkdir(parents=True, exist_ok=True)
        sweep_stages(root)
        self._row = _row_bytes(source)
        self._check_room(steps or 0)
        low, high = score_range or (None, None)
        # Hidden folders are invisible to Minari, so a killed process leaves no half dataset behind.
        self._stage = Path(tempfile.mkdtemp(dir=root, prefix=f".stage-{os.getpid()}-{_HOST}-"))
        try:
            with minari_root(self._stage):
                self._dataset = minari.create_dataset_from_buffers(
                    dataset_id,
                    buffer=[],
                    env=source,
                    eval_env=source,
                    algorithm_name=behaviour,
                    author="o3f",
                    author_email="none",
                    code_permalink="none",
                    description=description,
                    requirements=_requirements(),
                    ref_min_score=low,
                    ref_max_score=high,
                )
                self._dataset.storage.update_metadata(
                    {FRAME_SKIP: frame_skip_of(env), ACTION_SCALE: action_scale_of(env)}
                )
        except BaseException:
            self.close()
            raise

    def add(self, trajectory: Trajectory) -> None:
        """Take an episode; it is in the file with the next few thousand steps, or when the dataset is published."""
        columns: dict[str, Any] = {  # Minari writes arrays faster than the lists it asks for
            "observations": trajectory.observations,
            "actions": to_env_actions(trajectory.actions, self._bounds),
            "rewards": trajectory.rewards,
            "terminations": trajectory.terminated,
            "truncations": trajectory.truncated,
        }
        number = self.episodes + len(self._pending)
        self._pending.append(EpisodeBuffer(id=number, seed=trajectory.seed, infos={}, **columns))
        self._pending_steps += len(trajectory)
        if self._pending_steps >= _STEPS_AT_ONCE:
            self._write()

    def publish(self) -> Path:
        """Make the dataset appear, in place of one of the same id; returns its folder.

        Raises:
            ValueError: if there are no episodes.
        """
        self._write()
        if not self.episodes:
            raise ValueError("No trajectories to write.")
        namespace = parse_dataset_id(self.dataset_id)[0]
        if namespace is not None and namespace not in list_local_namespaces():
            create_namespace(namespace)
        shutil.rmtree(self.target, ignore_errors=True)
        (self._stage / self.dataset_id).rename(self.target)
        return self.target

    def keep(self) -> str:
        """Publish what is whole after something went wrong, unless that would replace a dataset; returns what was done.

        A dataset that is there is worth more than a part of another one.
        """
        if self.target.exists():
            return f"Nothing was written: {self.target} is as it was."
        try:
            with contextlib.suppress(ResourceError):  # which may have left something half written
                self._write()
            for _ in MinariStorage.read(self._dataset.storage.data_path).get_episodes(range(self.episodes)):
                pass
            path = self.publish()
        except (ValueError, OSError, KeyError, RuntimeError) as error:
            return f"Nothing was kept ({str(error).splitlines()[0]})."
        return f"Kept: the {self.episodes} episodes that were whole, {self.steps} steps, in {path}."

    def close(self) -> None:
        """Remove the hidden folder."""
        shutil.rmtree(self._stage, ignore_errors=True)

    def __enter__(self) -> MinariWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_room(self, steps: int, more: int = 0) -> None:
        folder = datasets_root()
        free, needed = shutil.disk_usage(folder).free, steps * self._row + more
        if needed > free:
            raise ResourceError(
                f"{steps} steps need about {needed / 1e6:.1f} MB, and {folder} has {free / 1e6:.1f} MB"
                " left. Make room, collect fewer steps, or set MINARI_DATASETS_PATH to another disk."
            )

    def _write(self) -> None:
        pending, steps = self._pending, self._pending_steps
        self._pending, self._pending_steps = [], 0
        # Where HDF5 meets a full disk it leaves a file that cannot be read; it needs some for every episode.
        self._check_room(2 * steps, _EPISODE_BYTES * len(pending))
        try:
            self._dataset.storage.update_episodes(pending)
        except (OSError, RuntimeError) as error:  # HDF5 tells a full disk as either
            raise ResourceError(
                f"{self.target.parent} could not be written after {self.steps} steps: {str(error).splitlines()[0]}"
            ) from error
        self.episodes, self.steps = self.episodes + len(pending), self.steps + steps


def write_minari(
    dataset_id: str,
    trajectories: Sequence[Trajectory],
    env: Env,
    *,
    behaviour: str,
    description: str,
    score_range: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a Minari dataset of trajectories; arguments and errors as :class:`MinariWriter`.

    Args:
        dataset_id: ``namespace/name-v0``.
        trajectories: the episodes.
        env: the environment they were recorded in.
        behaviour: what acted.
        description: free text.
        score_range: reference scores (minimum, maximum).
        overwrite: replace an existing dataset.

    Returns:
        The dataset's folder.
    """
    with MinariWriter(
        dataset_id, env, behaviour=behaviour, description=description, score_range=score_range, overwrite=overwrite
    ) as writer:
        for trajectory in trajectories:
            writer.add(trajectory)
        return writer.publish()


def sweep_stages(root: Path) -> None:
    """Remove the hidden folders of processes of this machine that are gone."""
    for stage in root.glob(f".stage-*-{_HOST}-*"):
        pid = stage.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            shutil.rmtree(stage, ignore_errors=True)


def _row_bytes(env: Env) -> int:
    leaves = [*observation_layout(env.observation_space).boxes, check_action_space(env.action_space)]
    return 10 + sum(box.low.nbytes for box in leaves)  # reward and flags: 10


def _requirements() -> list[str]:
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name}=={importlib.metadata.version(name)}")
    return found
