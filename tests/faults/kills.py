"""Kill ``finetune`` with SIGKILL at random moments, start it again, compare with a run that was left in peace.

The long version: ``python -m tests.faults.kills --kills 200``. Its processes are forked from one that has imported
everything, which makes three times as many kills a minute; ``--exec`` starts each as a user does.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.moments import Moment, arm, random_moment
from tests.support import recipe_runs as runs
from tests.support.recipe_runs import SCRATCH, SHORT, assert_each_step_once, assert_same_run, run

_FROM_CQL = ["algorithm=sac", "algorithm@offline_algorithm=cql", "offline_algorithm.hidden_sizes=[16,16]"]
#: Every algorithm, kind of exploration and mixing rule at least once.
COVERING = {
    "iql": ["dataset.storage=memmap", "algorithm.actor_dropout=0.2", "algorithm.aggregation=subset"],
    "bc": [
        *("algorithm=bc", "exploration=ucb", "online.online_fraction=0.5"),
        *("online.distil_weight=0.1", "online.target_candidates=3"),
    ],
    "iql_ascent": [
        *("exploration=ascent", "exploration.refine_top=2", "exploration.refine_steps=2"),
        *("exploration.refine_rate=0.01", "online.distil_weight=0.1", "online.target_candidates=3"),
    ],
    "awac": ["algorithm=awac", "exploration=noise", "algorithm.actor_hidden_sizes=[8]", "online.updates_per_step=2"],
    "cql": [
        *("algorithm=cql", "algorithm.lagrange=weighted_gap", "algorithm.num_random=3"),
        *("exploration=softmax", "exploration.candidates=mixed", "online.online_fraction=1.0"),
    ],
    "balanced": ["online.replay=balanced", "online.updates_per_step=2"],
    "calql": ["algorithm=cql", "algorithm.calibrate=true", "algorithm.num_random=3", "exploration=policy"],
    "lapo": ["algorithm=lapo", "exploration=thompson", "exploration.candidates=latent", "online.updates_per_step=3"],
    "lapo_original": [
        *("algorithm=lapo_original", "exploration=random_rank", "exploration.per=episode"),
        *("schedule=linear", "+schedule.to.exploration.sigma=0.1", "online.online_fraction=0.5"),
    ],
    "sac": [*SCRATCH, "online.random_steps=70"],
    "sac_from_cql": [*_FROM_CQL, "exploration=matched_noise", "online.warmup_steps=55", "online.online_fraction=1.0"],
}
#: Before the recipe, in its process.
DRIVER = """
import runpy, sys
sys.path.insert(0, {root!r})
import o3f.training.offline
from tests.faults.moments import arm
arm({moment!r}, {number})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
#: Runs ``finetune`` with overrides, and a kill at a moment; returns the exit code (minus a signal) and the output.
Start = Callable[[list[str], Moment | None], tuple[int, str]]


def started(overrides: list[str], moment: Moment | None, number: int = signal.SIGKILL) -> tuple[int, str]:
    """As a user does, in a new process."""
    driver = None if moment is None else DRIVER.format(root=str(runs.ROOT), moment=moment, number=int(number))
    process = runs.start("finetune", *overrides, driver=driver)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def forked(overrides: list[str], moment: Moment | None) -> tuple[int, str]:
    """In a copy of this process, which has imported everything."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        descriptor = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if moment is not None:
            arm(moment, signal.SIGKILL)
        os._exit(runs.command("finetune", *overrides))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, Path("output").read_text(encoding="utf-8")


def campaign(
    undisturbed: Path, overrides: list[str], moments: list[Moment], start: Start = started, last: Start | None = None
) -> int:
    """Kill a run at each of the moments, let it end, compare; returns how many kills met it alive.

    Args:
        undisturbed: the same run, below a folder ``undisturbed`` beside the folder ``runs`` that is made here.
        overrides: the run.
        moments: of the kills.
        start: how a process is started.
        last: how that one is started which is left to end; ``start``, if not given.
    """
    kills = 0
    for moment in moments:
        code, output = start(overrides, moment)
        assert code in (-signal.SIGKILL, 0), output
        kills += code == -signal.SIGKILL
    code, output = (last or start)(overrides, None)
    assert code == 0, output
    for folder in [undisturbed, *Path("undisturbed").glob("pretrained-*/*/*")]:
        again = Path("runs") / folder.relative_to("undisturbed")
        assert_same_run(folder, again)
        assert_each_step_once(again)
    assert not list(Path("runs").rglob("*stage*"))
    return kills


def main() -> int:
    """Run campaigns of four kills over all of :data:`COVERING` in turn; print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exec", action="store_true", help="start each process anew, as a user does")
    arguments = parser.parse_args()
    draw, began = random.Random(arguments.seed), time.monotonic()
    kills = resumed = campaigns = differing = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MINARI_DATASETS_PATH"] = f"{folder}/datasets"
        runs.make_dataset()
        while kills < arguments.kills:
            name = list(COVERING)[campaigns % len(COVERING)]
            overrides, campaigns = [*SHORT, *COVERING[name]], campaigns + 1
            before = time.monotonic()
            undisturbed = run("finetune", *overrides, "runs=undisturbed")
            seconds = time.monotonic() - before
            moments = [random_moment(draw, seconds) for _ in range(min(4, arguments.kills - kills))]
            try:
                met = campaign(undisturbed, overrides, moments, started if arguments.exec else forked)
                kills, resumed = kills + met, resumed + met
            except AssertionError as error:
                kills, differing = kills + len(moments), differing + 1
                print(f"{name} {moments}: {error}")
            print(f"{time.monotonic() - began:5.0f} s  {name}: {kills} kills, {resumed} bit-equal", flush=True)
            for each in ("runs", "undisturbed"):
                shutil.rmtree(each, ignore_errors=True)
        os.chdir("/")
    print(f"{kills} kills, {resumed} of them resumed bit-equal, {campaigns} runs, {differing} of them differ")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
