"""Keeps the agent of the best evaluation, and says so when fine-tuning makes things worse."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from o3f.algorithms import Learner
from o3f.runs.checkpoint import save


class BestAgent:
    """Compares each evaluation with the best and the first one.

    Args:
        folder: where the best agent is kept, as a checkpoint with the component ``learner``.
        patience: evaluations in a row below the first one, before a warning.
    """

    def __init__(self, folder: Path, patience: int) -> None:
        self.folder = folder
        self.patience = patience
        self._first: float | None = None
        self._best: float = -inf
        self._below = 0
        self._later: list[float] | None = []

    def update(self, step: int, metrics: Mapping[str, float], learner: Learner) -> dict[str, float]:
        """Take note of an evaluation: its ``score`` (where the task has none, its ``return``) at ``step``.

        Returns:
            ``gain``, from the second evaluation on: the mean of those after the first one, minus the first one.
        """
        score = metrics.get("score", metrics.get("return"))
        if score is None:  # the evaluation failed
            return {}
        if self._first is None:
            self._first = score
        elif self._later is not None:
            self._later.append(score)
        self._keep(step, score, learner)
        self._warn(step, score, self._first)
        return {"gain": sum(self._later) / len(self._later) - self._first} if self._later else {}

    def _keep(self, step: int, score: float, learner: Learner) -> None:
        if score > self._best:
            self._best = score
            try:
                save(self.folder, step, {"learner": learner}, {"score": score}, keep=1)
            except OSError as error:
                warnings.warn(f"The best agent so far, of step {step}, could not be kept ({error}).", stacklevel=3)

    def _warn(self, step: int, score: float, first: float) -> None:
        self._below = 0 if score >= first else self._below + 1
        if self._below == self.patience:
            warnings.warn(
                f"Step {step}: the last {self.patience} evaluations are below that of the agent to begin with"
                f" ({first:.1f}); the best one was {self._best:.1f}, its agent is in {self.folder}."
                " A smaller exploration.sigma keeps closer to the policy.",
                stacklevel=3,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the scores to compare with, and the count."""
        return {"first": self._first, "best": self._best, "below": self._below, "later": self._later}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over such a state."""
        self._first, self._best, self._below = (state_dict[name] for name in ("first", "best", "below"))
        self._later = state_dict.get("later")  # not there in states of earlier versions: those have no gain
