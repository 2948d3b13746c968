"""D4RL's AntMaze drawings: 1 is a wall, r the start and g the goal of its evaluations (d4rl/locomotion/maze_env.py)."""

from __future__ import annotations

DRAWINGS = {
    "umaze": ["11111", "1r001", "11101", "1g001", "11111"],
    "medium": ["11111111", "1r011001", "10010001", "11000111", "10010001", "10100101", "100010g1", "11111111"],
    "large": [
        *("111111111111", "1r0001000001", "101101010101", "100000010001", "101111011101"),
        *("100101000001", "110101010111", "100100010g01", "111111111111"),
    ],
}


def cell_of(size: str, mark: str) -> list[int]:
    """Row and column of a mark."""
    ((row, line),) = ((row, line) for row, line in enumerate(DRAWINGS[size]) if mark in line)
    return [row, line.index(mark)]
