"""What is read off a run: figures of its ``metrics.csv``, in scores (where the task has none, in returns)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

import numpy as np

from o3f.runs.logger import read_csv

#: By name, what each is; the order of tables.
QUANTITIES = {
    "offline": "score of the pre-trained agent, plain policy",
    "gain": "mean score over the online evaluations minus the offline score",
    "auc": "mean score over the online evaluations, plain policy",
    "final": "score of the last evaluation",
    "collecting": "mean score of the episodes while collecting, each as much as it has steps",
    "collecting_episodes": "mean score of the episodes while collecting, each alike, so that early falls count most",
    "dip": "mean over the evaluations in the first 10 % of the online steps, minus that of the plain-policy arm",
    "regret": "mean over the collected episodes of how much less than the offline score they had, at least 0 each",
    "regret_steps": "the same, each episode as much as it has steps",
}

EARLY_SHARE = 0.1


@dataclass(frozen=True)
class Series:
    """The curves of one run.

    Attributes:
        evaluated: score of the plain policy by online step; step 0 is the offline agent.
        collected: score of every whole episode played while collecting, by the step of its end.
        steps: online steps of the run.
    """

    evaluated: Mapping[int, float]
    collected: Mapping[int, float]
    steps: int

    @property
    def online(self) -> list[float]:
        """Scores of the online evaluations, in order."""
        return [score for step, score in sorted(self.evaluated.items()) if step > 0]


def read_tag(folder: Path, tag: str) -> dict[int, float]:
    """Return the values of a tag by step, of a run's ``metrics.csv``."""
    return {step: value for step, name, value in read_csv(folder / "metrics.csv") if name == tag}


def read_series(folder: Path, steps: int, reference: tuple[float, float] | None) -> Series:
    """Read the curves of a run folder.

    Args:
        folder: of the run.
        steps: online steps of the run.
        reference: returns that are the scores 0 and 100; None leaves returns as they are.
    """
    evaluated = read_tag(folder, "eval/return" if reference is None else "eval/score")
    collected = {step: to_score(value, reference) for step, value in read_tag(folder, "rollout/return").items()}
    return Series(evaluated, collected, steps)


def to_score(value: float, reference: tuple[float, float] | None) -> float:
    """Return the score of a return.

    Examples:
        >>> to_score(50.0, (0.0, 200.0)), to_score(50.0, None)
        (25.0, 50.0)
    """
    if reference is None:
        return value
    low, high = reference
    return 100.0 * (value - low) / (high - low)


def what_changed(folder: Path) -> str:
    """Say in a line what the plain policy of a run could do before and after, and whether it was better in between."""
    tag = next((tag for tag in ("eval/score", "eval/return") if 0 in read_tag(folder, tag)), "")
    evaluated = read_tag(folder, tag)
    if len(evaluated) < 2:
        return "There are no two evaluations to compare."
    before, after, best = evaluated[0], evaluated[max(evaluated)], max(evaluated, key=lambda step: evaluated[step])
    line = f"The policy's {tag.removeprefix('eval/')}: {before:.1f} before, {after:.1f} after ({after - before:+.1f})"
    return f"{line}; {evaluated[best]:.1f} at step {best} (checkpoint=best)" if evaluated[best] > after else line


def offline(run: Series) -> float:
    """Score before fine-tuning; NaN where that evaluation failed."""
    return run.evaluated.get(0, nan)


def auc(run: Series) -> float:
    """Mean score over the online evaluations, those at step > 0."""
    return _mean(run.online)


def gain(run: Series) -> float:
    """The primary endpoint: mean score over the online evaluations minus the offline score."""
    return auc(run) - offline(run)


def final(run: Series) -> float:
    """Score of the last online evaluation."""
    return run.online[-1] if run.online else nan


def collecting(run: Series) -> float:
    """Mean over the collected steps of their episode's score; those after the last end are left out."""
    return _mean_over_steps(run.collected)


def collecting_episodes(run: Series) -> float:
    """Mean over the collected episodes of their score."""
    return _mean(list(run.collected.values()))


def early(run: Series) -> float:
    """Mean score over the evaluations in the first 10 % of the online steps."""
    return _mean([score for step, score in run.evaluated.items() if 0 < step <= EARLY_SHARE * run.steps])


def dip(run: Series, policy: Series | None) -> float:
    """How much less the agent can early on than the plain-policy arm's of the same seed; NaN without that one."""
    return nan if policy is None else early(run) - early(policy)


def regret(run: Series) -> float:
    """Mean over the collected episodes of max(0, offline score - the episode's score): what collecting cost."""
    return _mean(list(_shortfalls(run).values()))


def regret_steps(run: Series) -> float:
    """Mean over the collected steps of their episode's max(0, offline score - score)."""
    return _mean_over_steps(_shortfalls(run))


def _shortfalls(run: Series) -> dict[int, float]:
    """How much less than the offline score each collected episode had, by the step of its end."""
    before = offline(run)
    return {} if isnan(before) else {end: max(0.0, before - score) for end, score in run.collected.items()}


def quantities(run: Series, policy: Series | None) -> dict[str, float]:
    """Return all of :data:`QUANTITIES`.

    Args:
        run: the curves.
        policy: those of the plain-policy arm from the same pre-trained agent, where there is one.
    """
    alone = (offline, gain, auc, final, collecting, collecting_episodes, regret, regret_steps)
    values = {function.__name__: function(run) for function in alone} | {"dip": dip(run, policy)}
    return {name: values[name] for name in QUANTITIES}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else nan


def _mean_over_steps(values: Mapping[int, float]) -> float:
    """Mean of the episodes' values by the step of their end, each as much as the episode has steps."""
    ends = sorted(values)
    return float(np.average([values[end] for end in ends], weights=np.diff([0, *ends]))) if ends else nan
