"""Whether positions of a dataset lie in the free cells of an environment's maze, and its successes in the goal's cell.

Observations of another maze, of the same one in other coordinates or with another goal have the same size, and would
train quietly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from torchrl.data import ReplayBuffer

from o3f.data.info import DatasetInfo

MOST_IN_WALLS = 0.01
"""Share of the positions that may lie in walls: an agent's centre does not, but for steps in which it bounces."""

MOST_ROWS = 10_000
"""So many are looked at, evenly over the dataset."""


def share_in_walls(positions: npt.NDArray[Any], maze: Any) -> float:
    """Return the share of positions that lie in walls or outside of a maze.

    Args:
        positions: x and y in the simulation, ``[N, 2]``.
        maze: of Gymnasium-Robotics, its ``maze_map`` 1 where there is a wall.
    """
    rows, columns = _cells(positions, maze)
    inside = (rows >= 0) & (rows < maze.map_length) & (columns >= 0) & (columns < maze.map_width)
    walls = np.array([[cell == 1 for cell in row] for row in maze.maze_map])
    return float(np.mean(~inside | walls[rows.clip(0, maze.map_length - 1), columns.clip(0, maze.map_width - 1)]))


def _cells(positions: npt.NDArray[Any], maze: Any) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Row and column of positions ``[N, 2]``, those outside of the maze, too."""
    columns = np.floor((positions[:, 0] + maze.x_map_center) / maze.maze_size_scaling).astype(int)
    rows = np.floor((maze.y_map_center - positions[:, 1]) / maze.maze_size_scaling).astype(int)
    return rows, columns


def check_maze(
    buffer: ReplayBuffer,
    info: DatasetInfo,
    env: gymnasium.Env[Any, Any],
    keys: Sequence[str],
    goal_cell: Sequence[int] | None = None,
) -> None:
    """Compare positions of a dataset with the maze of an environment, where it has one.

    Args:
        buffer: with the dataset's rows first; :data:`MOST_ROWS` of them are read.
        info: about the dataset.
        env: the environment.
        keys: parts that the observations consist of; they begin with the position if ``achieved_goal`` is the first.
        goal_cell: row and column of the goal in which every episode of the environment can end; None: it differs.

    Raises:
        ValueError: if more than :data:`MOST_IN_WALLS` of the positions lie in walls, or the dataset's episodes end
            at another goal.
    """
    maze = getattr(env.unwrapped, "maze", None)
    if maze is None or not keys or keys[0] != "achieved_goal":
        return
    rows: Any = buffer[torch.arange(0, info.transitions, 1 + info.transitions // MOST_ROWS)]
    share = share_in_walls(rows["observation"][:, :2].numpy(), maze)
    if share > MOST_IN_WALLS:
        raise ValueError(
            f"{info.dataset_id}: {100 * share:.0f} % of its positions lie in walls of this environment's maze, so it is"
            " of another maze, or in other coordinates. D4RL's own AntMaze files need task=d4rl/antmaze-umaze-diverse,"
            " -medium-diverse or -large-diverse; for others state the maze of the data in task.env.kwargs.maze_map."
        )
    if goal_cell is not None:
        _check_goal(buffer[: info.transitions], info.dataset_id, maze, (goal_cell[0], goal_cell[1]))


def _check_goal(rows: Any, dataset_id: str, maze: Any, goal: tuple[int, int]) -> None:
    """Compare where episodes terminate with the cell of the goal; D4RL's goals are off its centre, but in it."""
    ends = rows["next", "observation"][rows["next", "terminated"].squeeze(-1)][:, :2].numpy()
    if not len(ends):
        return
    found = tuple(int(number[0]) for number in _cells(ends.mean(0, keepdims=True), maze))
    if found != goal:
        raise ValueError(
            f"{dataset_id}: its episodes end at a goal in cell {found} (row, column) of the maze, but this task's goal"
            f" is cell {goal}: what earns a reward in the data would not while collecting. Make the dataset again"
            f" (collect has the task's goal), or give task.env.reset_options.goal_cell={list(found)}."
        )
