"""Small files that come with the package, and what configurations ask Python for.

``${asset:NAME}`` is the path of such a file, ``${folder_name:TEXT}`` the text as it can be part of a folder's name.
"""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import OmegaConf


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


OmegaConf.register_new_resolver("asset", asset, replace=True)
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
