"""Time a gradient step, an action and the loop beside other implementations: python -m benchmarks.

Each contender of a workload is one process with one thread. All are started and warmed, then asked in turn
(A B C, A B C, ...) for about a second each, so that a busy machine slows all of them alike. How to read the table:

- *CPU ms*: process CPU time a step, all threads counted, median over the rounds. A step samples its batch and
  updates the targets. ``lapo_block`` is per critic update, in a block of 20 with one policy update; beside it
  stands the plain version's full step with two critics, which has an update of everything each time.
- *x reference*: times as long as the reference takes, the median of the ratios of each round (not the ratio of the
  medians), with the range from the 10 % to the 90 % quantile. Read differences under ten percent as ties.
- *products* is no implementation: the matrix products of our update alone, into memory that is there already. Its ratio
  is the share of our time that no other code in float32 on one thread could save.
- *peak MB*: the largest resident size of that process, with Python, imports and 100k transitions in it.
- *within*: two cases of one contender, paired by round. The actor call is one observation, N=100 and m=5, under
  TorchRL's exploration; collection is environment, selection and insertion through the Collector of
  recipes/finetune.py; the loop has IQL with five critics, its share is its update rate over the learner's own.

The data are random transitions of HalfCheetah's sizes (17 and 6) in memory. Equal are networks, batch sizes, sampling
with replacement and what a step trains. Not equal: TorchRL steps its losses jointly, and its policy is another one;
d3rlpy also returns its losses as numbers (see benchmarks). Ours computes no figures for a log, as recipes do at
all but every ``log_every``-th step, and keeps freed memory, as they do. The plain learners are first checked: a
contender whose parameters are not ours after five steps from equal weights, batches and draws, fails. Not measured:
evaluation, logging, checkpoints, other devices than the CPU, more threads than one, other network sizes, and how well
anything learns.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from benchmarks import check, report
from benchmarks.process import Worker
from o3f.cli.recipe import check_keys, recipe, require_range
from o3f.runs.files import write_text
from o3f.runs.provenance import provenance

CELL = 0.2  # of the seconds, for workloads of many cases


@recipe("benchmark")
def main(config: DictConfig) -> None:
    """Check, measure, show, write."""
    require_range(config, "rounds", "[1, inf)", integer=True)
    require_range(config, "seconds", "(0, inf)")
    contenders: dict[str, Any] = OmegaConf.to_container(config.contenders, resolve=True)  # type: ignore[assignment]
    check_keys([config.reference], contenders, "reference")
    known = list(dict.fromkeys(name for each in contenders.values() for name in each["workloads"]))
    chosen = known if config.only is None else list(config.only)
    check_keys(chosen, known, "only")

    differences = {name: check.difference(name) for name in check.CHECKED if name in chosen and "plain" in contenders}
    results: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for workload in chosen:
        with workers_for(workload, contenders, differences) as workers:
            measure(workload, workers, config)
            results += report.results_of(workload, workers, config.reference)
            comparisons += report.comparisons_of(workload, workers)
    publish(config, differences, results, comparisons)


@contextlib.contextmanager
def workers_for(workload: str, contenders: dict[str, Any], differences: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Start and warm the workers of a workload; end them afterwards."""
    chosen = {name: each for name, each in contenders.items() if workload in each["workloads"]}
    workers = {name: Worker(each, workload) for name, each in chosen.items()}
    try:
        for worker in workers.values():
            worker.wait_until_warm()
        if "plain" in workers and not differences.get(workload, 0.0) <= check.TOLERANCE:
            workers["plain"].fail(f"its parameters differ from ours by {differences[workload]:.1e}")
        yield workers
    except BaseException:
        for worker in workers.values():
            worker.kill()
        raise
    finally:
        for worker in workers.values():
            worker.close()


def measure(workload: str, workers: dict[str, Any], config: DictConfig) -> None:
    """Ask all in turn, over the rounds."""
    cases = list(dict.fromkeys(case for worker in workers.values() for case in worker.cases))
    seconds = config.seconds * (CELL if workload == "scoring" else 1.0)
    for number in range(config.rounds):
        print(f"{workload}: round {number + 1} of {config.rounds}", file=sys.stderr, flush=True)
        for case in cases:
            for worker in workers.values():
                if case in worker.cases:
                    worker.ask(case, seconds)


def publish(
    config: DictConfig,
    differences: dict[str, float],
    results: list[dict[str, Any]],
    comparisons: list[dict[str, Any]],
) -> None:
    """Print the tables and write the files."""
    facts = provenance()
    told = f"{facts['processor']}, torch {facts['torch']}, {config.rounds} rounds of {config.seconds:g} s"
    tables = [(report.HEADER, report.rows(results), f"reference: {config.reference}; {told}")]
    if comparisons:
        tables.append((report.WITHIN_HEADER, report.comparison_rows(comparisons), "CPU time, paired by round"))
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {key: config[key] for key in ("rounds", "seconds", "reference")}
    content = {
        "environment": facts,
        "settings": settings,
        "largest_difference_of_plain": differences,
        "results": results,
        "comparisons": comparisons,
    }
    write_text(folder / "benchmark.json", json.dumps(content, indent=1))
    texts = [f"{title}\n\n{report.markdown(header, lines)}" for header, lines, title in tables]
    write_text(folder / "benchmark.md", "\n".join(texts))
    console = Console(width=130)
    for header, lines, title in tables:
        console.print(report.rich_table(header, lines, title))
    for name, size in differences.items():
        print(f"{name}: the plain version's parameters are ours to {size:.1e} after five steps")
    print(f"Written: {folder / 'benchmark.json'}, {folder / 'benchmark.md'}")


if __name__ == "__main__":
    main()
