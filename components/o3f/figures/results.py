"""What runs came to: a row each, arms in summary, arms compared seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np

from o3f.evaluation.intervals import Interval, interquartile_mean, sign_flip_test, t_interval
from o3f.figures.plan import PlannedRun
from o3f.figures.quantities import Series, quantities, read_series
from o3f.runs.files import read_json

#: A sign-flip test of five pairs cannot have a p below 2 / 2^5 = 0.0625, whatever they are.
MIN_PAIRS = 6


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        run: which.
        series: its curves.
        values: by name of :data:`~o3f.figures.quantities.QUANTITIES`.
        agent: equal where the settings, the seed and the data of two runs' pre-trained agents are.
    """

    run: PlannedRun
    series: Series
    values: Mapping[str, float]
    agent: tuple[str, str | None]


@dataclass(frozen=True)
class Comparison:
    """A quantity of one arm minus another one's, paired by seed.

    Attributes:
        task: where.
        first: name of the arm.
        second: of the one it is compared with.
        differences: by seed, of those that have finished in both.
        same_agent: whether each pair started from one pre-trained agent, and not only from one seed.
    """

    task: str
    first: str
    second: str
    differences: Mapping[int, float]
    same_agent: bool

    @property
    def mean(self) -> float:
        """Mean difference."""
        return float(np.mean(list(self.differences.values())))

    def interval(self, confidence: float, min_seeds: int) -> Interval | None:
        """Student's t interval of the mean difference; None where there are fewer than ``min_seeds`` pairs."""
        enough = len(self.differences) >= min_seeds
        return t_interval(list(self.differences.values()), confidence) if enough else None

    @property
    def p_value(self) -> float | None:
        """Of the sign-flip permutation test; None where there are fewer than :data:`MIN_PAIRS` pairs."""
        enough = len(self.differences) >= MIN_PAIRS
        return sign_flip_test(list(self.differences.values())) if enough else None


def read_results(runs: Sequence[PlannedRun], policies: Mapping[str, str]) -> list[Result]:
    """Read the finished ones of a figure's runs.

    Args:
        runs: finished or not.
        policies: arm of the plain policy, by arm; the dip of an arm without one, or of a seed whose plain-policy run
            is not among the finished ones, is NaN.
    """
    finished = [run for run in runs if run.finished]
    series = {run: read_series(run.path, int(run.config.online.steps), reference(run)) for run in finished}
    return results_of(series, policies)


def results_of(series: Mapping[PlannedRun, Series], policies: Mapping[str, str]) -> list[Result]:
    """Return what the curves of runs say; ``policies`` as for :func:`read_results`."""
    plain = {(run.task, run.arm, run.seed): curves for run, curves in series.items()}
    return [
        Result(
            run,
            curves,
            quantities(curves, plain.get((run.task, policies.get(run.arm, ""), run.seed))),
            (run.pretraining, read_json(run.path / "env.json").get("dataset_hash")),
        )
        for run, curves in series.items()
    ]


def reference(run: PlannedRun) -> tuple[float, float] | None:
    """Returns that are the scores 0 and 100 on a run's task, None where it has none."""
    score = run.config.task.score
    return None if score.min is None or score.max is None else (float(score.min), float(score.max))


def by_arm(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """Return the results of each task and arm."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.run.task, result.run.arm), []).append(result)
    return groups


def compare(results: Sequence[Result], pairs: Sequence[Sequence[str]], quantity: str) -> list[Comparison]:
    """Return the comparisons of arms on every task, those that have at least one seed in common.

    Args:
        results: of finished runs.
        pairs: names of two arms each.
        quantity: what is compared.
    """
    groups = by_arm(results)
    comparisons = []
    for task in dict.fromkeys(result.run.task for result in results):
        for first, second in pairs:
            ours = {each.run.seed: each for each in groups.get((task, first), [])}
            theirs = {each.run.seed: each for each in groups.get((task, second), [])}
            seeds = sorted(ours.keys() & theirs.keys())
            values = {seed: ours[seed].values[quantity] - theirs[seed].values[quantity] for seed in seeds}
            values = {seed: value for seed, value in values.items() if not isnan(value)}
            same = all(_share_agent(ours[seed], theirs[seed]) for seed in seeds)
            if values:
                comparisons.append(Comparison(task, first, second, values, same))
    return comparisons


def _share_agent(first: Result, second: Result) -> bool:
    """Whether two runs began with one agent.

    Equal settings, seed and data do not suffice: pre-trained on another machine, whose sums are rounded otherwise,
    it is another agent, and its offline score tells.
    """
    return first.agent == second.agent and first.values["offline"] == second.values["offline"]


def in_common(results: Sequence[Result], arms: Sequence[str]) -> list[Result]:
    """Return the results of those tasks and seeds that all of the arms have: no arm may gain by what it lacks."""
    have = [{(each.run.task, each.run.seed) for each in results if each.run.arm == arm} for arm in arms]
    common = set.intersection(*have) if have else set()
    return [each for each in results if each.run.arm in arms and (each.run.task, each.run.seed) in common]


def aggregate(results: Sequence[Result], arm: str, quantity: str) -> float:
    """Return the interquartile mean of a quantity over the tasks and seeds of an arm; NaN where there are none."""
    values = [each.values[quantity] for each in results if each.run.arm == arm]
    return interquartile_mean(values) if values else nan


def headline(results: Sequence[Result], first: str, second: str) -> dict[str, float]:
    """Return how much better one arm is than another over all tasks, in percent, in three readings.

    The paper says "56 %" and not of what: of the mean final score, of each task's in the mean, or of the area. Over the
    tasks and seeds that both have; a ratio to a score of 0 is NaN, in the mean of the tasks' ratios it is left out.
    """
    groups = by_arm(in_common(results, [first, second]))
    tasks = [task for task, arm in groups if arm == first]
    means = {
        (task, arm, name): float(np.mean([each.values[name] for each in groups[task, arm]]))
        for task in tasks
        for arm in (first, second)
        for name in ("final", "auc")
    }

    def total(arm: str, name: str) -> float:
        return sum(means[task, arm, name] for task in tasks)

    ratios = [_more(means[task, first, "final"], means[task, second, "final"]) for task in tasks]
    known = [ratio for ratio in ratios if not isnan(ratio)]
    left_out = f" ({len(ratios) - len(known)} of {len(ratios)} left out, at 0)" if len(known) < len(ratios) else ""
    return {
        "ratio of the mean final scores": _more(total(first, "final"), total(second, "final")),
        f"mean of the tasks' ratios{left_out}": float(np.mean(known)) if known else nan,
        "ratio of the mean areas": _more(total(first, "auc"), total(second, "auc")),
    }


def _more(ours: float, theirs: float) -> float:
    """How much more one score is than another, in percent; NaN where the other is 0."""
    return 100.0 * (ours / theirs - 1.0) if theirs else nan
