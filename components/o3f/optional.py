"""Packages that only some features need."""

from __future__ import annotations

import importlib
from typing import Any


def optional(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its name.
        extra: the extra of this package that brings it.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} cannot be imported ({error}). Try: pip install "o3f[{extra}]"') from error
