"""What o3f and others make of one small file of each form is as the page says."""

from __future__ import annotations

from docs.tools import loaders
from docs.tools.sections import section


def test_the_table_of_the_page_is_what_the_loaders_make() -> None:
    """Those that are installed here; the others' lines were made with them."""
    found = loaders.ours_and_rules()
    ours = {name: loaders.cell(made, name) for name, made in found["o3f, zeros for missing timeouts"].items()}
    assert ours == {
        "locomotion": "30, 1 terminal",
        "with next observations": "34, 2 terminal",
        "AntMaze": "26, 2 terminal",
        "kitchen": "24, 3 terminal",
        "OGBench": "34, 2 terminal",
    }
    for line in loaders.lines(found):
        assert line in section("loaders"), "run: python docs/tools/loaders.py PYTHON"


def test_what_is_called_false() -> None:
    """A next observation that is another's, or zeros, unless nothing is expected after it; and rows that are none."""
    true = (9.0, 10.0, False)
    assert loaders.cell([true, (10.0, 11.0, False), (30.0, 0.0, False)], "locomotion") == "3, 0 terminal, **2 false**"
    assert loaders.cell([true, (17.0, 0.0, True), (25.0, 26.0, True)], "locomotion") == "3, 2 terminal"
    assert loaders.cell([(10.0, 10.5, False), (10.0, 11.0, False)], "with next observations").endswith("**1 false**")
    assert loaders.cell([(10.0, 11.0, False), (11.0, 12.0, True)], "OGBench") == "2, 1 terminal, **1 false**"


def test_the_false_rows_of_torchrl_lead_to_zeros() -> None:
    rows = loaders.ours_and_rules()["TorchRL's `D4RLExperienceReplay`"]["with next observations"]
    assert [(now, after) for now, after, terminal in rows if after != now + 1 and not terminal] == [(10, 0), (30, 0)]
