"""Checks of a dataset before anything is learned from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from o3f.data.episodes import Episode, read_episodes
from o3f.data.observations import observation_layout
from o3f.data.source import open_dataset

ACTION_TOLERANCE = 1e-3
"""Excess over the action bounds, in agent units, that is clipped without asking."""

_NOT_FINITE = "is not finite"
_OUT_OF_BOUNDS = "exceeds the action bounds"
_GOES_ON = "ends the episode before its last step"
_CURES = {
    _NOT_FINITE: "Repair these values, or leave their episodes out with minari's filter_episodes.",
    _OUT_OF_BOUNDS: "Check the action space and action_scale, or accept clipping with clip_actions=true.",
    _GOES_ON: "The next observation there belongs to another episode: split the episode at this step.",
}


@dataclass
class DatasetReport:
    """What the checks saw; fill it with :meth:`add`, then ask :meth:`raise_faults`.

    Args:
        dataset_id: named in errors.
        clip_actions: accept actions however far out of bounds.

    Attributes:
        returns: raw undiscounted return of each episode with at least one step.
        transitions: number of steps.
        terminated: episodes that end in a terminal state.
        truncated: episodes cut off by a limit, the unfinished ones included.
        unfinished: episodes whose data stop without either flag; they count as truncated.
        clipped_actions: action values beyond the bounds, which the loader clips.
        worst_excess: the largest distance of one of them to the bounds, in agent units.
        faults: ``(field, kind)`` to ``(count, episode, step)`` of the first.
    """

    dataset_id: str
    clip_actions: bool = False
    returns: list[float] = field(default_factory=list)
    transitions: int = 0
    terminated: int = 0
    truncated: int = 0
    unfinished: int = 0
    clipped_actions: int = 0
    worst_excess: float = 0.0
    faults: dict[tuple[str, str], tuple[int, int, int]] = field(default_factory=dict)
    _only_zeros: bool = True

    def add(self, episode: Episode) -> None:
        """Check one episode; one without steps is skipped."""
        if not len(episode):
            return
        self.returns.append(float(episode.rewards.sum(dtype=np.float64)))
        self.transitions += len(episode)
        self.terminated += bool(episode.terminated[-1])
        self.truncated += not episode.terminated[-1]
        self.unfinished += episode.unfinished
        self._only_zeros &= not (episode.observations.any() or episode.actions.any())
        excess = np.abs(episode.actions) - 1.0
        self.clipped_actions += int((excess > 1e-6).sum())  # less is rounding
        self.worst_excess = max(self.worst_excess, float(np.nan_to_num(excess, posinf=0.0).max()))
        for name in ("observations", "actions", "rewards"):
            self._note(name, _NOT_FINITE, episode, ~np.isfinite(getattr(episode, name)))
        if not self.clip_actions:
            self._note("actions", _OUT_OF_BOUNDS, episode, excess > ACTION_TOLERANCE)
        self._note("terminations", _GOES_ON, episode, episode.terminated[:-1])
        self._note("truncations", _GOES_ON, episode, episode.truncated[:-1])

    def raise_faults(self) -> None:
        """Stop if there is a fault.

        Raises:
            ValueError: listing every kind of fault with its field, count, first episode and step, and cure.
        """
        faults = [
            f"'{name}' {kind} at {count} place(s), first in episode {episode} at step {step}"
            + (f", by up to {self.worst_excess:.3g} in units of [-1, 1]" if kind == _OUT_OF_BOUNDS else "")
            + f". {_CURES[kind]}"
            for (name, kind), (count, episode, step) in self.faults.items()
        ]
        if self.transitions == 0:
            faults.append("there are no transitions. Collect or download the dataset again.")
        elif self.unfinished == len(self.returns):
            faults.append(
                f"neither 'terminations' nor 'truncations' is true at the end of any of {self.unfinished}"
                " episode(s). If a limit cut every episode, load with check=False, which takes each end as a"
                " truncation; otherwise make the dataset again with its flags."
            )
        if self.transitions and self._only_zeros:
            faults.append("all observations and actions are zero: the file is damaged. Get the dataset again.")
        if faults:
            raise ValueError(f"Dataset '{self.dataset_id}' cannot be used:\n- " + "\n- ".join(faults))

    def _note(self, name: str, kind: str, episode: Episode, bad: npt.NDArray[np.bool_]) -> None:
        if bad.any():
            step = int(np.argwhere(bad)[0, 0])
            count, first_episode, first_step = self.faults.get((name, kind), (0, episode.index, step))
            self.faults[name, kind] = (count + int(bad.sum()), first_episode, first_step)


def check_dataset(
    dataset_id: str,
    *,
    env: gymnasium.Env[Any, Any] | None = None,
    root: str | Path | None = None,
    observation_keys: Sequence[str] | None = None,
    action_scale: float = 1.0,
    clip_actions: bool = False,
) -> DatasetReport:
    """Read a local dataset once and check all of it, and an environment against it.

    Args:
        dataset_id: a Minari id.
        env: the environment to train in, see :func:`check_environment`.
        root: folder of the datasets, default as in Minari.
        observation_keys: see :func:`~o3f.data.observations.observation_layout`.
        action_scale: see :func:`~o3f.data.actions.to_agent_actions`.
        clip_actions: accept actions more than :data:`ACTION_TOLERANCE` out of bounds.

    Returns:
        Counts and episode returns.

    Raises:
        ValueError: at any fault; the message lists field, count, first episode and step, and the cure.
        FileNotFoundError: if the dataset is not there.
    """
    if env is not None:
        check_environment(dataset_id, env, root=root)
    dataset = open_dataset(dataset_id, root=root)
    layout = observation_layout(dataset.observation_space, observation_keys)
    report = DatasetReport(dataset_id, clip_actions)
    for episode in read_episodes(dataset, layout, action_scale):
        report.add(episode)
    report.raise_faults()
    return report


def check_environment(dataset_id: str, env: gymnasium.Env[Any, Any], *, root: str | Path | None = None) -> None:
    """Compare an environment with the one a dataset states: id and version, observation and action space.

    A dataset may hold the environment's own units or those after the wrappers of ``env``: its spaces must
    equal the spaces of ``env`` or of ``env.unwrapped``. No episode is read.

    Raises:
        ValueError: listing the differences.
    """
    dataset = open_dataset(dataset_id, root=root)
    recorded, present = dataset.env_spec, env.unwrapped.spec
    differences = []
    if recorded is not None and present is not None and recorded.id != present.id:
        differences.append(f"environment id: {recorded.id} in the dataset, {present.id} here")
    for name in ("observation_space", "action_space"):
        stated = getattr(dataset, name)
        spaces = [getattr(env, name), getattr(env.unwrapped, name)]
        if stated not in spaces:
            differences.append(f"{name}: {stated} in the dataset, {spaces[1]} here")
    if differences:
        raise ValueError(
            f"Dataset '{dataset_id}' was not made in this environment:\n- "
            + "\n- ".join(differences)
            + "\nUse the dataset's environment (id and arguments), or a dataset of this one."
        )
