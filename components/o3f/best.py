"""Keeps the agent of the best evaluation, and says so when fine-tuning makes things worse."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from o3f.algorithms import Learner
from o3f.checkpoint import save


class BestAgent:
    """Compares each evaluation with the best and the first one.

    Args:
        folder: where the best agent is kept, as a checkpoint with the component ``learner``.
        state: saved with the run; this adds ``first_score``, ``best_score`` and ``below``.
        patience: evaluations in a row below the first one, before a warning.
    """

    def __init__(self, folder: Path, state: dict[str, Any], patience: int) -> None:
        self.folder = folder
        self.state = state
        self.patience = patience

    def update(self, step: int, figures: Mapping[str, float], learner: Learner) -> None:
        """Take note of an evaluation: its ``score`` (where the task has none, its ``return``) at ``step``."""
        score = figures.get("score", figures.get("return"))
        if score is None:  # the evaluation failed
            return
        first = self.state.setdefault("first_score", score)
        if score > self.state.get("best_score", float("-inf")):
            self.state["best_score"] = score
            try:
                save(self.folder, step, {"learner": learner}, {"score": score}, keep=1)
            except OSError as error:
                warnings.warn(f"The best agent so far, of step {step}, could not be kept ({error}).", stacklevel=2)
        self.state["below"] = 0 if score >= first else self.state.get("below", 0) + 1
        if self.state["below"] == self.patience:
            warnings.warn(
                f"Step {step}: the last {self.patience} evaluations are below that of the agent to begin with"
                f" ({first:.1f}); the best one was {self.state['best_score']:.1f}, its agent is in {self.folder}."
                " A smaller exploration.sigma keeps closer to the policy.",
                stacklevel=2,
            )
