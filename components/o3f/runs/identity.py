"""Which folder a configuration belongs to, and whether two configurations are the same run."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from o3f.errors import ConfigError
from o3f.runs.files import read_text

#: What may differ when a run is continued: where and how it runs, not what it computes.
#: The last are defaults of ``offline.batch_size``, ``online.updates_per_step``, ``offline.steps``,
#: ``task.reward.scale`` with ``shift``, and ``algorithm.value_bounds``, which count.
FREE_KEYS = frozenset(
    {
        *("runs", "resume", "resume_allow", "progress", "device", "threads"),
        *("online.max_env_failures", "evaluation.patience", "evaluation.video_every"),
        "evaluation.optimistic",
        *("collector.timeout", "collector.address", "collector.num_cpus"),
        *("dataset.download", "dataset.path", "task.behaviour.path"),
        *("algorithm.batch_size", "algorithm.updates_per_step", "algorithm.offline_steps"),
        "offline_algorithm.offline_steps",
        *("task.reward.rule", "task.reward.iql_scale", "task.reward.value_bounds"),
    }
)

#: Keys that came later, or are gone, with the value that says what runs without them do: a run without the key has it.
LATER_KEYS: Mapping[str, Any] = {
    "precision": "highest",
    "algorithm.normalise": False,
    "offline_algorithm.normalise": False,
    "online.replay": None,
    "algorithm.calibrate": False,
    "offline_algorithm.calibrate": False,
    "algorithm.compile": False,
    "offline_algorithm.compile": False,
    "task.centre": "sample",
    "exploration.centre": "sample",
    "dataset.reset_steps": "keep",
    "num_lanes": 1,
}

#: Keys whose ``auto`` becomes true or false when a run begins, and stays so: it is no other value than either.
SETTLED_KEYS = frozenset({"algorithm.compile", "offline_algorithm.compile"})

_LARGEST = 100_000  # bytes of a configuration, which has some 6,000
_DEEPEST = 20
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def run_path(config: Mapping[str, Any]) -> Path:
    """Return the run folder of a configuration; nothing is created.

    Args:
        config: the keys ``runs`` (the root), ``name``, ``task.name``, ``algorithm.name``,
            ``exploration.kind`` (no ``exploration``: offline) and ``seed``.

    Raises:
        ConfigError: a name with other characters than ``A-Za-z0-9._-``, longer than 100 or with a leading
            dot; a seed that is no whole number >= 0; a symbolic link that leads out of the root.

    Examples:
        >>> config = {"runs": "runs", "name": "first", "task": {"name": "hopper-medium"}, "seed": 3}
        >>> run_path(config | {"algorithm": {"name": "iql"}}).as_posix()
        'runs/first/hopper-medium-iql-offline/seed3'
    """
    seed = config["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be a whole number >= 0, found {seed!r}.")
    exploration = (config.get("exploration") or {"kind": "offline"})["kind"]
    parts = {
        "task.name": config["task"]["name"],
        "algorithm.name": config["algorithm"]["name"],
        "exploration.kind": exploration,
    }
    for key, part in {"name": config["name"], **parts}.items():
        if not isinstance(part, str) or not _NAME.fullmatch(part):
            raise ConfigError(
                f"{key}={part!r} cannot be part of a folder name: use 1 to 100 of A-Z a-z 0-9 . _ - (no dot first)."
            )
    if not isinstance(config["runs"], str):
        raise ConfigError(f"runs must be the folder of all run folders, found {config['runs']!r}.")
    path = Path(config["runs"], config["name"], "-".join(parts.values()), f"seed{seed}")
    if not path.resolve().is_relative_to(Path(config["runs"]).resolve()):
        raise ConfigError(f"{path} leads out of {config['runs']} through a symbolic link; choose another name.")
    return path


def config_difference(
    old: Mapping[str, Any], new: Mapping[str, Any], free_keys: Collection[str] = FREE_KEYS
) -> list[str]:
    """Return a line ``key: old -> new`` for each leaf that differs.

    Examples:
        >>> config_difference({"a": {"b": 1}, "seed": 0}, {"a": {"b": 2}, "seed": 0})
        ['a.b: 1 -> 2']
        >>> config_difference({"seed": 0}, {"seed": 0, "precision": "highest"})
        []
        >>> config_difference({"algorithm": {"compile": True}}, {"algorithm": {"compile": "auto"}})
        []
    """
    before, after = identity(old, free_keys), identity(new, free_keys)
    left_open = {key for key in SETTLED_KEYS if "auto" in (before.get(key), after.get(key))}
    changed = [key for key in before | after if before.get(key) != after.get(key) and key not in left_open]
    told = {key: LATER_KEYS.get(key, "(absent)") for key in changed}
    return [f"{key}: {before.get(key, told[key])} -> {after.get(key, told[key])}" for key in changed]


def identity(config: Mapping[str, Any], free_keys: Collection[str] = FREE_KEYS) -> dict[str, Any]:
    """Return the leaves that make a run what it is; :data:`LATER_KEYS` only where older runs did something else.

    So a run from before a key came is the same run, and what is named by a digest of its settings keeps its name.

    Examples:
        >>> identity({"seed": 0, "threads": 1, "precision": "highest"})
        {'seed': 0}
        >>> identity({"seed": 0, "threads": 1, "precision": "medium"})
        {'seed': 0, 'precision': 'medium'}
    """
    found = leaves(config)
    usual = {key for key, value in LATER_KEYS.items() if found.get(key) == value}
    return {key: value for key, value in found.items() if key not in free_keys and key not in usual}


def plain(config: Any) -> dict[str, Any]:
    """Return a mapping or an OmegaConf object as plain nested dicts, interpolations resolved."""
    container = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    if not isinstance(container, dict):
        raise ConfigError(f"a configuration has named values, found {type(container).__name__}.")
    return {str(key): value for key, value in container.items()}


def read_settings(file: Path) -> dict[str, Any]:
    """Return a run's ``config.yaml`` as plain values; nothing in it is looked up, imported or called.

    Raises:
        ConfigError: it is no YAML mapping, is larger or deeper than a run's or refers to parts of itself, or holds what
            no run writes there: an interpolation (``${...}``, which could read the environment's variables) or a
            ``_target_`` (which Hydra would call).

    Examples:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "config.yaml"
        >>> _ = file.write_text("seed: 3")
        >>> read_settings(file)
        {'seed': 3}
    """
    try:
        text = read_text(file, _LARGEST)
        _check_structure(text)
        settings = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:  # the last: no text, or no number
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(settings, dict) or not settings:
        raise ConfigError(f"{file} holds no named values.")
    for text in _texts(settings):
        if "${" in text or text == "_target_":
            raise ConfigError(f"{file} holds {text!r}, which no run writes there; do not use it.")
    return {str(key): value for key, value in settings.items()}


def read_whole_settings(file: Path) -> dict[str, Any]:
    """Return the settings of a run that has at least a task, an algorithm and a dataset; as :func:`read_settings`.

    Raises:
        ConfigError: as there, or a part is missing.
    """
    settings = read_settings(file)
    for part in ("task", "algorithm", "dataset"):
        if not isinstance(found := settings.get(part), dict):
            raise ConfigError(f"{file} is no whole configuration: {part} is {found!r}, expected named values.")
    return settings


def _check_structure(text: str) -> None:
    """Raise ``ValueError`` for what takes long to read or grows while it is read, and no run writes."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it refers to parts of itself (*NAME)")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"its values lie more than {_DEEPEST} deep in one another")


def _texts(node: Any) -> Iterator[str]:
    """All keys and values that are text."""
    if isinstance(node, Mapping):
        node = [part for pair in node.items() for part in pair]
    if isinstance(node, list):
        for part in node:
            yield from _texts(part)
    elif isinstance(node, str):
        yield node


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested mapping by dotted key.

    Examples:
        >>> leaves({"seed": 0, "task": {"name": "a", "kwargs": {}}})
        {'seed': 0, 'task.name': 'a', 'task.kwargs': {}}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        nested = isinstance(value, Mapping) and value
        found |= leaves(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found
