"""Pre-train, fine-tune in several ways, compare: python recipes/quickstart.py.

Runs the other recipes as commands, so that what is finished is not done again and what was stopped goes on.
Table and figure are made from the metrics.csv files of the run folders.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from o3f.cli.commands import arguments, command
from o3f.cli.recipe import recipe, require_range
from o3f.data import is_local
from o3f.errors import ResourceError, optional
from o3f.evaluation.comparison import comparison_table, paired_differences, plot_arms, read_curves

LABELS = {
    "optimistic": "O3F",
    "noise": "Gaussian noise",
    "policy": "plain policy",
    "matched_noise": "matched noise",
    "random_rank": "random rank",
}
#: Processes of runs, the ended ones too.
STARTED: list[subprocess.Popen[bytes]] = []


@recipe("quickstart")
def main(config: DictConfig) -> None:
    """Run what is missing, then show what came out."""
    for key in ("transitions", "workers"):
        require_range(config, key, "[1, inf)", integer=True)
    for seed in config.seeds:
        require_range({"seeds": seed}, "seeds", "[0, inf)", integer=True)
    require_range(config, "confidence", "(0, 1)")
    for module in ("matplotlib", "scipy"):  # needed at the end: told at the start
        optional(module, "plots")
    started = time.monotonic()
    folder = Path(config.runs, config.name)
    common = [
        f"experiment={config.experiment}",
        f"name={config.name}",
        f"runs={config.runs}",
        *config.overrides,
    ]
    with ThreadPoolExecutor(config.workers) as pool:  # first in, first out: pre-training comes before its arms
        try:
            if not is_local(config.dataset):
                run("collect", [f"task={config.task}", f"steps={config.transitions}"])
            offline = {seed: pool.submit(run, "pretrain", [*common, f"seed={seed}"]) for seed in config.seeds}
            online = []
            for seed, arm in itertools.product(config.seeds, config.arms):
                overrides = [*common, f"exploration={arm}", f"seed={seed}"]
                online.append(pool.submit(run, "finetune", overrides, after=offline[seed]))
            commands = [future.result() for future in online]
        except KeyboardInterrupt:  # Ctrl-C, or SIGTERM
            pool.shutdown(wait=False, cancel_futures=True)
            for process in STARTED:
                process.terminate()
            raise

    runs = {arm: [folder / f"{config.run}-{arm}" / f"seed{seed}" for seed in config.seeds] for arm in config.arms}
    arms = {LABELS[arm]: [read_curves(path) for path in paths] for arm, paths in runs.items()}
    Console(width=120).print(comparison_table(arms, config.confidence))
    print("\n".join(paired_differences(arms, config.confidence)))
    print(f"\nCurves: {plot_arms(arms, folder / 'quickstart.png', title=config.title)}")
    print(f"All of it took {(time.monotonic() - started) / 60:.1f} minutes. Next:")
    print(f"  tensorboard --logdir {folder}")
    print(f"  {commands[0]}  # resumes where it was stopped; now it says that it is done")
    print(f"  {command('evaluate', f'run={runs[config.arms[0]][0]}', 'episodes=20', 'optimistic=true')}")


def run(recipe_name: str, overrides: Sequence[str], after: Future[str] | None = None) -> str:
    """Run a recipe as a command and return that command.

    Raises:
        ResourceError: if it failed; what it said stands above.
    """
    if after is not None:
        after.result()
    started, shown = time.monotonic(), command(recipe_name, *overrides)
    process = subprocess.Popen(arguments(recipe_name, *overrides), stdout=subprocess.DEVNULL)
    STARTED.append(process)
    if process.wait():
        raise ResourceError(f"failed, see above; the same command goes on after the cause is mended: {shown}")
    print(f"{time.monotonic() - started:4.0f} s  {shown}", flush=True)
    return shown


if __name__ == "__main__":
    main()
