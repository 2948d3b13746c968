"""Small files that come with the package; in a configuration, ``${asset:NAME}`` is the path of one."""

from __future__ import annotations

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


OmegaConf.register_new_resolver("asset", asset, replace=True)
