"""Small Minari datasets, written with Minari itself, for the tests of everything that reads them."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

Episodes = list[dict[str, Any]]


def make_episodes(
    lengths: list[int],
    *,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.spaces.Box,
    ends: str = "tu",
    seed: int = 0,
) -> Episodes:
    """Random episodes; ``ends`` is cycled through: t(erminated), u (truncated), - (neither)."""
    observation_space.seed(seed)
    action_space.seed(seed)
    rng = np.random.default_rng(seed)
    episodes = []
    for number, steps in enumerate(lengths):
        last = np.arange(steps) == steps - 1
        end = ends[number % len(ends)]
        episodes.append(
            {
                "observations": stack([observation_space.sample() for _ in range(steps + 1)]),
                "actions": np.array([action_space.sample() for _ in range(steps)]),
                "rewards": rng.normal(size=steps),
                "terminations": last & (end == "t"),
                "truncations": last & (end == "u"),
            }
        )
    return episodes


def with_resets(episodes: Episodes) -> Episodes:
    """As an Autoreset inside the recorder would have left these: from the second on, a reset is their first step."""
    found = episodes[:1]
    for before, after in itertools.pairwise(episodes):
        first = {"actions": np.full(after["actions"].shape[1:], 0.5), "rewards": 0, "terminations": 0, "truncations": 0}
        rows = {
            name: np.concatenate([np.array([value], after[name].dtype), after[name]]) for name, value in first.items()
        }
        found.append({"observations": _follow(before["observations"], after["observations"]), **rows})
    return found


def _follow(before: Any, after: Any) -> Any:
    """Observations that begin with the last one of an earlier episode."""
    if isinstance(after, dict):
        return {key: _follow(before[key], part) for key, part in after.items()}
    return np.concatenate([before[-1:], after])


def stack(values: list[Any]) -> Any:
    """Arrays of a list of (nested) observations."""
    if isinstance(values[0], dict):
        return {key: stack([value[key] for value in values]) for key in values[0]}
    return np.array(values)


def write_dataset(
    dataset_id: str,
    episodes: Episodes,
    *,
    observation_space: gymnasium.Space[Any] | None = None,
    action_space: gymnasium.Space[Any] | None = None,
    **arguments: Any,
) -> minari.MinariDataset:
    """Write episodes under ``$MINARI_DATASETS_PATH``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari's, about metadata that these datasets do not need
        return minari.create_dataset_from_buffers(
            dataset_id,
            buffer=[EpisodeBuffer(id=index, infos={}, **each) for index, each in enumerate(episodes)],
            observation_space=observation_space,
            action_space=action_space,
            algorithm_name="test",
            author="test",
            author_email="test",
            code_permalink="test",
            description="test",
            **arguments,
        )


def datasets_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Make ``folder`` the only place where datasets are looked for."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    return folder
