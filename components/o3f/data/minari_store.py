"""Finding and opening Minari datasets; nothing is downloaded unless asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import minari
from minari.dataset.minari_dataset import DATASET_ID_RE
from minari.dataset.minari_storage import MinariStorage

_ROOT_VARIABLE = "MINARI_DATASETS_PATH"


FRAME_SKIP = "o3f_frame_skip"
"""In the metadata of datasets that this package wrote: steps of the environment a recorded step."""

ACTION_SCALE = "o3f_action_scale"
"""There, too: share of the action bounds that the agent's [-1, 1] spanned."""


class Recorded(Protocol):
    """What is read: a ``minari.MinariDataset``, or a :class:`~o3f.data.array_files.FileDataset`."""

    @property
    def id(self) -> str:
        """Named in messages and by runs."""
        ...

    @property
    def total_steps(self) -> Any:
        """Number of steps, of all episodes."""
        ...

    @property
    def observation_space(self) -> Any:
        """Of one observation."""
        ...

    @property
    def action_space(self) -> Any:
        """Bounds of the actions."""
        ...

    @property
    def env_spec(self) -> Any:
        """The recorded environment, or None."""
        ...

    @property
    def storage(self) -> Any:
        """Has ``data_path`` and ``metadata``."""
        ...

    def iterate_episodes(self, indices: Any = None, /) -> Iterator[Any]:
        """Read episodes, all or some."""
        ...


def open_dataset(dataset_id: str, *, download: bool = False, root: str | Path | None = None) -> minari.MinariDataset:
    """Open a local Minari dataset, after fetching it if that is asked for.

    Args:
        dataset_id: ``namespace/name-v0`` in Minari's grammar.
        download: fetch the dataset when it is not in the folder.
        root: folder of the datasets; default ``$MINARI_DATASETS_PATH``, then Minari's ``~/.minari/datasets``.

    Raises:
        ValueError: if the id is not a Minari id; it is never turned into a path then.
        FileNotFoundError: if the dataset is not there; the message says how to get it.
        RuntimeError: if the download fails or the files cannot be read.
    """
    if not isinstance(dataset_id, str):
        raise ValueError(f"The dataset's id is {dataset_id!r}, expected text as in 'namespace/name-v0'.")
    folder = datasets_root(root)
    data = folder / dataset_id / "data"
    if not is_local(dataset_id, root):
        if not download:
            raise FileNotFoundError(f"Dataset '{dataset_id}' is not in {folder}. {_how_to_get(dataset_id, folder)}")
        _download(dataset_id, folder)
    try:
        return minari.MinariDataset(MinariStorage.read(data))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise unreadable(dataset_id, data, error) from error


def limit_of(dataset: Recorded) -> int | None:
    """Return the time limit of the recorded environment, in recorded steps; None where the dataset does not say."""
    limit = getattr(dataset.env_spec, "max_episode_steps", None)
    return None if limit is None else limit // int(dataset.storage.metadata.get(FRAME_SKIP, 1))


def is_local(dataset_id: str, root: str | Path | None = None) -> bool:
    """Whether a dataset is in the folder, so that opening it needs no download."""
    check_dataset_id(dataset_id)
    return (datasets_root(root) / dataset_id / "data").exists()


def check_dataset_id(dataset_id: str) -> None:
    """Refuse anything that is not a Minari id, such as ``..``, absolute paths or control characters.

    Raises:
        ValueError: naming the grammar.
    """
    match = DATASET_ID_RE.fullmatch(dataset_id)
    if match is None or match["version"] is None or not dataset_id.isascii():
        raise ValueError(
            f"{dataset_id!r} is not a Minari dataset id. Expected 'namespace/name-v0': letters, digits, '-'"
            " and '_', with a version at the end."
        )


def datasets_root(root: str | Path | None = None) -> Path:
    """The folder datasets are looked for in: ``root``, ``$MINARI_DATASETS_PATH``, or Minari's default."""
    default = Path.home() / ".minari" / "datasets"
    return Path(root or os.environ.get(_ROOT_VARIABLE) or default).expanduser().absolute()


def unreadable(dataset_id: str, data: Path, error: Exception) -> RuntimeError:
    """The error for files that are cut short or damaged."""
    return RuntimeError(
        f"Dataset '{dataset_id}' in {data} cannot be read ({type(error).__name__}: {error}). If a download"
        " or conversion was interrupted, delete that folder and get the dataset again."
    )


def _how_to_get(dataset_id: str, folder: Path) -> str:
    if dataset_id.startswith("d4rl/"):
        return "It is one of D4RL's own files, which is not a Minari dataset: dataset=path dataset.path=FILE.hdf5"
    if dataset_id.startswith("o3f/"):
        task = dataset_id.removeprefix("o3f/").rsplit("-v", 1)[0]
        return f"Make it on this machine with: python recipes/collect.py task={task}"
    return (
        "Nothing is downloaded unasked: give dataset.download=true (in Python download=True), or run"
        f" `{_ROOT_VARIABLE}={folder} minari download {dataset_id}` (both need `pip install 'minari[hf]'`)."
        " The o3f/* datasets are made on this machine with: python recipes/collect.py task=..."
    )


def _download(dataset_id: str, folder: Path) -> None:
    try:
        with minari_root(folder):
            minari.download_dataset(dataset_id)
    except Exception as error:
        raise RuntimeError(
            f"Downloading '{dataset_id}' failed ({type(error).__name__}: {error}). Check the id"
            f" with `minari list remote`, the network, and `pip install 'minari[hf]'`; or copy it to"
            f" {folder}."
        ) from error


@contextmanager
def minari_root(folder: Path) -> Iterator[None]:
    """Make ``folder`` Minari's folder for a while; Minari takes it from the environment only."""
    before = os.environ.get(_ROOT_VARIABLE)
    os.environ[_ROOT_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ROOT_VARIABLE]
        else:
            os.environ[_ROOT_VARIABLE] = before
