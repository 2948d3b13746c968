"""From what a user names, a file or a function, to an agent."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from o3f.adapters.corl import from_corl
from o3f.adapters.d3rlpy import from_d3rlpy, read_d3rlpy
from o3f.adapters.files import read_npz, read_safetensors
from o3f.adapters.modules import from_modules
from o3f.adapters.native import HEADER, agent_tensors, is_own, read_own, settings
from o3f.adapters.rlkit import is_rlkit, read_rlkit
from o3f.adapters.sb3 import from_sb3, read_sb3
from o3f.adapters.tensors import Tensors, flat
from o3f.algorithms.agent import Agent
from o3f.errors import ConfigError, check_keys, require

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_READ = (".safetensors", ".npz")
_PARTS = ("policy", "critics", "value", "temperature", "action_dim")


def is_function(name: str) -> bool:
    """Whether this names a function, ``package.module:function``.

    Examples:
        >>> is_function("my_agent:make"), is_function("runs/seed0")
        (True, False)
    """
    return bool(_FUNCTION.fullmatch(name))


def is_agent(name: str) -> bool:
    """Whether this names an agent of the user's own: a file of weights, or a function."""
    require(isinstance(name, str), f"pretrained must be auto, none, a folder, a file or a function, found {name!r}.")
    return is_function(name) or Path(name).suffix in (*_READ, ".pt", ".pth", ".pkl", ".zip", ".d3")


def load_agent(name: str) -> Agent:
    """Load the agent that a file holds or a function returns.

    Args:
        name: a ``.safetensors`` file, in our names or a peer's (which, is seen from the names); an ``.npz`` file in
            a peer's; or ``package.module:function``, found from the working folder or where Python finds modules.
            The function is called without arguments; what it may return is said at :func:`as_agent`.

    Raises:
        ConfigError: there is no such file or function, or it gives no agent; the message says why.
    """
    if is_function(name):
        return as_agent(_call(name), name)
    path = Path(name)
    require(path.exists(), f"{name}: there is no such file.")
    require(
        path.suffix in _READ,
        f"{name}: only safetensors and .npz files are read, because others may run code. Convert it where its own"
        " library is (a few lines, see docs/own-agents.md), or give a function: pretrained=package.module:function.",
    )
    if path.suffix == ".npz":
        return from_tensors(read_npz(path), name)
    tensors, header = read_safetensors(path, HEADER)
    return read_own(tensors, header, name) if header else from_tensors(tensors, name)


def from_tensors(state: Mapping[str, Any], origin: str = "tensors") -> Agent:
    """Build the agent of a peer's state dict; which peer, is seen from the names.

    Args:
        state: tensors by dotted name, or nested state dicts; see :mod:`o3f.adapters.corl`,
            :mod:`o3f.adapters.d3rlpy`, :mod:`o3f.adapters.rlkit` and :mod:`o3f.adapters.sb3`.
        origin: what messages call them.

    Raises:
        ConfigError: the names are no peer's, or the tensors do not fit together.
    """
    tensors = Tensors(flat(state), origin)
    if tensors.has("policy._"):
        return read_d3rlpy(tensors)
    if is_rlkit(tensors):
        return read_rlkit(tensors)
    if tensors.has("actor.latent_pi.") or tensors.has("actor.mu.0"):
        return read_sb3(tensors)
    known = ("actor.net.", "actor._mlp.", "actor.trunk.", "actor.base_network.")
    require(
        any(map(tensors.has, known)),
        f"{origin}: its tensors have no names of CORL, d3rlpy, rlkit or Stable-Baselines3:"
        f" {', '.join(sorted(flat(state))[:6])}. Give other networks as modules (pretrained=package.module:function).",
    )
    return from_corl(tensors)


def as_agent(made: Any, origin: str) -> Agent:
    """Return what a user's function made as an agent.

    Args:
        made: an :class:`~o3f.algorithms.Agent`; a dict with the arguments of
            :func:`~o3f.adapters.from_modules` (``policy``, ``critics``, ``value``, ...); a state dict of a peer; or a
            model of Stable-Baselines3 or d3rlpy.
        origin: what messages call it.

    Raises:
        ConfigError: it is none of these.
    """
    library = type(made).__module__.split(".")[0]
    if isinstance(made, Agent):
        return made
    if library in ("stable_baselines3", "d3rlpy"):
        return from_sb3(made, origin) if library == "stable_baselines3" else from_d3rlpy(made, origin)
    if not isinstance(made, Mapping):
        raise ConfigError(f"{origin} returned a {type(made).__name__}, expected a dict with policy, critics, value.")
    if "policy" not in made or isinstance(made["policy"], Mapping):
        return from_tensors(made, origin)
    check_keys(made, _PARTS, origin)
    return from_modules(**made, origin=origin)


def agent_digest(agent: Agent) -> str:
    """Return the SHA-256 of an agent's weights and settings, by which a resumed run sees that it began with them."""
    digest = hashlib.sha256(json.dumps(settings(agent) if is_own(agent) else None).encode())
    for name, tensor in sorted(agent_tensors(agent).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _call(name: str) -> Any:
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:  # Python's own rule for a script is its folder, which is that of the recipe
        sys.path.insert(0, here)
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name}: {error}. It is looked for from {here}, then where Python finds modules.") from error
    finally:
        if added:
            sys.path.remove(here)
    try:
        return make()
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # the call itself
            raise ConfigError(f"{name} must return an agent when called without arguments: {error}.") from error
        raise
