"""Small files that come with the package, and what configurations ask Python for.

``${asset:NAME}`` is the path of such a file, ``${folder_name:TEXT}`` the text as it can be part of a folder's name, and
``${choose:KEY,{a:1,b:2}}`` what a small table has for a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from o3f.errors import check_keys


def asset(name: str) -> str:
    """Return the path of a file that comes with the package.

    Raises:
        FileNotFoundError: naming those that do.

    Examples:
        >>> asset("halfcheetah.npz").endswith("assets/halfcheetah.npz")
        True
    """
    folder = Path(__file__).parent
    path = folder / name
    if not path.is_file():
        there = sorted(file.name for file in folder.iterdir() if file.suffix not in (".py", ""))
        raise FileNotFoundError(f"There is no asset {name!r}; there are {there}.")
    return str(path)


def folder_name(text: str) -> str:
    """Return a text with what a folder's name cannot have replaced, at most 100 characters.

    Examples:
        >>> folder_name("pointmass:PointMass-v0")
        'pointmass-PointMass-v0'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-")[:100]


def choose(key: str, table: Mapping[str, Any]) -> Any:
    """Return the entry of a table.

    Raises:
        ConfigError: there is none of that name.

    Examples:
        >>> choose("raw", {"raw": 1.0, "iql": 0.2})
        1.0
    """
    check_keys([key], list(table), "choice")
    entry = table[key]
    return OmegaConf.create(entry) if isinstance(entry, list | dict) else entry  # or it could not be resolved in place


OmegaConf.register_new_resolver("choose", choose, replace=True)
OmegaConf.register_new_resolver("asset", asset, replace=True)
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
