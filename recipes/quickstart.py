"""Pre-train, fine-tune in several ways, compare: python recipes/quickstart.py.

Runs the other recipes as commands, so that what is finished is not done again and what was stopped goes on.
Table and figure are those of the compare recipe.
"""

from __future__ import annotations

from o3f.cli.recipe import answer_first, check_keys, recipe, require_range

if __name__ == "__main__":
    answer_first("quickstart", __file__)  # before the imports below, which take seconds

import itertools
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from omegaconf import DictConfig

from o3f.cli.commands import arguments, command
from o3f.data import is_local
from o3f.errors import ResourceError
from o3f.figures.comparison import check_comparison, compare_runs
from o3f.figures.found import found_runs

SWITCH = ("auto", "true", "false")
#: Processes of runs, the ended ones too.
STARTED: list[subprocess.Popen[bytes]] = []


@recipe("quickstart")
def main(config: DictConfig) -> None:
    """Run what is missing, then show what came out."""
    for key in ("transitions", "workers"):
        require_range(config, key, "[1, inf)", integer=True)
    for seed in config.seeds:
        require_range({"seeds": seed}, "seeds", "[0, inf)", integer=True)
    check_comparison(config.comparison)  # needed at the end: told at the start
    wanted, bf16 = str(config.compile).lower(), str(config.bf16).lower()
    check_keys([wanted], SWITCH, "compile")
    check_keys([bf16], SWITCH, "bf16")
    started = time.monotonic()
    folder = Path(config.runs, config.name)
    common = [
        f"experiment={config.experiment}",
        f"name={config.name}",
        f"runs={config.runs}",
        f"algorithm.compile={wanted}",
        f"precision={'medium' if bf16 == 'true' or (bf16 == 'auto' and has_bf16_tiles()) else 'highest'}",
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

    runs = [folder / f"{config.run}-{arm}" / f"seed{seed}" for arm in config.arms for seed in config.seeds]
    report = compare_runs(found_runs(runs), config.comparison)
    print(f"\n{report}: all of it, with curves. It took {(time.monotonic() - started) / 60:.1f} minutes. Next:")
    print(f"  tensorboard --logdir {folder}")
    print(f"  {commands[0]}  # resumes where it was stopped; now it says that it is done")
    print(f"  {command('evaluate', f'run={runs[0]}', 'episodes=20', 'optimistic=true')}")


def has_bf16_tiles() -> bool:
    """Whether the CPU has AMX, as far as this version of torch says."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16", False))


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
