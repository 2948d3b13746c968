"""From judged states to figures, and from figures to one sentence of advice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from o3f.diagnose import Floats, Judged
from o3f.optional import optional

Figures = dict[str, float | None]

CLEAR = 2.0
"""Standard errors that a mean must lie from zero to count as different from it."""

FAR = 3.0
"""Sigma beyond so many times the data's own action noise asks the critics about actions they have not seen."""

MOSTLY_CLIPPED = 0.5
"""With a larger share of clipped candidates, most of the choice is between the action's bounds."""


def rank_correlation(values: Floats, returns: Floats) -> float:
    """Spearman's rank correlation of two vectors ``[N]``, ties with their mean rank; NaN where one is constant.

    Examples:
        >>> rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3]))
        1.0
    """
    ranks = [optional("scipy.stats", "plots").rankdata(vector) for vector in (values, returns)]
    centred = [rank - rank.mean() for rank in ranks]
    scale = math.sqrt(float(centred[0] @ centred[0]) * float(centred[1] @ centred[1]))
    return float(centred[0] @ centred[1]) / scale if scale else math.nan


def figures_of(judged: Sequence[Judged], sigma: float, noise: float | None = None) -> Figures:
    """Return the figures of all states; None where there is nothing to compute them from.

    Args:
        judged: at least two.
        sigma: of the candidates, root mean square over the action's components.
        noise: the data's own action noise, see :func:`~o3f.diagnose.action_noise`; None where there are no data.

    Returns:
        ``rank_correlation`` of the critics' mean with the true return among a state's candidates; ``gain``, the true
        return of the candidate with the highest mean less that of the policy's own action; ``gain_of_a_random_one``
        and ``gain_of_the_best`` for comparison. These are means over states, and ``..._error`` their standard errors
        (states of one episode are not independent: they are rather too small). ``spread`` is the standard deviation
        of the true returns of a state's candidates, ``relative_gain`` the gain in units of it. ``states_compared`` are
        those in which the returns differ at all. ``clipped`` is the share of candidates; ``disagreement`` the standard
        deviation over critics, and ``disagreement_on_ranks`` what is left of it without each critic's own level, in
        units of the spread of their mean. ``sigma_by_noise`` is sigma by the data's noise.
    """
    values = np.stack([each.values for each in judged])[:, 1:]
    returns = np.stack([each.returns for each in judged])
    mean, truth, own = values.mean(-1), returns[:, 1:], returns[:, 0]
    states = np.arange(len(judged))
    correlations = np.array([rank_correlation(*pair) for pair in zip(mean, truth, strict=True)])
    means: dict[str, Floats] = {
        "rank_correlation": correlations[~np.isnan(correlations)],
        "gain": truth[states, mean.argmax(1)] - own,
        "gain_of_a_random_one": truth.mean(1) - own,
        "gain_of_the_best": truth.max(1) - own,
    }
    figures: dict[str, float] = {}
    for name, numbers in means.items():
        figures |= {name: _mean(numbers), f"{name}_error": _error(numbers)}
    levels = values - values.mean(1, keepdims=True)
    spread = float(truth.std(1).mean())
    figures |= {
        "spread": spread,
        "relative_gain": figures["gain"] / spread if spread else math.nan,
        "relative_gain_error": figures["gain_error"] / spread if spread else math.nan,
        "states_compared": float(len(means["rank_correlation"])),
        "clipped": float(np.mean([each.clipped for each in judged])),
        "disagreement": float(values.std(-1).mean()),
        "disagreement_on_ranks": _ratio(float(levels.std(-1).mean()), float(mean.std(1).mean())),
        "sigma": sigma,
        "data_noise": math.nan if noise is None else noise,
        "sigma_by_noise": math.nan if noise is None else _ratio(sigma, noise),
    }
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def advice(figures: Figures) -> str:
    """Return one sentence that follows from the figures and the thresholds of this module.

    The first that holds: the returns do not differ; the gain is at least :data:`CLEAR` standard errors above zero, or
    below; the rank correlation is so above zero; none of these. Reasons in sigma are added.
    """
    gain, gain_error = figures["gain"] or 0.0, figures["gain_error"] or 0.0
    correlation, error = figures["rank_correlation"], figures["rank_correlation_error"] or 0.0
    shown = f"the action that the critics choose gains {gain:.3g} ± {gain_error:.2g} over the policy's own"
    if correlation is None:
        return "No answer: in every state all candidates had the same return; take a longer horizon or bootstrap=true."
    ranks = f"(rank correlation {correlation:.2f} ± {error:.2f})"
    if gain > CLEAR * gain_error:
        return f"O3F should help: {shown} {ranks}{_remark(figures)}."
    if gain < -CLEAR * gain_error:
        return f"O3F should hurt: {shown} {ranks}{_remark(figures)}; keep to exploration=policy or noise."
    if correlation > CLEAR * error:
        return f"O3F may help: the critics rank better than chance {ranks}, but {shown}, not clear{_remark(figures)}."
    return f"No sign that O3F helps: the critics rank no better than chance {ranks}, and {shown}{_remark(figures)}."


def _remark(figures: Figures) -> str:
    ratio, clipped = figures["sigma_by_noise"], figures["clipped"] or 0.0
    if ratio is not None and ratio > FAR:
        return f", with a sigma of {ratio:.1f} times the data's own action noise: try a smaller one"
    if clipped > MOSTLY_CLIPPED:
        return f", with {100 * clipped:.0f} % of the candidates clipped: try a smaller sigma"
    return ""


def table_rows(figures: Figures) -> list[tuple[str, str]]:
    """Return the figures as a reader wants them: what it is, and the number with its standard error."""

    def shown(name: str, factor: float = 1.0, unit: str = "") -> str:
        value, error = figures[name], figures.get(f"{name}_error")
        if value is None:
            return "-"
        return f"{factor * value:.3g}" + (f" ± {factor * error:.2g}" if error is not None else "") + unit

    return [
        ("rank correlation of the critics' mean with the true return", shown("rank_correlation")),
        ("states whose candidates differ in return", shown("states_compared")),
        ("true gain of the critics' choice over the policy's own action", shown("gain")),
        ("  in units of the spread of true returns", shown("relative_gain")),
        ("  of a candidate at random", shown("gain_of_a_random_one")),
        ("  of the best candidate", shown("gain_of_the_best")),
        ("spread of the candidates' true returns", shown("spread")),
        ("candidates clipped", shown("clipped", 100.0, " %")),
        ("sigma", shown("sigma")),
        ("  by the data's own action noise", shown("sigma_by_noise")),
        ("critics' disagreement (standard deviation)", shown("disagreement")),
        ("  on the ranks, by the spread of their mean", shown("disagreement_on_ranks")),
    ]


def root_mean_square(sigma: Any) -> float:
    """Return one number for a sigma of one, or of one per action dimension."""
    return float(np.sqrt(np.mean(np.square(np.asarray(sigma, dtype=np.float64)))))


def _mean(numbers: npt.NDArray[np.float64]) -> float:
    return float(numbers.mean()) if len(numbers) else math.nan


def _error(numbers: npt.NDArray[np.float64]) -> float:
    return float(numbers.std(ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else math.nan


def _ratio(above: float, below: float) -> float:
    return above / below if below else math.nan
