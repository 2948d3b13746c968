"""Whether the parts of an optimistic actor fit one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensordict import NestedKey

from o3f.modules.keys import key_list

_OWN = ("candidates", "candidate_values", "scores")


def check_parts(parts: Mapping[str, Any], action_key: NestedKey) -> None:
    """Check that each part reads what the one before it writes.

    Args:
        parts: ``policy``, ``critic``, ``sampler``, ``scorer`` and ``selector`` by these names.
        action_key: the action's entry, in the canonical form of :func:`~o3f.modules.keys.key_list`.

    Raises:
        ValueError: if one does not write or read what it must, or policy or critic read an entry of the name of one
            that is written of candidates.
    """
    links = {"policy": action_key, "sampler": "candidates", "scorer": "scores", "selector": action_key}
    for part, key in links.items():
        out_keys = parts[part].out_keys
        if key not in out_keys:
            raise ValueError(f"The {part} must write {key!r}, but its out_keys are {out_keys}.")
    for part, needed in {"scorer": ("candidates", "candidate_values"), "selector": ("candidates",)}.items():
        in_keys = parts[part].in_keys
        if not set(needed) & set(in_keys):
            raise ValueError(f"The {part} must read {' or '.join(map(repr, needed))}, but its in_keys are {in_keys}.")
    if action_key not in parts["critic"].in_keys:
        raise ValueError(f"The critic must read {action_key!r}, but its in_keys are {parts['critic'].in_keys}.")
    for part in ("policy", "critic"):
        # What the environment says under these names would be overwritten by what the actor says of candidates.
        if taken := [key for key in key_list(parts[part].in_keys) if key in _OWN]:
            raise ValueError(
                f"The {part} reads {taken[0]!r}, a name that the actor gives to what it says of candidates:"
                f" {_OWN}. Rename the environment's entry: torchrl.envs.RenameTransform."
            )


def refuse_both(part: str, given: object, **arguments: object) -> None:
    """Refuse a part beside an argument of the default one.

    Args:
        part: its name.
        given: the part, or None.
        **arguments: those of the default part by name, None where they are not given.

    Raises:
        ValueError: naming both.
    """
    for name, value in arguments.items():
        if given is not None and value is not None:
            raise ValueError(f"Give either {part}= or {name}=, not both: {name} belongs to the default {part}.")
