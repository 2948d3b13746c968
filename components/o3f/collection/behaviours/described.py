"""An environment as a dataset describes it: how ``gymnasium.make`` gets it again."""

from __future__ import annotations

import contextlib
import copy
import importlib
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from o3f.data.actions import as_made
from o3f.envs.wrappers import Env, Wrapper


def written_spec(env: Env) -> EnvSpec:
    """Return how ``gymnasium.make`` gets an environment again, in a form that a file can hold.

    A class that was registered as an object becomes its name. Wrappers that the entry point itself applies are no
    part of it.

    Raises:
        ValueError: if there is no such form, or the environment was not made by ``gymnasium.make``.
    """
    made = as_made(env)
    if made.spec is None:
        raise ValueError(f"{made} cannot be written into a dataset: register it, and make it by its id.")
    spec = copy.deepcopy(made.spec)
    if callable(spec.entry_point):
        spec.entry_point = _importable(spec.entry_point) or spec.entry_point
    if spec.id in gymnasium.registry:
        spec.additional_wrappers = gymnasium.spec(spec.id).additional_wrappers
    try:
        spec.to_json()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{spec.id} cannot be written into a dataset, which names its environment in a file: {error}. Register it"
            f" by a name that can be imported, gymnasium.register('{spec.id}', 'module:Class'), and give it numbers and"
            " texts as arguments."
        ) from error
    return spec


class Described(Wrapper):
    """The environment, with the description that is written."""

    def __init__(self, env: Env, spec: EnvSpec) -> None:
        super().__init__(env)
        self._spec = spec

    @property
    def spec(self) -> EnvSpec:  # type: ignore[override]
        """How it is made again."""
        return self._spec


def _importable(entry_point: Any) -> str | None:
    """The name ``module:Class`` of a class or function, if importing it gives that very object."""
    module, name = getattr(entry_point, "__module__", "__main__"), getattr(entry_point, "__qualname__", "")
    if module == "__main__":  # of this process alone
        return None
    with contextlib.suppress(ImportError):
        if getattr(importlib.import_module(module), name, None) is entry_point:
            return f"{module}:{name}"
    return None
