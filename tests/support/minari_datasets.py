"""Small Minari datasets, written with Minari itself, for the tests of everything that reads them."""

from __future__ import annotations

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
