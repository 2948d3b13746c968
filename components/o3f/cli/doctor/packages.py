"""Versions of Python and the packages, against what this package needs and what it was tested with."""

from __future__ import annotations

import importlib
import json
import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from o3f.cli.doctor.findings import Finding, State

#: Minor versions with which the tests ran last.
TESTED = {
    "python": "3.11",
    "torch": "2.13",
    "torchrl": "0.14",
    "tensordict": "0.14",
    "gymnasium": "1.4",
    "minari": "0.5",
    "hydra-core": "1.3",
    "tensorboard": "2.21",
    "numpy": "2.4",
    "mujoco": "3.11",
    "gymnasium-robotics": "1.4",
}

#: Their modules, where a broken installation shows.
_MODULES = {"hydra-core": "hydra", "gymnasium-robotics": "gymnasium_robotics"}

#: For work on this package itself.
_DEVELOPMENT = ("dev", "docs")


def check_core_packages() -> Iterator[Finding]:
    """Python and what every run needs: there, within the bounds, and can be imported."""
    system = f"{platform.system()} {platform.machine()}"
    yield Finding("ok" if sys.version_info >= (3, 11) else "broken", f"{_version('python')}, {system}")
    for need in requirements():
        if need.marker is None:
            yield _judge(need, install_line())
    yield from check_compiled_part()


def check_compiled_part() -> Iterator[Finding]:
    """TorchRL's compiled part, where it does not load: it was built with another torch."""
    try:
        importlib.import_module("torchrl._torchrl")
    except ImportError as error:
        said = str(error).rpartition(": ")[0] or str(error)
        yield Finding(
            "note",
            f"torchrl's compiled part does not load with torch {metadata.version('torch')}"
            f" ({said.rpartition('/')[2]}): TorchRL's prioritised buffers do not work",
            "nothing here needs them; for them, install the torch that this torchrl was built with",
        )


def check_extras() -> Iterator[Finding]:
    """Each extra: complete, or the line that installs it."""
    needs = [need for need in requirements() if need.marker is not None]
    extras = metadata.metadata("o3f").get_all("Provides-Extra") or []
    for extra in [name for name in extras if name not in _DEVELOPMENT]:
        own = [need for need in needs if need.marker is not None and need.marker.evaluate({"extra": extra})]
        found = [_judge(need, install_line(extra)) for need in own]
        lacking = [finding for finding in found if finding.state in ("missing", "broken")]
        if lacking:
            state: State = "broken" if any(finding.state == "broken" for finding in lacking) else "missing"
            yield Finding(state, f"{extra}: {', '.join(finding.text for finding in lacking)}", install_line(extra))
        else:
            yield Finding("ok", f"{extra}: {', '.join(dict.fromkeys(_version(need.name) for need in own))}")


def requirements() -> list[Requirement]:
    """What this package needs, from its installed metadata.

    Raises:
        PackageNotFoundError: it is not installed, only on the path.
    """
    return [Requirement(line) for line in metadata.requires("o3f") or []]


def install_line(extra: str = "") -> str:
    """Return how to install an extra, or this package anew, in the way in which it is installed.

    Examples:
        >>> install_line("video").startswith("pip install ")
        True
    """
    extras = f"[{extra}]" if extra else ""
    source = json.loads(metadata.distribution("o3f").read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        return f'pip install -e "{source["url"].removeprefix("file://")}{extras}"'
    return f'pip install "o3f{extras}"'


def _judge(need: Requirement, line: str) -> Finding:
    """Whether a package is there, within the bounds, and can be imported."""
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return Finding("missing", f"{need.name} is not installed", line)
    if not need.specifier.contains(version, prereleases=True):
        return Finding("broken", f"{need.name} {version}, expected {need.specifier}", line)
    if need.name in TESTED:
        try:
            importlib.import_module(_MODULES.get(need.name, need.name))
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            return Finding("broken", f"{need.name} {version} cannot be imported ({said})", line)
    return Finding("ok" if _is_tested(need.name, version) else "note", _version(need.name))


def _is_tested(package: str, version: str) -> bool:
    return package not in TESTED or ".".join(version.split(".")[:2]) == TESTED[package]


def _version(package: str) -> str:
    """Name and version, with the tested one where that is another."""
    version = platform.python_version() if package == "python" else metadata.version(package)
    tested = "" if _is_tested(package, version) else f" (tested with {TESTED[package]})"
    return f"{package} {version}{tested}"
