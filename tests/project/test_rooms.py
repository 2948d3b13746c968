"""The package's rooms: few enough to know by heart, and imports point down alone (README, Layout)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import o3f
from o3f.algorithms import ALGORITHMS
from o3f.objectives.ranges import COUNTS, RANGES
from o3f.training.torchrl import GROUPS

PACKAGE = Path(o3f.__file__).parent
#: From the ground up. Of the rooms of one floor, those further to the right may import those to their left.
FLOORS = (
    ("errors", "modules"),
    ("objectives", "data", "runs"),
    ("algorithms", "envs"),
    ("adapters", "evaluation", "cli"),
    ("collection", "training"),
    ("export", "figures"),
)
ORDER = {room: (floor, place) for floor, rooms in enumerate(FLOORS) for place, room in enumerate(rooms)}


def imported_rooms(file: Path) -> set[str]:
    """The rooms that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "o3f":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("o3f."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("o3f.")}
    return found


def test_the_rooms_are_those_of_the_layout() -> None:
    entries = {path.stem for path in PACKAGE.iterdir() if path.name not in ("__init__.py", "__pycache__", "py.typed")}
    assert entries == set(ORDER)
    assert len(entries) <= 14


def test_tests_lie_in_a_folder_of_the_room_that_they_test() -> None:
    others = {"recipes", "project", "faults", "support", "golden"}
    folders = {path.name for path in Path(__file__).parents[1].iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(ORDER) - {"errors"} | others


def test_imports_point_down_alone() -> None:
    up = [
        f"{file.relative_to(PACKAGE)} imports {room}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if (own := file.relative_to(PACKAGE).parts[0].removesuffix(".py")) != "__init__"
        for room in sorted(imported_rooms(file) - {own})
        if ORDER[room] >= ORDER[own]
    ]
    assert up == []


def test_no_file_hides_a_module_of_the_standard_library() -> None:
    names = {file.stem for file in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert not {name for name in names & sys.stdlib_module_names if (PACKAGE / f"{name}.py").exists()}


def test_only_the_command_line_and_training_see_the_whole_configuration() -> None:
    """Figures have a configuration of their own, and exports read that of a finished run."""
    allowed = {"cli", "training", "figures", "export"}
    files = [file for file in PACKAGE.rglob("*.py") if "DictConfig" in file.read_text(encoding="utf-8")]
    assert {file.relative_to(PACKAGE).parts[0] for file in files} <= allowed | {"runs"}  # a run writes its own down
    assert [file.name for file in files if file.parent.name == "runs"] == ["folder.py"]


def test_a_hyper_parameter_is_declared_in_three_places() -> None:
    """Its configuration, its file in conf/, and what uses it; the range stands in the table alone."""
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    declaring = {path.relative_to(PACKAGE).as_posix() for path, text in sources.items() if "expectile: float" in text}
    assert declaring == {"algorithms/iql.py", "objectives/iql.py", "objectives/functional/losses.py"}
    conf = PACKAGE.parents[1] / "conf/algorithm"
    assert {path.stem for path in conf.glob("*.yaml") if "\nexpectile:" in path.read_text()} == {"iql", "bc"}
    assert "expectile" in {field for field in GROUPS["loss"]["o3f_iql"].__dataclass_fields__}
    in_a_range = [path for path, text in sources.items() if '"expectile": "(' in text]
    assert [path.name for path in in_a_range] == ["ranges.py"]


def test_every_number_of_an_algorithm_has_a_range() -> None:
    for name, kind in ALGORITHMS.items():
        numbers = {
            field.name
            for field in kind.config_type.__dataclass_fields__.values()
            if isinstance(field.default, int | float) and not isinstance(field.default, bool)
        }
        assert numbers <= RANGES.keys() | COUNTS, name
