"""Names of tensordict entries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tensordict import NestedKey, unravel_key


def key_list(keys: Iterable[NestedKey]) -> list[Any]:
    """Return the distinct ``keys`` in their order, in tensordict's canonical form.

    The element type is ``Any`` because tensordict annotates the keys of its modules as ``str | tuple[str]``,
    which excludes the nested keys that it accepts.

    Raises:
        TypeError: if they are one text, whose letters would be taken for keys, or one of them is no key.
    """
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        raise TypeError(f"Expected a list of keys, [{keys!r}] for example, got {keys!r}.")
    given: list[Any] = list(keys)
    for key in given:
        if not key or not isinstance(key, str | tuple):
            raise TypeError(f"A key is a text or a tuple of texts, got {key!r}.")
    return list(dict.fromkeys(unravel_key(key) for key in given))
