"""Which of my arms is better, and how sure is that? python recipes/compare.py name=default.

Takes finished runs and those under way, at the evaluations that all of a task have. Seeds of two arms make a pair.
"""

from __future__ import annotations

from o3f.cli.recipe import answer_first, check_keys, recipe

if __name__ == "__main__":
    answer_first("compare", __file__)  # before the imports below, which take seconds

from omegaconf import DictConfig

from o3f.figures.comparison import check_comparison, compare_runs
from o3f.figures.found import found_runs, run_folders


@recipe("compare")
def main(config: DictConfig) -> None:
    """Print table and sentences, write them with a picture and the figures of every seed."""
    check_comparison(config)
    runs = found_runs(run_folders(config))
    if config.tasks is not None:
        wanted = [task.replace("/", "-") for task in config.tasks]
        check_keys(wanted, sorted({run.task for run in runs}), "tasks")
        runs = [run for run in runs if run.task in wanted]
    report = compare_runs(runs, config)
    print(f"{report}: all of it; beside it the picture and the figures of every seed")


if __name__ == "__main__":
    main()
