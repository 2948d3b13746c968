"""Intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from o3f.optional import optional


@dataclass(frozen=True)
class Interval:
    """A mean and the half width of its interval; NaN where there are fewer than two values."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width

    def __str__(self) -> str:
        return f"{self.mean:.0f} ± {self.half_width:.0f}"


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    r"""Student's t interval of the mean of independent values, one a seed.

    .. math:: \bar x \pm t_{(1 + c)/2,\, n - 1} \, s / \sqrt n

    with ``values`` :math:`x_1..x_n`, their mean :math:`\bar x`, their standard deviation :math:`s` (divisor
    :math:`n - 1`) and ``confidence`` :math:`c`. For a comparison of two arms give the differences, paired by seed.

    Args:
        values: at least one.
        confidence: strictly between 0 and 1.

    Raises:
        ValueError: if there are no values, or the confidence is out of range.

    Examples:
        >>> interval = t_interval([1.0, 2.0, 3.0])
        >>> round(interval.mean, 3), round(interval.half_width, 3)
        (2.0, 2.484)
    """
    stats = optional("scipy.stats", "plots")
    if len(values) == 0 or not 0.0 < confidence < 1.0:
        raise ValueError(f"Need at least one value and 0 < confidence < 1, found {values=}, {confidence=}.")
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return Interval(float(sample.mean()), float("nan"))
    quantile = stats.t.ppf(0.5 + confidence / 2.0, df=len(sample) - 1)
    return Interval(float(sample.mean()), float(quantile * sample.std(ddof=1) / np.sqrt(len(sample))))


def verdict(change: Interval) -> str:
    """Say in words what an interval of changes shows."""
    if change.low > 0.0:
        return "improved"
    if change.high < 0.0:
        return "got worse"
    return "no clear improvement"
