"""The page of the fault list tells the truth: every row of priority A is tested, every test it names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.recipe_runs import ROOT

PAGE = ROOT / "docs/reliability.md"
ROW = re.compile(r"\| (\d+) \| ([ABC]) \| .* \| (.*) \|")
LINK = re.compile(r"\[(test_\w+)\]\((\S+)\)")


def rows(page: str) -> dict[int, tuple[str, str]]:
    """Priority and guard of each row."""
    found = [ROW.fullmatch(line) for line in page.splitlines()]
    return {int(row[1]): (row[2], row[3]) for row in found if row}


def names_in(file: Path) -> list[str]:
    """The tests that pytest collects from a file and does not skip without a condition."""
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    skipped = re.compile(r"mark\.(skip|xfail)\b")
    return [
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        if not any(skipped.search(ast.unparse(decorator)) for decorator in node.decorator_list)
    ]


def faults(page: str, folder: Path) -> Iterator[str]:
    """What is wrong with the page, given the folder of tests."""
    listed = rows(page)
    names = [name for file in folder.glob("test_*.py") for name in names_in(file)]
    tested = {int(row) for name in names for row in re.findall(r"_f(\d\d)(?=_)", name)}
    if missing := set(range(1, 54)) - set(listed):  # numbers from 54 on may have gaps: rows come and go
        yield f"rows {sorted(missing)} are missing"
    for row, (priority, guard) in listed.items():
        if priority == "A" and row not in tested:
            yield f"row {row} has priority A and no test"
        if priority == "A" and not LINK.search(guard):
            yield f"row {row} has priority A and names no test"
        for name, link in LINK.findall(guard):
            file = (PAGE.parent / link).resolve()
            if not file.exists() or name not in names_in(file):
                yield f"row {row} names {name} in {link}, which does not exist"
    yield from (f"tests of a row {row} that is not listed" for row in tested - set(listed))


def test_the_page_is_complete_and_true() -> None:
    assert list(faults(PAGE.read_text(encoding="utf-8"), Path(__file__).parent)) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("| 6 | A |", "| 99 | A |"), "rows [6] are missing"),
        (("(../tests/faults/test_storage.py)", "(../tests/faults/test_crash.py)"), "which does not exist"),
        (("[test_f09_", "[test_f09_not_"), "which does not exist"),
        (("[test_f12_", "[f12_"), "row 12 has priority A and names no test"),
        (("| 13 | C |", "| 13 | A |"), "row 13 has priority A and no test"),
    ],
)
def test_what_is_wrong_with_a_page_is_found(change: tuple[str, str], found: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert change[0] in page
    assert any(found in fault for fault in faults(page.replace(*change), Path(__file__).parent))
