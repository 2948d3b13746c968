"""What a run records about its dataset."""

from __future__ import annotations

from dataclasses import dataclass

from o3f.data.rewards import RewardRule


@dataclass(frozen=True)
class DatasetInfo:
    """What a run records about the dataset it used.

    Attributes:
        dataset_id: the Minari id, or a file's name.
        hash: SHA-256 of the rows before the reward rule; equal rows have equal hashes, in memory or in files.
        env_id: Gymnasium id of the recorded environment; ``None`` if the dataset does not say.
        episodes: number of episodes read.
        transitions: number of rows, ``D``.
        unfinished: episodes whose data stop without a flag; they count as truncated.
        dropped_episodes: episodes left out because of values that are not finite.
        clipped_actions: action values beyond the bounds, which were clipped.
        dropped_rows: rows of a file left out because it does not hold the observation that followed.
        dropped_reset_steps: episodes whose first step was left out because the environment was reset in it.
        returns: lowest, mean and highest raw return of the episodes read.
        reference_scores: the scores the dataset states for 0 and 100; ``None`` if it does not.
        reward: the reward rule that was applied, its scale as a number.
        summary: episodes, lengths, returns, ends and the range of actions in a line.
    """

    dataset_id: str
    hash: str
    env_id: str | None
    episodes: int
    transitions: int
    unfinished: int
    dropped_episodes: int
    clipped_actions: int
    dropped_rows: int
    dropped_reset_steps: int
    returns: tuple[float, float, float]
    reference_scores: tuple[float, float] | None
    reward: RewardRule
    summary: str

    @property
    def changes(self) -> dict[str, int]:
        """What was changed or left out while reading, by name; empty if nothing was."""
        names = ("clipped_actions", "dropped_episodes", "dropped_rows", "dropped_reset_steps", "unfinished")
        counts = {name: getattr(self, name) for name in names}
        return {f"dataset_{name}": count for name, count in counts.items() if count}
