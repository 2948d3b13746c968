"""A run that is killed, however often and whenever, ends bit for bit as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from o3f import checkpoint, pretraining
from o3f.algorithms import AWACLearner, CQLLearner, IQLLearner, LAPOLearner, SACLearner
from o3f.errors import ConfigError
from o3f.runs import RunFolder
from recipes import finetune
from tests import recipe_runs as runs
from tests.recipe_runs import REACHER, TINY, assert_same_run, part, rows, run

KILLS = int(os.environ.get("O3F_KILLS", "3"))  # more of them for a longer search
LONG = [*TINY, "online.steps=230"]  # checkpoints at the ends of episodes, 50, 100, 150, 200, and at 230
KILLER = """
import importlib, os, runpy, signal, sys

module, name, count = {point!r}
owner, calls = importlib.import_module(module), 0
*path, last = name.split(".")
for each in path:
    owner = getattr(owner, each)
original = getattr(owner, last)

def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

setattr(owner, last, counted)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        runs.make_dataset()
    return folder


@pytest.fixture(autouse=True)
def _quiet_place(datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_num_threads(threads)


def kill_points() -> list[tuple[str, str, int]]:
    """The function during whose n-th call the process kills itself, and n."""
    draw = random.Random(20)
    update = ("o3f.algorithms.iql", "IQLLearner.update")
    during_pretraining = (*update, draw.randint(11, 20))
    online = (*update, draw.randint(55, 99))
    inside_save = ("o3f.checkpoint", "publish", 2)
    anywhere = [
        lambda: (*update, draw.randint(1, 120)),
        lambda: ("o3f.checkpoint", draw.choice(["publish", "write_text", "sha256"]), draw.randint(1, 2)),
        lambda: ("o3f.checkpoint", "Path.unlink", draw.randint(1, 2)),
        lambda: ("o3f.files", "AppendFile.write", draw.randint(1, 9)),
        lambda: ("o3f.reporting", "evaluate", draw.randint(1, 3)),
        lambda: ("o3f.runs", "write_text", draw.randint(1, 2)),
    ]
    return [during_pretraining, online, inside_save, *(draw.choice(anywhere)() for _ in range(KILLS - 3))]


def test_a_killed_run_ends_like_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL to the process that the command starts; then the same command again."""
    undisturbed = run("finetune", *LONG, "runs=undisturbed")
    for point in kill_points():
        killed = runs.start("finetune", *LONG, driver=KILLER.format(point=point))
        output, _ = killed.communicate(timeout=600)
        assert killed.returncode in (-signal.SIGKILL, 0), output
        assert KILLS > 3 or killed.returncode == -signal.SIGKILL, f"{point} was not reached:\n{output}"
    last = runs.start("finetune", *LONG)
    output, _ = last.communicate(timeout=600)
    assert last.returncode == 0, output
    folder = Path("runs") / undisturbed.relative_to("undisturbed")
    assert_same_run(undisturbed, folder)
    runs.assert_each_step_once(folder)
    for pretrained in Path("undisturbed").glob("pretrained-*/*/*"):
        assert_same_run(pretrained, Path("runs") / pretrained.relative_to("undisturbed"))
        runs.assert_each_step_once(Path("runs") / pretrained.relative_to("undisturbed"))
    assert not list(Path().rglob("*stage*"))


class Stopped(Exception):
    """The end of a run in this process."""


def stop_at(patch: pytest.MonkeyPatch, owner: Any, name: str, count: int) -> None:
    """Make the ``count``-th call of a function the end of the run."""
    original, calls = getattr(owner, name), iter(range(1, count))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) is None:
            raise Stopped
        return original(*args, **kwargs)

    patch.setattr(owner, name, counted)


def run_stopped(owner: Any, name: str, count: int, *overrides: str, recipe: str = "finetune") -> None:
    """Run until the ``count``-th call of a function."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, owner, name, count)
        with pytest.raises(Stopped):
            run(recipe, *overrides)


@pytest.fixture(scope="module")
def pretrained(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        folder = run("pretrain", *TINY, f"runs={tmp_path_factory.mktemp('shared')}")
        return f"pretrained={folder}"


@pytest.fixture(scope="module")
def undisturbed(pretrained: str, datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        return run("finetune", *SHORT, pretrained, f"runs={tmp_path_factory.mktemp('undisturbed')}")


SHORT = [*TINY, "online.steps=120"]  # checkpoints at 50, 100 and 120
SCRATCH = ["dataset=none", "algorithm=sac", "exploration=policy"]
FROM_CQL = ["algorithm=sac", "algorithm@offline_algorithm=cql", "offline_algorithm.hidden_sizes=[16,16]"]
VARIANTS = [
    ["online.online_fraction=0.5", "dataset.storage=memmap"],
    ["exploration=random_rank", "exploration.per=episode"],
    ["online.updates_per_step=2", "algorithm.actor_dropout=0.2", "algorithm.aggregation=subset"],
    [*SCRATCH, "online.random_steps=70"],
    ["algorithm=lapo", "online.updates_per_step=3", "exploration.candidates=latent"],
    ["algorithm=lapo_original", "exploration=thompson", "+schedule.to.exploration.sigma=0.1", "schedule=linear"],
    ["algorithm=cql", "algorithm.lagrange=weighted_gap", "algorithm.num_random=3", "exploration=thompson"],
    ["algorithm=awac", "exploration=softmax", "exploration.candidates=mixed", "algorithm.actor_hidden_sizes=[8]"],
    [*FROM_CQL, "online.warmup_steps=55", "online.online_fraction=1.0", "exploration=ucb"],
    ["algorithm=bc", "online.distil_weight=0.1", "online.target_candidates=3"],
]
LEARNERS = {
    "lapo": LAPOLearner,
    "lapo_original": LAPOLearner,
    "cql": CQLLearner,
    "awac": AWACLearner,
    "sac": SACLearner,
}


@pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)
def test_every_kind_of_run_goes_on_exactly(variant: list[str]) -> None:
    overrides = [*SHORT, *variant]
    chosen = [override.removeprefix("algorithm=") for override in variant if override.startswith("algorithm=")]
    learner = LEARNERS.get(*chosen, IQLLearner) if chosen else IQLLearner
    undisturbed = run("finetune", *overrides, "runs=undisturbed")
    # After the checkpoint of step 50 (some: among the steps without updates), and again after that of step 100.
    run_stopped(finetune, "with_rule", 63, *overrides)
    run_stopped(learner, "update", 45 if "online.random_steps=70" in variant else 58, *overrides)
    folder = run("finetune", *overrides)
    assert_same_run(undisturbed, folder)
    runs.assert_each_step_once(folder)


def test_pretraining_goes_on_exactly() -> None:
    undisturbed = run("pretrain", *TINY, "runs=undisturbed")
    run_stopped(IQLLearner, "update", 17, *TINY, recipe="pretrain")
    folder = run("pretrain", *TINY)
    assert_same_run(undisturbed, folder)
    assert [step for step, *_ in rows(folder, "train/loss/value")] == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [
        (IQLLearner, "update", 30),  # before the first checkpoint
        (RunFolder, "finish", 1),  # after the last one
        (checkpoint, "publish", 1),
        (checkpoint, "_prune", 3),
    ],
)
def test_the_edges_of_a_run(owner: Any, name: str, count: int, pretrained: str, undisturbed: Path) -> None:
    run_stopped(owner, name, count, *SHORT, pretrained)
    folder = run("finetune", *SHORT, pretrained)
    assert_same_run(undisturbed, folder)
    runs.assert_each_step_once(folder)


def test_a_damaged_checkpoint_costs_no_more_than_time(pretrained: str, undisturbed: Path) -> None:
    run_stopped(IQLLearner, "update", 110, *SHORT, pretrained)
    (newest,) = Path("runs").rglob("step_000000000100.ckpt")
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="damaged"):
        folder = run("finetune", *SHORT, pretrained)
    assert_same_run(undisturbed, folder)


def test_a_begun_run_needs_its_pretraining_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run_stopped(IQLLearner, "update", 80, *TINY)
    shutil.rmtree(*Path("runs").glob("pretrained-*"))
    monkeypatch.setattr(pretraining, "pretrain", None)
    folder = run("finetune", *TINY)
    assert part(folder, "learner")["updates"] == 80


def test_other_data_under_the_same_name_are_refused(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: str
) -> None:
    shutil.copytree(datasets, tmp_path / "copy")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "copy"))
    run_stopped(IQLLearner, "update", 55, *TINY, pretrained)
    run("collect", *REACHER, "steps=300", "seed=7", "overwrite=true")
    with pytest.raises(ConfigError, match="dataset_hash: "):
        run("finetune", *TINY, pretrained)
