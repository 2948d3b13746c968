"""Names of tensordict entries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensordict import NestedKey, unravel_key


def key_list(keys: Iterable[NestedKey]) -> list[Any]:
    """Return the distinct ``keys`` in their order, in tensordict's canonical form.

    The element type is ``Any`` because tensordict annotates the keys of its modules as ``str | tuple[str]``,
    which excludes the nested keys that it accepts.
    """
    return list(dict.fromkeys(unravel_key(key) for key in keys))
