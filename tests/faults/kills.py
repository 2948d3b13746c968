"""Kill ``finetune`` with SIGKILL at random moments, start it again, compare with a run that was left in peace.

The long version: ``python -m tests.faults.kills --kills 200``, about five seconds a kill.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from tests import recipe_runs as runs
from tests.recipe_runs import SCRATCH, SHORT, assert_each_step_once, assert_same_run, run

_FROM_CQL = ["algorithm=sac", "algorithm@offline_algorithm=cql", "offline_algorithm.hidden_sizes=[16,16]"]
#: Every algorithm, kind of exploration and mixing rule at least once.
COVERING = {
    "iql": ["dataset.storage=memmap", "algorithm.actor_dropout=0.2", "algorithm.aggregation=subset"],
    "bc": [
        *("algorithm=bc", "exploration=ucb", "online.online_fraction=0.5"),
        *("online.distil_weight=0.1", "online.target_candidates=3"),
    ],
    "awac": ["algorithm=awac", "exploration=noise", "algorithm.actor_hidden_sizes=[8]", "online.updates_per_step=2"],
    "cql": [
        *("algorithm=cql", "algorithm.lagrange=weighted_gap", "algorithm.num_random=3"),
        *("exploration=softmax", "exploration.candidates=mixed", "online.online_fraction=1.0"),
    ],
    "lapo": ["algorithm=lapo", "exploration=thompson", "exploration.candidates=latent", "online.updates_per_step=3"],
    "lapo_original": [
        *("algorithm=lapo_original", "exploration=random_rank", "exploration.per=episode"),
        *("schedule=linear", "+schedule.to.exploration.sigma=0.1", "online.online_fraction=0.5"),
    ],
    "sac": [*SCRATCH, "online.random_steps=70"],
    "sac_from_cql": [*_FROM_CQL, "exploration=matched_noise", "online.warmup_steps=55", "online.online_fraction=1.0"],
}
#: The n-th call of a function (one of a step, of a save, of a log ...), or so many seconds after the imports.
Moment = tuple[str, str, int] | float

DRIVER = """
import importlib, os, runpy, signal, sys, threading
import o3f.pretraining

moment, number = {moment!r}, {number}
end = lambda: os.kill(os.getpid(), number)
if isinstance(moment, float):
    threading.Timer(moment, end).start()
else:
    module, name, count = moment
    owner, calls = importlib.import_module(module), 0
    *path, last = name.split(".")
    for each in path:
        owner = getattr(owner, each)
    original = getattr(owner, last)

    def counted(*args, **kwargs):
        global calls
        calls += 1
        if calls == count:
            end()
        return original(*args, **kwargs)

    setattr(owner, last, counted)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def random_moment(draw: random.Random, seconds: float) -> Moment:
    """A moment of a run that takes so many seconds, half of them within a save."""
    moments: list[Moment] = [
        draw.uniform(0.0, seconds),
        ("o3f.signals", "StopSignals.check", draw.randint(1, 130)),
        ("o3f.checkpoint", draw.choice(["publish", "write_text", "_prune", "_coordinator"]), draw.randint(1, 4)),
        ("os", draw.choice(["fsync", "replace"]), draw.randint(1, 30)),
        ("o3f.files", "AppendFile.write", draw.randint(1, 20)),
        ("o3f.reporting", "evaluate", draw.randint(1, 4)),
    ]
    return draw.choice([*moments[:3], *moments])


def campaign(undisturbed: Path, overrides: list[str], moments: list[Moment]) -> int:
    """Kill a run at each of the moments, let it end, compare; returns how many kills met it alive.

    Args:
        undisturbed: the same run, below a folder ``undisturbed`` beside the folder ``runs`` that is made here.
        overrides: the run.
        moments: of the kills.
    """
    kills = 0
    for moment in moments:
        killed = runs.start("finetune", *overrides, driver=DRIVER.format(moment=moment, number=int(signal.SIGKILL)))
        output, _ = killed.communicate(timeout=600)
        assert killed.returncode in (-signal.SIGKILL, 0), output
        kills += killed.returncode == -signal.SIGKILL
    last = runs.start("finetune", *overrides)
    output, _ = last.communicate(timeout=600)
    assert last.returncode == 0, output
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
    arguments = parser.parse_args()
    draw, started = random.Random(arguments.seed), time.monotonic()
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
            seconds = 1.2 * (time.monotonic() - before)
            moments = [random_moment(draw, max(seconds, 2.0)) for _ in range(min(4, arguments.kills - kills))]
            try:
                met = campaign(undisturbed, overrides, moments)
                kills, resumed = kills + met, resumed + met
            except AssertionError as error:
                kills, differing = kills + len(moments), differing + 1
                print(f"{name} {moments}: {error}")
            print(f"{time.monotonic() - started:5.0f} s  {name}: {kills} kills, {resumed} bit-equal", flush=True)
            for each in ("runs", "undisturbed"):
                shutil.rmtree(each, ignore_errors=True)
        os.chdir("/")
    print(f"{kills} kills, {resumed} of them resumed bit-equal, {campaigns} runs, {differing} of them differ")
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
