"""Which run folders the key ``run`` of a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from o3f.errors import require


def given_folders(given: Any) -> list[Path]:
    """Return the run folders that a recipe's ``run`` names, one or several, each once.

    Raises:
        ConfigError: it is neither text nor a list of texts.
    """
    folders = [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence) else []
    require(
        bool(folders) and all(isinstance(folder, str) for folder in folders),
        f"run must be a run folder, or a list of them as in run=[A,B]; found {given!r}.",
    )
    return list(dict.fromkeys(map(Path, folders)))
