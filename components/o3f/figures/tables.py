"""The CSV files of a figure, and its tables in Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from omegaconf import DictConfig
from rich.table import Column, Table

from o3f.evaluation.intervals import t_interval, verdict
from o3f.figures.plot import curve
from o3f.figures.quantities import QUANTITIES
from o3f.figures.results import Comparison, Result, aggregate, by_arm, compare, headline, in_common

#: Compared beside the primary endpoint.
SECONDARY = ("final", "collecting", "collecting_episodes", "regret", "regret_steps")


def rows_csv(results: Sequence[Result]) -> str:
    """Return a line for each finished run, with all its quantities."""
    rows = [["task", "arm", "seed", *QUANTITIES, "run"]]
    for each in results:
        values = [repr(each.values[name]) for name in QUANTITIES]
        rows.append([each.run.task, each.run.arm, str(each.run.seed), *values, each.run.path.as_posix()])
    return _csv(rows)


def curves_csv(results: Sequence[Result], tags: Sequence[str]) -> str:
    """Return the drawn curves, a line for each value."""
    rows = [["task", "arm", "seed", "tag", "step", "value"]]
    for each in results:
        start = [each.run.task, each.run.arm, str(each.run.seed)]
        rows += [[*start, tag, repr(step), repr(value)] for tag in tags for step, value in curve(each, tag).items()]
    return _csv(rows)


def arms_table(results: Sequence[Result], settings: DictConfig) -> str:
    """Return the table of :func:`arms_rows`, of all quantities."""
    return markdown(arms_rows(results, settings, list(QUANTITIES)))


def arms_rows(results: Sequence[Result], settings: DictConfig, names: Sequence[str]) -> list[list[str]]:
    """Return the means over seeds of some quantities, with intervals where there are enough seeds."""
    rows = [["task", "arm", "seeds", *names]]
    for (task, arm), group in by_arm(results).items():
        cells = []
        for name in names:
            values = [each.values[name] for each in group if not np.isnan(each.values[name])]
            enough = len(values) >= settings.min_seeds
            interval = t_interval(values, settings.confidence) if enough else None
            mean = _number(float(np.mean(values))) if values else "-"
            cells.append(mean + (f" ± {interval.half_width:.1f}" if interval else ""))
        rows.append([task, _label(arm, settings), str(len(group)), *cells])
    return rows


def comparisons_table(results: Sequence[Result], settings: DictConfig) -> str:
    """Return the figure's comparisons: of the primary endpoint with interval and p value, of the others the mean.

    There is no p where no comparison has seeds enough for one.
    """
    compared = compare(results, settings.figure.compare, settings.primary)
    with_p = ["p"] if any(each.p_value is not None for each in compared) else []
    header = ["task", "first minus second", "seeds", settings.primary, *with_p, *SECONDARY, "pairs share", "remark"]
    others = {name: compare(results, settings.figure.compare, name) for name in SECONDARY}
    rows = [header]
    for each in compared:
        same = {name: _same(each, comparisons) for name, comparisons in others.items()}
        rows.append([each.task, f"{_label(each.first, settings)} minus {_label(each.second, settings)}"])
        rows[-1] += [str(len(each.differences)), _difference(each, settings)]
        rows[-1] += ["-" if each.p_value is None else f"{each.p_value:.3f}"] if with_p else []
        rows[-1] += [_number(other.mean) if other else "-" for other in same.values()]
        rows[-1] += ["agent and seed" if each.same_agent else "seed", _remark(each, settings)]
    return markdown(rows) if len(rows) > 1 else "No pair of arms has a finished seed in common.\n"


def gains(results: Sequence[Result], settings: DictConfig) -> list[str]:
    """Return a line for each task and arm: how much its policy has gained, and whether that is more than chance."""
    lines = []
    for (task, arm), group in by_arm(results).items():
        values = [each.values["gain"] for each in group if not np.isnan(each.values["gain"])]
        if len(values) >= settings.min_seeds:
            interval = t_interval(values, settings.confidence)
            told = f"{interval.mean:+.1f} ± {interval.half_width:.1f}: {verdict(interval)}"
        else:
            told = f"{_number(float(np.mean(values))) if values else '-'}: descriptive"
        lines.append(f"{_place(task, results)}{_label(arm, settings)} against its offline agent: gain {told}")
    return lines


def sentences(results: Sequence[Result], settings: DictConfig, second: str) -> list[str]:
    """Return a line for each of the comparisons: the primary endpoint, a second one, verdicts, and what has no pair.

    Args:
        results: of runs.
        settings: ``conf/figures.yaml``, or what has the same keys.
        second: another quantity.
    """
    others = compare(results, settings.figure.compare, second)
    groups, lines = by_arm(results), []
    for each in compare(results, settings.figure.compare, settings.primary):
        names = f"{_label(each.first, settings)} minus {_label(each.second, settings)}"
        other = _same(each, others)
        beside = f"; {second} {_difference(other, settings)}, {_remark(other, settings)}" if other else ""
        seeds = {arm: {result.run.seed for result in groups[each.task, arm]} for arm in (each.first, each.second)}
        alone = sorted(seeds[each.first] ^ seeds[each.second])
        unpaired = f"; without a pair, left out: seed {', '.join(map(str, alone))}" if alone else ""
        shared = "" if each.same_agent else "; not from the same agents"
        pairs = f"{len(each.differences)} {'seed' if len(each.differences) == 1 else 'seeds'}{shared}{unpaired}"
        found = f"{settings.primary} {_difference(each, settings)}, {_remark(each, settings)}{beside}"
        lines.append(f"{_place(each.task, results)}{names} ({pairs}): {found}")
    return lines


def aggregate_table(results: Sequence[Result], settings: DictConfig) -> str:
    """Return interquartile means over tasks and seeds, and the ratios of the figure's first pair."""
    arms = list(dict.fromkeys(each.run.arm for each in results))
    names = ("auc", "gain", "final")
    rows = [["arm", *(f"interquartile mean of {name}" for name in names)]]
    common = in_common(results, arms)
    for arm in arms:
        rows.append([_label(arm, settings), *(_number(aggregate(common, arm, name)) for name in names)])
    text = (
        f"{markdown(rows)}\nOver the {len(common) // len(arms)} pairs of task and seed that all of these arms have.\n"
    )
    first, second = settings.figure.compare[0] if settings.figure.compare else ("", "")
    if {first, second} <= set(arms):
        ratios = headline(results, first, second)
        text += f"\n{_label(first, settings)} over {_label(second, settings)}: "
        text += ", ".join(f"{name} {'-' if np.isnan(value) else f'{value:+.0f} %'}" for name, value in ratios.items())
        text += " (-: the other's score is 0).\n" if np.isnan(list(ratios.values())).any() else ".\n"
    return text


