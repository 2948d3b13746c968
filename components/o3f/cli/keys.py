"""The keys that a recipe reads, as its files of configuration list them: those of other names would do nothing.

Composing merges files without asking whether a key is known, and takes any text for a value that is true or false.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf

from o3f.errors import ConfigError, did_you_mean, require
from o3f.runs.identity import leaves

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast, and not everywhere
_PACKAGE = re.compile(r"^# @package (\S+)", re.MULTILINE)
_SHARED = ("experiment", "debug")  # groups whose files are for several recipes
_REFERENCE = re.compile(r"\$\{(?:[^:{}]+:)?([\w.]+)")


@dataclass(frozen=True)
class Keys:
    """What the files of a configuration, every choice of every group, say of its keys.

    Attributes:
        known: dotted keys of all values.
        booleans: those that are true or false wherever they have a value.
        own: those that this recipe reads; an experiment, which is for several, may have others.
    """

    known: frozenset[str]
    booleans: frozenset[str]
    own: frozenset[str] = frozenset()

    def check(self, config: DictConfig) -> None:
        """Look at a composed configuration whose interpolations are not resolved yet.

        Raises:
            ConfigError: a key that nothing reads, or one that must be true or false and is not.
        """
        values = leaves(_plain(config, resolve=False))
        referred = {name for value in values.values() for name in _REFERENCE.findall(str(value))}
        for key in values:
            if not self.reads(key) and not any(_is_within(key, name) for name in referred):
                hint = did_you_mean(key, self.known)
                near = hint if len(hint) < 200 else ""  # not all the keys that there are
                raise ConfigError(f"{key}: no such key; nothing would read it.{near}")
        resolved = leaves(_plain(config, resolve=True))
        for key in sorted(self.booleans & resolved.keys()):
            value = resolved[key]
            require(isinstance(value, bool) or value == "???", f"{key} must be true or false, found {value!r}.")

    def check_given(self, overrides: Iterable[str], recipe: str) -> None:
        """Look at what a command line adds, with a plus sign: what a file has, an experiment, may be for other recipes.

        Args:
            overrides: in Hydra's form.
            recipe: its name.

        Raises:
            ConfigError: a key that only other recipes read.
        """
        overrides = list(overrides)
        referred = {name for each in overrides for name in _REFERENCE.findall(each)}
        for key in [each.lstrip("+").partition("=")[0] for each in overrides if each.startswith("+")]:
            require(
                not self.elsewhere(key) or any(_is_within(name, key) for name in referred),
                f"{key}: {recipe} does not read it, another recipe does; leave it out.",
            )

    def elsewhere(self, key: str) -> bool:
        """Whether only other recipes read a key, or what is below it."""
        key = key.partition("@")[0].replace("/", ".")
        ours, theirs = (
            any(_is_within(name, key) or _is_within(key, name) for name in names)
            for names in (self.own, self.known - self.own)
        )
        return theirs and not ours

    def reads(self, key: str) -> bool:
        """Whether a key is listed, or lies below one: what an empty mapping or null may become is not listed."""
        parts = key.split(".")
        return any(".".join(parts[:end]) in self.known for end in range(1, len(parts) + 1))


def check_choices(overrides: Iterable[str], folders: Collection[Path]) -> None:
    """Look for the files that a command line chooses: Hydra passes over those of an optional group without a word.

    Args:
        overrides: in Hydra's form.
        folders: where configurations are looked for.

    Raises:
        ConfigError: there is no such file; the message has the near ones.
    """
    for each in overrides:
        key, _, choice = each.lstrip("+").partition("=")
        places = [folder / key.partition("@")[0] for folder in folders]
        places = [place for place in places if key and place.is_dir()]
        names = {str(file.relative_to(place).with_suffix("")) for place in places for file in place.rglob("*.yaml")}
        if places and re.fullmatch(r"[\w./-]+", choice) and choice not in {"null", *names}:
            raise ConfigError(f"{key}={choice}: there is no such file.{did_you_mean(choice, names)}")


def _is_within(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def _plain(config: DictConfig, *, resolve: bool) -> dict[str, Any]:
    return dict(OmegaConf.to_container(config, resolve=resolve))  # type: ignore[arg-type]


@functools.cache
def keys_of(folder: Path, config_name: str) -> Keys | None:
    """Return the keys of a primary configuration.

    An experiment is for every recipe that takes one, so these know each other's keys.

    Args:
        folder: of the configurations.
        config_name: without ``.yaml``.

    Returns:
        None where a file is not in the folder or cannot be read, so that not all keys can be known.
    """
    found: dict[str, list[Any]] = {}
    try:
        names = [config_name]
        if "experiment" in _groups(folder, config_name):
            names += [file.stem for file in folder.glob("*.yaml") if "experiment" in _groups(folder, file.stem)]
        for name in dict.fromkeys(names):
            for key, value in _entries(folder, name, ""):
                found.setdefault(key, []).append(value)
        own = frozenset(key for key, _ in _entries(folder, config_name, "", without=_SHARED))
    except (FileNotFoundError, yaml.YAMLError):
        return None
    booleans = frozenset(key for key, values in found.items() if _is_boolean(key, values, found))
    return Keys(frozenset(found), booleans, own)


def _is_boolean(key: str, values: list[Any], known: Iterable[str]) -> bool:
    if any(key.startswith(f"{other}.") for other in known):
        return False  # an environment's own argument, say, of whose values only one is listed
    # What is another key's value, or still to be given, says nothing of the type.
    typed = [value for value in values if not str(value).startswith(("${", "???"))]
    return bool(typed) and all(isinstance(value, bool) for value in typed)


def _groups(folder: Path, name: str) -> set[str]:
    return {group for group, _ in _defaults(_read(folder / f"{name}.yaml")[0]) if group}


def _entries(folder: Path, name: str, package: str, without: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """The values of a file and of everything that its defaults may choose, with their dotted keys."""
    contents, header = _read(folder / f"{name}.yaml")
    package = {None: package, "_global_": ""}.get(header, header or "")
    for group, choice in _defaults(contents):
        target, _, at = (group or str(choice)).partition("@")
        if group is None and target != "_self_":
            yield from _entries(folder, target, at or package, without)
        elif group is not None and target not in without:
            if not (folder / target).is_dir():
                raise FileNotFoundError(folder / target)
            for file in sorted((folder / target).rglob("*.yaml")):
                yield from _values(folder, file, at or target)
    yield from _values(folder, folder / f"{name}.yaml", package)


def _values(folder: Path, file: Path, package: str) -> Iterator[tuple[str, Any]]:
    contents, header = _read(file)
    package = {None: package, "_global_": ""}.get(header, header or "")
    for group, choice in _defaults(contents):
        target, _, at = str(choice).partition("@")
        if group is None and target.startswith("/") and at not in ("", "_here_"):  # a part kept in a file of its own
            yield from _values(folder, folder / f"{target[1:]}.yaml", f"{package}.{at}")
    values = {key: value for key, value in contents.items() if key not in ("defaults", "hydra")}
    for key, value in leaves(values).items():
        yield f"{package}.{key}" if package else key, value


def _defaults(contents: Mapping[str, Any]) -> Iterator[tuple[str | None, Any]]:
    """Group and choice of each entry of a defaults list; no group where it names a file."""
    for entry in contents.get("defaults", ()):
        for group, choice in entry.items() if isinstance(entry, dict) else [(None, entry)]:
            yield (group.removeprefix("optional ") if group else None), choice


@functools.cache
def _read(file: Path) -> tuple[dict[str, Any], str | None]:
    """The contents of a file, and the package that its header names."""
    text = file.read_text(encoding="utf-8")
    header = _PACKAGE.search(text)
    return _LOADER(text).get_single_data() or {}, header[1] if header else None
