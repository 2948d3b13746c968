"""A goal-reaching ant led through a maze, its rewards relabelled for one goal: D4RL's recipe."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from o3f.collection.behaviours.gaussian_mlp import GaussianMLP
from o3f.collection.behaviours.rollout import Array, Behaviour, Trajectory
from o3f.envs.wrappers import Env, within_radius

Cell = tuple[int, int]

WAYPOINT_DISTANCE = 10.0  # the norm to which D4RL rescales the direction that its ant was trained on
WAYPOINT_SPREAD = 1.0  # D4RL aims at the centre of the next cell + U(0, 1) in x and y


class WaypointBehaviour(Behaviour):
    """Walk from a random cell to a random goal; reward only what reaches ``target``.

    Each episode draws a goal among ``goals`` and a start among the other free cells. The ant's policy
    reads its body's observation followed by the direction to a point in the next cell of a shortest
    path. Afterwards the trajectory is relabelled for ``target``, as D4RL does: reward 1 and the end
    where the next position lies within ``radius`` of it, reward 0 elsewhere; an episode that ended at
    its own goal, which is another, is truncated, and ``desired_goal`` becomes the target throughout.

    Args:
        policy: goal-reaching ant, reads body dimensions + 2.
        env: a maze of Gymnasium-Robotics; its ``position_noise_range`` is set.
        target: cell of the one goal that is rewarded.
        radius: distance to the target's centre that counts as reached (D4RL: 0.5).
        goals: cells to walk to; None takes those that the maze marks, or the target if it marks none.
        noise: standard deviation of Gaussian noise added to the action (D4RL: 0.2).
        position_noise: start and goal are drawn up to this part of a cell's width around its centre
            (Gymnasium-Robotics: 0.25), so that not every walk to the target's cell reaches the target.

    Raises:
        ValueError: if the environment is no maze, or the target or a goal is a wall.
    """

    def __init__(
        self,
        policy: GaussianMLP,
        env: Env,
        *,
        target: Cell,
        radius: float,
        goals: Sequence[Cell] | None = None,
        noise: float = 0.2,
        position_noise: float = 0.25,
    ) -> None:
        maze: Any = getattr(env.unwrapped, "maze", None)
        if maze is None:
            raise ValueError(f"The waypoint behaviour needs a maze environment, found {env}.")
        env.unwrapped.position_noise_range = position_noise  # type: ignore[attr-defined]
        cells = [(i, j, kind) for i, row in enumerate(maze.maze_map) for j, kind in enumerate(row)]
        marked = [(i, j) for i, j, kind in cells if kind in ("c", "g")]
        self.policy, self.maze, self.radius, self.noise = policy, maze, radius, noise
        self.free = [(i, j) for i, j, kind in cells if kind != 1]
        self.goals = [(i, j) for i, j in goals] if goals else marked or [target]
        for cell in (target, *self.goals):
            if cell not in self.free:
                raise ValueError(f"Cell {cell} is not free; free cells (row, column): {self.free}.")
        self.target = self._centre(target)
        self.distances: dict[Cell, int] = {}

    def start(self, episode: int, rng: np.random.Generator) -> dict[str, Any]:
        """Draw goal and start."""
        goal = self.goals[rng.integers(len(self.goals))]
        starts = [cell for cell in self.free if cell != goal]
        self.distances = distances_to(goal, self.free)
        return {
            "reset_cell": np.array(starts[rng.integers(len(starts))]),
            "goal_cell": np.array(goal),
        }

    def act(self, observation: Any, rng: np.random.Generator) -> Array:
        """Walk towards the next cell; in the goal's cell, towards the goal."""
        position = observation["achieved_goal"]
        cell = next_cell(tuple(self.maze.cell_xy_to_rowcol(position)), self.distances)
        aim = observation["desired_goal"]
        if cell is not None:
            aim = self._centre(cell) + rng.uniform(0.0, WAYPOINT_SPREAD, 2)
        direction = (aim - position) / (np.linalg.norm(aim - position) + 1e-9) * WAYPOINT_DISTANCE
        body = observation["observation"][: self.policy.observation_dim - 2]
        action = self.policy.sample(np.concatenate([body, direction]), rng)
        return action + self.noise * rng.standard_normal(action.shape)

    def finish(self, trajectory: Trajectory) -> Trajectory:
        """Relabel for the target and end where it is reached."""
        reached = within_radius(trajectory.observations["achieved_goal"][1:], self.target, self.radius)
        steps = int(reached.argmax()) + 1 if reached.any() else len(trajectory)
        observations = {key: value[: steps + 1] for key, value in trajectory.observations.items()}
        goal = observations["desired_goal"]
        observations["desired_goal"] = np.broadcast_to(self.target, goal.shape).astype(goal.dtype)
        truncated = np.zeros(steps, dtype=np.bool_)
        truncated[-1] = not reached[steps - 1]
        return dataclasses.replace(
            trajectory,
            observations=observations,
            actions=trajectory.actions[:steps],
            rewards=reached[:steps].astype(np.float64),
            terminated=reached[:steps],
            truncated=truncated,
        )

    def _centre(self, cell: Cell) -> Array:
        return np.asarray(self.maze.cell_rowcol_to_xy(np.array(cell)))


def distances_to(goal: Cell, free: Sequence[Cell]) -> dict[Cell, int]:
    """Number of moves from every cell that reaches the goal, by breadth-first search.

    Examples:
        >>> distances_to((0, 2), [(0, 0), (0, 1), (0, 2), (5, 5)])
        {(0, 2): 0, (0, 1): 1, (0, 0): 2}
    """
    distances, queue, open_cells = {goal: 0}, deque([goal]), set(free)
    while queue:
        cell = queue.popleft()
        for neighbour in neighbours(cell):
            if neighbour in open_cells and neighbour not in distances:
                distances[neighbour] = distances[cell] + 1
                queue.append(neighbour)
    return distances


def next_cell(cell: Cell, distances: dict[Cell, int]) -> Cell | None:
    """The neighbour nearest to the goal; None in the goal's cell or one that does not reach it."""
    if distances.get(cell, 0) == 0:
        return None
    return min(neighbours(cell), key=lambda each: distances.get(each, len(distances)))


def neighbours(cell: Cell) -> list[Cell]:
    """The four cells beside this one."""
    row, column = cell
    return [(row, column - 1), (row, column + 1), (row + 1, column), (row - 1, column)]
