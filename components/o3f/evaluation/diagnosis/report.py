"""From judged states to figures, and from figures to one sentence of advice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from o3f.errors import optional
from o3f.evaluation.diagnosis.judge import Floats, Judged

Figures = dict[str, float | None]

CLEAR = 2.0
"""Standard errors that a mean must lie from zero to count as different from it."""

FAR = 3.0
"""Sigma beyond so many times the data's own action noise asks the critics about actions they have not seen."""

MOSTLY_CLIPPED = 0.5
"""With a larger share of the candidates' components at their bounds, there is little left to choose from."""

VERDICTS = {
    2: "O3F should help",
    1: "O3F may help",
    0: "No sign that O3F helps",
    -1: "O3F may hurt",
    -2: "O3F should hurt",
}
"""By the sum of two signs, see :func:`advice`."""


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

    Those with an ``..._error`` are means over states, and that is the mean's standard error (rather too small: states
    of one episode are not independent).

    Args:
        judged: at least two.
        sigma: of the candidates, root mean square over the action's components.
        noise: the data's own action noise, see :func:`~o3f.evaluation.diagnosis.judge.action_noise`; None where there
            are no data.

    Returns:
        - ``rank_correlation`` of the critics' mean with the true return among a state's candidates, over the
            ``states_compared``, in which both differ between candidates;
        - ``gain``: the true return of the candidate with the highest mean, less that of the policy's own action;
        - ``gain_over_a_random_one``: less that of the average candidate, which is what the critics add;
        - ``gain_of_a_random_one``, ``gain_of_the_best``: over the policy's own action, for comparison;
        - ``spread``: standard deviation of the true returns of a state's candidates; ``relative_gain`` in units of it;
        - ``clipped``: share of candidates with a component at its bound; ``clipped_components``: of components;
        - ``disagreement``: standard deviation over critics; ``disagreement_on_ranks``: what is left of it without each
            critic's own level, in units of the spread of their mean over candidates;
        - ``sigma``, ``data_noise``, ``sigma_by_noise``: the last is the ratio of the two.
    """
    figures = _over_states(judged)
    values = np.stack([each.values for each in judged])[:, 1:]
    levels = values - values.mean(1, keepdims=True)
    spread = float(np.mean([each.returns[1:].std() for each in judged]))
    figures |= {
        "spread": spread,
        "relative_gain": _ratio(figures["gain"], spread),
        "relative_gain_error": _ratio(figures["gain_error"], spread),
        "clipped": float(np.mean([each.clipped.any(-1) for each in judged])),
        "clipped_components": float(np.mean([each.clipped for each in judged])),
        "disagreement": float(values.std(-1).mean()),
        "disagreement_on_ranks": _ratio(float(levels.std(-1).mean()), float(values.mean(-1).std(1).mean())),
        "sigma": sigma,
        "data_noise": math.nan if noise is None else noise,
        "sigma_by_noise": math.nan if noise is None else _ratio(sigma, noise),
    }
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _over_states(judged: Sequence[Judged]) -> dict[str, float]:
    """The figures that are means over states, with their standard errors."""
    mean = np.stack([each.values[1:].mean(-1) for each in judged])
    truth = np.stack([each.returns[1:] for each in judged])
    own = np.array([each.returns[0] for each in judged])
    choice = truth[np.arange(len(judged)), mean.argmax(1)]
    correlations = np.array([rank_correlation(*pair) for pair in zip(mean, truth, strict=True)])
    numbers: dict[str, Floats] = {
        "rank_correlation": correlations[~np.isnan(correlations)],
        "gain": choice - own,
        "gain_over_a_random_one": choice - truth.mean(1),
        "gain_of_a_random_one": truth.mean(1) - own,
        "gain_of_the_best": truth.max(1) - own,
    }
    figures = {"states_compared": float(len(numbers["rank_correlation"]))}
    for name, each in numbers.items():
        figures |= {name: _mean(each), f"{name}_error": _error(each)}
    return figures


def advice(figures: Figures) -> str:
    """Return one sentence that follows from the figures and the thresholds of this module.

    Two signs count: the gain, and the rank correlation, each where it lies at least :data:`CLEAR` of its standard
    errors from zero. Two positive ones: should help; one: may help; none, or one of each: no sign; one negative: may
    hurt; two: should hurt. A reason that lies in sigma is added.
    """
    gain, error = figures["gain"] or 0.0, figures["gain_error"] or 0.0
    correlation, correlation_error = figures["rank_correlation"], figures["rank_correlation_error"]
    if correlation is None or correlation_error is None:
        return (
            "No answer: in nearly every state all candidates had the same return; take more states, a longer horizon or"
            " bootstrap=true."
        )
    verdict = VERDICTS[_clear(gain, error) + _clear(correlation, correlation_error)]
    return (
        f"{verdict}: the action that the critics choose gains {gain:.3g} ± {error:.2g} over the policy's own, and their"
        f" ranking correlates by {correlation:.2f} ± {correlation_error:.2f} with the true one{_remark(figures)}."
    )


def _clear(mean: float, error: float) -> int:
    """The sign of a mean, 0 where chance may have made it."""
    return int(np.sign(mean)) if abs(mean) > CLEAR * error else 0


def _remark(figures: Figures) -> str:
    ratio, clipped = figures["sigma_by_noise"], figures["clipped_components"] or 0.0
    if ratio is not None and ratio > FAR:
        return f"; sigma is {ratio:.1f} times the data's own action noise: try a smaller one"
    if clipped > MOSTLY_CLIPPED:
        return f"; {100 * clipped:.0f} % of the candidates' components are clipped: try a smaller sigma"
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
        ("  over a candidate at random instead", shown("gain_over_a_random_one")),
        ("  of a candidate at random", shown("gain_of_a_random_one")),
        ("  of the best candidate", shown("gain_of_the_best")),
        ("spread of the candidates' true returns", shown("spread")),
        ("candidates clipped", shown("clipped", 100.0, " %")),
        ("  components clipped", shown("clipped_components", 100.0, " %")),
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
