"""Sections of docs/own-data.md that scripts write, between two comments that name them."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "own-data.md"


def section(name: str) -> str:
    """Return what stands between the two comments."""
    return _parts(name)[1].strip("\n")


def put(name: str, text: str) -> None:
    """Replace what stands there."""
    before, _, after = _parts(name)
    PAGE.write_text(f"{before}\n\n{text}\n\n{after}", encoding="utf-8")


def _parts(name: str) -> tuple[str, str, str]:
    """The page up to the first comment, what stands between, and the rest from the second comment on."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = PAGE.read_text(encoding="utf-8").split(start)
    between, after = rest.split(end)
    return before + start, between, end + after
