"""Watches the weights of advantage-weighted policies (IQL, AWAC): at their cap they tell no action from another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

from torch import Tensor

from o3f.algorithms import Learner
from o3f.objectives.functional import MAX_WEIGHT

MOST_AT_CAP = 0.1
"""The share of weights at their cap that is warned of."""

SETTLED = 200
"""Updates after which V is no longer as it was drawn, and advantages are more than its initial error."""


class WeightWatch:
    """Warns, once, when more than a tenth of the advantage weights sit at their cap from one log to the next.

    A weight is ``min(exp(beta A), 100)``, with the inverse temperature beta (``1 / lam`` in AWAC) and the advantage A,
    which is as large as the rewards are scaled. Where it is at the cap for many actions, the policy clones all of them
    alike, and another batch's noise decides.

    Args:
        learner: with ``temperature`` or ``lam`` among its coefficients where it has such weights.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._before = 0.0
        self._warned = False

    def check(self, step: int, metrics: Mapping[str, float | Tensor]) -> None:
        """Look at the metrics of an update that is logged.

        Args:
            step: of the run.
            metrics: ``advantage/clipped_share``, and ``advantage/high``, below which 99 % of the advantages lie.
        """
        share = float(metrics.get("advantage/clipped_share", 0.0))
        both, self._before = min(share, self._before), share
        if both <= MOST_AT_CAP or self._warned or self._learner.updates < SETTLED:
            return
        self._warned = True
        fitting = math.log(MAX_WEIGHT) / float(metrics["advantage/high"])  # the beta at which 1 % are at the cap
        coefficients = self._learner.coefficients
        if "lam" in coefficients:
            beta, cure = 1.0 / float(coefficients["lam"]), f"algorithm.lam={1.0 / fitting:.2g}"
        else:
            beta, cure = float(coefficients["temperature"]), f"algorithm.temperature={fitting:.2g}"
        warnings.warn(
            f"Step {step}: {share:.0%} of the advantage weights are at their cap of {MAX_WEIGHT:g}, so that the policy"
            f" clones these actions all alike. The rewards are too large for this temperature: {cure}, or"
            f" task.reward.scale times {fitting / beta:.2g}, would leave about 1 % there.",
            stacklevel=2,
        )
