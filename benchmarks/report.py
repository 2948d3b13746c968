"""From the workers' answers to results, and from results to tables for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

#: Cases of one contender that are compared with each other: first minus second, or first as a share of second.
WITHIN = {
    "actor": [("minus", "actor call", "scoring")],
    "collection": [("minus", "O3F", "plain policy")],
    "loop": [("share", f"learner, {n} a step", f"loop, {n} a step") for n in (1, 20)],
}
HEADER = ["work", "contender", "CPU ms", "a CPU second", "x reference", "10-90 %", "wall ms", "peak MB"]
WITHIN_HEADER = ["within", "contender", "median", "10-90 %"]


def spread(rounds: Sequence[float]) -> dict[str, Any]:
    """Median and 10-90 % range of one figure a round."""
    low, median, high = np.quantile(np.asarray(rounds), (0.1, 0.5, 0.9)).tolist()
    return {"median": median, "low": low, "high": high, "rounds": list(rounds)}


def results_of(workload: str, workers: dict[str, Any], reference: str) -> list[dict[str, Any]]:
    """One entry a case and contender, in the order of the cases; one entry for a contender without figures."""
    cases = list(dict.fromkeys(case for worker in workers.values() for case in worker.cases))
    entries = []
    for case in cases:
        for name, worker in workers.items():
            if worker.state == "measured" and case in worker.cases:
                entries.append(_entry(workload, case, name, worker, workers.get(reference)))
    for name, worker in workers.items():
        if worker.state != "measured":
            problem = {"state": worker.state, "reason": worker.reason}
            entries.append({"workload": workload, "case": "", "contender": name, **problem})
    return entries


def _entry(workload: str, case: str, name: str, worker: Any, reference: Any) -> dict[str, Any]:
    answers = worker.answers[case]
    entry = {
        "workload": workload,
        "case": case,
        "contender": name,
        "state": "measured",
        **{key: spread([answer[key] for answer in answers]) for key in ("cpu_ms", "wall_ms")},
        "peak_mb": max(answer["peak_mb"] for answer in answers),
    }
    if reference is not None and reference.state == "measured" and case in reference.cases:
        pairs = zip(answers, reference.answers[case], strict=True)
        entry["ratio"] = spread([one["cpu_ms"] / other["cpu_ms"] for one, other in pairs])
    return entry


def comparisons_of(workload: str, workers: dict[str, Any]) -> list[dict[str, Any]]:
    """What :data:`WITHIN` asks for, paired by round."""
    found = []
    for kind, first, second in WITHIN.get(workload, ()):
        for name, worker in workers.items():
            if worker.state == "measured":
                pairs = zip(worker.answers[first], worker.answers[second], strict=True)
                both = [(one["cpu_ms"], other["cpu_ms"]) for one, other in pairs]
                figures = [one - other if kind == "minus" else one / other for one, other in both]
                label = f"{workload}: {first} {'minus' if kind == 'minus' else 'as a share of'} {second}"
                unit = "ms" if kind == "minus" else "share"
                found.append({"comparison": label, "contender": name, "unit": unit, **spread(figures)})
    return found


def rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The lines of the table of results."""
    lines = []
    for entry in results:
        case = "" if entry["case"] in ("", "update") else f": {entry['case']}"
        line = [entry["workload"] + case, entry["contender"]]
        if entry["state"] != "measured":
            reason = entry["reason"] if entry["state"] == "failed" else ""
            lines.append([*line, ": ".join(filter(None, [entry["state"], reason])), "", "", "", "", ""])
            continue
        cpu, ratio = entry["cpu_ms"]["median"], entry.get("ratio")
        line += [f"{cpu:.3g}", f"{1e3 / cpu:.3g}"]
        line += [f"{ratio['median']:.2f}", f"{ratio['low']:.2f}-{ratio['high']:.2f}"] if ratio else ["", ""]
        lines.append([*line, f"{entry['wall_ms']['median']:.3g}", f"{entry['peak_mb']:.0f}"])
    return lines


def comparison_rows(comparisons: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The lines of the table of comparisons within a contender."""
    lines = []
    for entry in comparisons:
        low, median, high = (
            f"{100 * entry[key]:.1f} %" if entry["unit"] == "share" else f"{entry[key]:.2f} ms"
            for key in ("low", "median", "high")
        )
        lines.append([entry["comparison"], entry["contender"], median, f"{low} to {high}"])
    return lines


def rich_table(header: Sequence[str], lines: Sequence[Sequence[str]], title: str) -> Table:
    """A table for the terminal."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(header):
        table.add_column(column, justify="left" if index < 2 else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same table in Markdown."""
    rule = ["---", "---", *["--:"] * (len(header) - 2)]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *escaped)) + "\n"
