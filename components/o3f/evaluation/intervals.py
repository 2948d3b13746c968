"""Intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from o3f.errors import optional


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


def sign_flip_test(differences: Sequence[float], draws: int = 65_536) -> float:
    r"""Two-sided permutation test of paired differences: would they be as large if their signs were chance?

    .. math:: p = \frac{1}{|S|} \sum_{s \in S} 1\Big[ \big|\sum_i s_i d_i\big| \ge \big|\sum_i d_i\big| \Big]

    with ``differences`` :math:`d_i` and :math:`S` all vectors of signs, or where there are more than ``draws``, that
    many drawn at random (always the same) beside the observed one.

    Args:
        differences: one a pair, at least one.
        draws: most vectors of signs.

    Returns:
        The p-value; NaN where a difference is not finite.

    Raises:
        ValueError: if there are no differences.

    Examples:
        >>> sign_flip_test([1.0, 2.0, 3.0])  # of eight vectors, only all + and all - are as large
        0.25
    """
    if len(differences) == 0:
        raise ValueError("Need at least one difference, found none.")
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        return float("nan")  # as the mean of such differences is; no sum of them is "as large"
    if 2 ** len(values) <= draws:
        signs = 1.0 - 2.0 * (np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1)
    else:
        drawn = np.random.default_rng(0).integers(0, 2, size=(draws, len(values)))
        signs = np.concatenate([np.ones((1, len(values))), 1.0 - 2.0 * drawn])
    sums = np.abs(signs @ values)
    return float(np.mean(sums >= np.abs(values.sum()) * (1.0 - 1e-12)))


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half of the values: a quarter of them is cut off at each end, in parts if need be.

    Raises:
        ValueError: if there are no values.

    Examples:
        >>> interquartile_mean([0.0, 1.0, 2.0, 100.0])
        1.5
        >>> interquartile_mean([0.0, 1.0, 8.0])  # weights 0.25, 1, 0.25
        2.0
    """
    if len(values) == 0:
        raise ValueError("Need at least one value, found none.")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    edges = np.arange(len(ordered) + 1)
    quarter = len(ordered) / 4.0
    kept = np.clip(edges[1:], quarter, 3 * quarter) - np.clip(edges[:-1], quarter, 3 * quarter)
    return float(kept @ ordered / kept.sum())
