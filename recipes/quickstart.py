"""Pre-train, fine-tune in several ways, compare: python recipes/quickstart.py.

Runs the other recipes as commands, so that what is finished is not done again and what was stopped goes on.
Table and figure are made from the metrics.csv files of the run folders.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from o3f.commands import arguments, command
from o3f.comparison import comparison_table, paired_differences, plot_arms, read_curves
from o3f.config import recipe
from o3f.data import is_local
from o3f.errors import ResourceError

LABELS = {
    "optimistic": "O3F",
    "noise": "Gaussian noise",
    "policy": "plain policy",
    "matched_noise": "matched noise",
    "random_rank": "random rank",
}


@recipe("quickstart")
def main(config: DictConfig) -> None:
    """Run what is missing, then show what came out."""
    started = time.monotonic()
    if not is_local(config.dataset):
        run_all("collect", [[f"task={config.task}", f"steps={config.transitions}"]], 1)
    common = [f"+experiment={config.experiment}", f"name={config.name}", f"runs={config.runs}"]
    run_all("pretrain", [[*common, f"seed={seed}"] for seed in config.seeds], config.workers)
    folder = Path(config.runs, config.name)
    start = {seed: f"pretrained={folder}/{config.run}-offline/seed{seed}" for seed in config.seeds}
    pairs = [(arm, seed) for seed in config.seeds for arm in config.arms]
    online = [[*common, f"exploration={arm}", f"seed={seed}", start[seed]] for arm, seed in pairs]
    run_all("finetune", online, config.workers)

    runs = {arm: [folder / f"{config.run}-{arm}" / f"seed{seed}" for seed in config.seeds] for arm in config.arms}
    arms = {LABELS[arm]: [read_curves(path) for path in paths] for arm, paths in runs.items()}
    Console(width=120).print(comparison_table(arms, config.confidence))
    print("\n".join(paired_differences(arms, config.confidence)))
    print(f"\nCurves: {plot_arms(arms, folder / 'quickstart.png', title=config.title)}")
    print(f"All of it took {(time.monotonic() - started) / 60:.1f} minutes. Next:")
    print(f"  tensorboard --logdir {folder}")
    print(f"  {command('finetune', *online[0])}   # stopped in between, this resumes; now it says that it is done")
    print(f"  {command('evaluate', f'run={runs[config.arms[0]][0]}', 'episodes=20', 'optimistic=true')}")


def run_all(recipe_name: str, overrides: Sequence[Sequence[str]], workers: int) -> None:
    """Run a recipe once for each list of overrides, ``workers`` at a time, each with a line at its end.

    Raises:
        ResourceError: if one of them failed; the others have been finished.
    """

    def run(each: Sequence[str]) -> bool:
        started = time.monotonic()
        result = subprocess.run(arguments(recipe_name, *each), stdout=subprocess.PIPE, text=True, check=False)
        last = (result.stdout.splitlines() or [""])[-1] if result.returncode else f"{time.monotonic() - started:.0f} s"
        print(f"{command(recipe_name, *each)}: {last}", flush=True)
        return result.returncode == 0

    with ThreadPoolExecutor(workers) as pool:
        succeeded = list(pool.map(run, overrides))
    failed = [command(recipe_name, *each) for each, good in zip(overrides, succeeded, strict=True) if not good]
    if failed:
        raise ResourceError("failed, see above; to try again:\n  " + "\n  ".join(failed))


if __name__ == "__main__":
    main()