def _same(wanted: Comparison, comparisons: Sequence[Comparison]) -> Comparison | None:
    key = (wanted.task, wanted.first, wanted.second)
    return next((each for each in comparisons if (each.task, each.first, each.second) == key), None)


def _difference(each: Comparison, settings: DictConfig) -> str:
    interval = each.interval(settings.confidence, settings.min_seeds)
    half = f" ± {interval.half_width:.1f}" if interval else ""
    return f"{each.mean:+.1f}{half}"


def _remark(each: Comparison, settings: DictConfig) -> str:
    interval = each.interval(settings.confidence, settings.min_seeds)
    if interval is None:
        return "descriptive"
    return "more" if interval.low > 0.0 else "less" if interval.high < 0.0 else "no clear difference"


def _place(task: str, results: Sequence[Result]) -> str:
    return f"{task}: " if len({each.run.task for each in results}) > 1 else ""


def _label(arm: str, settings: DictConfig) -> str:
    return str(settings.catalogue[arm].label)


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{round(value, 1) + 0.0:.1f}"  # no -0.0


def console(rows: Sequence[Sequence[str]]) -> Table:
    """Return rows, of which the first is the head, as a table for the terminal."""
    table = Table(*(Column(name, justify="left" if name in ("task", "arm") else "right") for name in rows[0]))
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, of which the first is the head, as a table of Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines) + "\n"
