"""Comparing the rows of a buffer with what is read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensordict import TensorDictBase

from o3f.data.actions import check_action_space, to_agent_actions
from o3f.data.minari_store import Recorded
from o3f.data.observations import ObservationLayout
from o3f.data.rows import Key


@dataclass(frozen=True)
class Stored:
    """Where the first ``steps`` steps of an episode lie: rows ``start`` to ``start + steps - 1``."""

    episode: int
    start: int
    steps: int


def verify_rows(
    rows: TensorDictBase,
    stored: Sequence[Stored],
    dataset: Recorded,
    layout: ObservationLayout,
    action_scale: float = 1.0,
) -> None:
    """Read the first, the middle and the last stored episode again and compare every value.

    A loader that fills its rows with zeros, or with those of another episode, passes every check of shapes.

    Args:
        rows: ``[D]``, before the reward rule.
        stored: where each episode lies, in order.
        dataset: the open dataset.
        layout: how observations are flattened.
        action_scale: see :func:`~o3f.data.actions.to_agent_actions`.

    Raises:
        RuntimeError: naming the field, episode and step of the first difference.
    """
    sample = {each.episode: each for each in (stored[0], stored[len(stored) // 2], stored[-1])}
    space = check_action_space(dataset.action_space)
    for raw in dataset.iterate_episodes(list(sample)):
        place = sample[int(raw.id)]
        expected = _expected(raw, place.steps, layout, to_agent_actions(raw.actions, space, action_scale))
        for key, wanted in expected.items():
            column: Any = rows[key]
            found = column[place.start : place.start + place.steps].numpy()
            wanted = np.asarray(wanted).astype(found.dtype)
            different = np.argwhere((found != wanted) & ~(np.isnan(found) & np.isnan(wanted)))
            if len(different):
                step = int(different[0, 0])
                raise RuntimeError(
                    f"Row {place.start + step} of the buffer is not what '{dataset.id}' holds:"
                    f" {key!r} is {found[step].tolist()}, in episode {place.episode} at step {step} it is"
                    f" {wanted[step].tolist()}. The loader or the storage is broken: do not train on these rows."
                )


def _expected(raw: Any, steps: int, layout: ObservationLayout, actions: Any) -> dict[Key, Any]:
    with np.errstate(over="ignore"):
        observations = layout.flatten(raw.observations)
        rewards = np.asarray(raw.rewards).astype(np.float32)
    terminated = np.asarray(raw.terminations, dtype=bool)[:steps]
    return {
        "observation": observations[:steps],
        "action": np.clip(actions[:steps], -1.0, 1.0),
        ("next", "observation"): observations[1 : steps + 1],
        ("next", "reward"): rewards[:steps, None],
        ("next", "terminated"): terminated[:, None],
    }
