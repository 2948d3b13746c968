"""Mistakes in a configuration: named before any work; a sweep outlives them; missing packages are named."""

from __future__ import annotations

import copy
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from torchrl.data import Bounded

from o3f.algorithms import make_learner
from o3f.envs import EnvConfig, make_raw_env
from o3f.errors import ConfigError
from o3f.evaluation.intervals import t_interval
from o3f.figures.comparison import check_comparison
from o3f.runs.folder import RunFolder
from o3f.runs.identity import leaves, plain
from o3f.training import build
from o3f.training.checks import check_online
from o3f.training.exploration import KINDS, make_actor
from recipes import evaluate, finetune, quickstart
from tests.support.recipe_runs import ROOT, SCRATCH, TINY, command, run, settings

ALGORITHMS = sorted(path.stem for path in (ROOT / "conf/algorithm").glob("*.yaml"))
OF_ANY_SIGN = {
    *("task.reward.scale", "task.reward.shift", "task.score.min", "task.score.max"),
    *("exploration.omega", "algorithm.lagrange_threshold", "algorithm.target_entropy"),
}
#: Null in most files, and a number where they are given.
OPTIONAL = {
    *("task.env.max_episode_steps", "task.env.goal_radius", "task.dataset.max_transitions"),
    *("task.score.min", "task.score.max", "dataset.max_transitions", "online.online_fraction"),
    "guard.max_q_ratio",
    *("algorithm.subset_size", "algorithm.latent_dim", "algorithm.actor_decay_steps", "algorithm.target_entropy"),
}


def check(config: DictConfig) -> None:
    """Everything that is checked before the data are loaded, but the environment."""
    check_online(config)
    learner = make_learner(config.algorithm.name, 3, 2, build.hyper_parameters(config))
    actor = make_actor(learner.policy, learner.critic, config.exploration, Bounded(-1.0, 1.0, (2,)))
    build.schedule(config, learner, actor)


def numbers(config: DictConfig, group: str | None = None) -> Iterator[str]:
    """The keys of a configuration that are numbers, of one group or of none of the groups with kinds."""
    for key, value in leaves(plain(config)).items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        top = key.split(".")[0]
        wanted = top == group if group else top not in ("algorithm", "exploration", "threads")
        if wanted and not key.startswith("schedule.to") and (is_number or key in OPTIONAL):
            yield key


def wrong_values(key: str) -> Iterator[Any]:
    yield from ("wide", True, math.nan, math.inf, -math.inf, [[1]])
    if key not in OF_ANY_SIGN:
        yield -1
    if key not in OPTIONAL and key != "offline_algorithm":
        yield None


def assert_refused(config: DictConfig, key: str) -> int:
    """Every wrong value of a key is refused with its name; returns how many."""
    last, values = key.split(".")[-1], list(wrong_values(key))
    for value in values:
        wrong = copy.deepcopy(config)
        OmegaConf.update(wrong, key, value, force_add=True)
        with pytest.raises(ConfigError) as refused:
            check(wrong)
        assert last in str(refused.value), (key, value)
    return len(values)


def test_f45_every_number_of_a_run_has_its_range() -> None:
    config = settings("finetune", *TINY, "schedule=linear", "+schedule.to.algorithm.expectile=0.8")
    OmegaConf.resolve(config)
    check(config)
    tried = {key: assert_refused(config, key) for key in numbers(config)}
    assert len(tried) >= 35
    assert {"seed", "threads", "online.steps", "online.updates_per_step", "evaluation.episodes"} - set(tried) == {
        "threads"
    }
    assert sum(tried.values()) > 250


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_f45_every_number_of_an_algorithm_has_its_range(algorithm: str) -> None:
    scratch = ["dataset=none"] if algorithm == "sac" else []
    config = settings("finetune", *TINY, *scratch, f"algorithm={algorithm}")
    OmegaConf.resolve(config)
    check(config)
    assert sum(assert_refused(config, key) for key in numbers(config, "algorithm")) > 50


@pytest.mark.parametrize("kind", KINDS)
def test_f45_every_number_of_an_exploration_has_its_range(kind: str) -> None:
    config = settings("finetune", *TINY, f"exploration={kind}")
    OmegaConf.resolve(config)
    check(config)
    for key in numbers(config, "exploration"):
        assert_refused(config, key)


@pytest.mark.parametrize("key", ["algorithm.hidden_sizes", "algorithm.actor_hidden_sizes"])
@pytest.mark.parametrize("value", [[0], [-1], [1.5], ["wide"], "wide", 16, [[16]], None])
def test_f45_sizes_are_whole_numbers(key: str, value: Any) -> None:
    config = settings("finetune", *TINY, "algorithm=awac")
    OmegaConf.resolve(config)
    OmegaConf.update(config, key, value)
    with pytest.raises(ConfigError, match=key):
        check_online(config)


@pytest.mark.parametrize(
    ("recipe", "main", "key"),
    [
        *(("evaluate", evaluate.main, key) for key in ("episodes", "seed", "threads")),
        *(("quickstart", quickstart.main, key) for key in ("transitions", "workers", "comparison.confidence")),
    ],
)
def test_f45_numbers_of_the_other_recipes(recipe: str, main: Callable[[DictConfig], None], key: str) -> None:
    overrides = ["run=nowhere"] if recipe == "evaluate" else []
    for value in ("wide", True, math.nan, math.inf, -1, 0.0):
        config = settings(recipe, *overrides)
        OmegaConf.update(config, key, value)
        with pytest.raises(ConfigError, match=f"{key.removeprefix('comparison.')} must be"):
            main(config)


@pytest.mark.parametrize("key", ["steps", "seed", "task.env.frame_skip", "task.behaviour.noise"])
def test_f45_numbers_of_collect(key: str, place: Path) -> None:
    for value in ("wide", "true", ".nan", "-1", "1.5.1"):
        with pytest.raises(ConfigError, match=f"{key} must be"):
            run("collect", *TINY[:3], f"{key}={value}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("offline.steps=0", "offline.steps must be a whole number in [1, inf), found 0"),
        ("offline.batch_size=-1", "offline.batch_size must be"),
        ("offline.log_every=0", "offline.log_every must be"),
        ("online.steps=1.5", "online.steps must be a whole number in [1, inf), found 1.5"),
        ("online.updates_per_step=0", "online.updates_per_step must be"),
        ("online.checkpoint_every=null", "online.checkpoint_every must be"),
        ("online.evaluate_every=0", "online.evaluate_every must be"),
        ("online.online_fraction=1.1", "online.online_fraction must be a number in [0, 1], found 1.1"),
        ("online.random_steps=-1", "online.random_steps must be"),
        ("online.random_steps=60", "must be less than online.steps (60)"),
        ("evaluation.episodes=0", "evaluation.episodes must be"),
        ("evaluation.seed=-1", "evaluation.seed must be"),
        ("dataset.storage=disk", "dataset.storage: 'disk' is not known"),
        ("dataset.max_transitions=0", "dataset.max_transitions must be"),
        ("algorithm.actor_decay_steps=10", "algorithm.actor_decay_steps=null"),
        ("exploration.sigma=-0.1", "exploration.sigma must be a number in [0, inf), found -0.1"),
        ("exploration.sigma=[0.1]", "exploration.sigma: found 1 numbers for 2 action dimensions"),
        ("exploration.sigma=wide", "exploration.sigma must be"),
        ("exploration.num_candidates=0", "exploration.num_candidates must be"),
        ("exploration.centre=middle", "exploration=optimistic: centre must be one of"),
        ("exploration.candidates=latent", "needs a policy that decodes latents: algorithm=lapo"),
        ("exploration.candidates=cloud", "exploration.candidates: 'cloud' is not known"),
        ("exploration.omega=big", "exploration.omega must be a number"),
        ("+schedule.to.algorithm.expectle=0.8", "schedule.to: 'algorithm.expectle' is not known"),
        ("schedule.kind=slow", "schedule.kind: 'slow' is not known"),
        ("algorithm@offline_algorithm=cql", "offline_algorithm is for algorithm=sac alone"),
        ("transfer.targets=maybe", "transfer.targets must be true or false, found 'maybe'"),
        ("online.warmup_steps=60", "online.warmup_steps (60) must be less than online.steps (60)"),
        ("exploration.clip_margin=1", "exploration=optimistic: No action lies between"),
        ("exploration.kind=optimist", "exploration.kind: 'optimist' is not known. Did you mean optimistic"),
        ("algorithm.expectile=1", "expectile must be a number in (0, 1), found 1"),
        ("task.name=my/task", "task.name='my/task' cannot be part of a folder name"),
        ("algorithm.name=iqn", "algorithm: 'iqn' is not known. There are: awac, bc"),
    ],
)
def test_f45_values_that_cannot_be_meant_end_before_any_work(override: str, message: str, place: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        run("finetune", *TINY, override)
    assert message in str(refused.value)
    left = [path for path in Path().rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert [path.name for path in left] in ([], ["config.yaml"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*SCRATCH, "offline.batch_size=61"], "offline.batch_size (61) exceeds the buffer: there will never be more"),
        (["online.online_fraction=1.0", "offline.batch_size=61"], "exceeds the buffer"),
        ([*SCRATCH, "online.online_fraction=0.5"], "mixes with a dataset's rows, but dataset=none"),
        (["algorithm.aggregation=subset", "algorithm.subset_size=6"], "subset_size (6) must not exceed"),
        (["algorithm=lapo", "algorithm.subset_size=6"], "subset_size (6) must not exceed algorithm.num_critics (5)"),
        (["algorithm=lapo", "algorithm.value_clamp=fixed", "algorithm.value_bounds=[1,0]"], "value_bounds"),
        (["exploration.num_candidates=2000000"], "exploration.num_candidates must be a whole number in [1, 1000000]"),
        (["task.score={min: 10, max: 10}"], "task.score.min (10) must be less than task.score.max (10)"),
        (["task.score={min: 10, max: null}"], "task.score needs both min and max or neither"),
        (["algorithm=lapo", "exploration.centre=sample_per_candidate"], "this one is deterministic"),
        (["algorithm=lapo", "exploration.candidates=mixed"], "needs a policy that can be sampled"),
        (["algorithm=lapo", "exploration.candidates=latent", "exploration.sigma=[0.1,0.1]"], "needs one, or 4"),
        (
            ["exploration=thompson", "online.distil_weight=0.5"],
            "they need exploration=optimistic, ucb or ascent, found thompson",
        ),
        (
            ["exploration=noise", "online.target_candidates=3"],
            "they need exploration=optimistic, ucb or ascent, found noise",
        ),
        (
            ["exploration=matched_noise", "schedule=linear", "+schedule.to.exploration.sigma=0.1"],
            "'exploration.sigma' is not known",
        ),
        (["exploration=matched_noise", "exploration.sigma=[0.1,0.2]"], "must be one number, found [0.1, 0.2]"),
        (
            ["algorithm=bc", "schedule=linear", "+schedule.to.algorithm.temperature=3.0"],
            "'algorithm.temperature' is not known",
        ),
        (["algorithm=lapo", "dataset=none"], "give algorithm.normalise=false"),
        (
            ["algorithm=lapo_original", "dataset=none", "algorithm.normalise=false"],
            "value_clamp=fixed takes the dataset's range of values",
        ),
        (
            ["dataset=none", "pretrained=none", "task.reward.scale=return_range"],
            "give it as a number, the one that the agent",
        ),
        (
            ["algorithm=cql", "schedule=linear", "+schedule.to.algorithm.lagrange_threshold=0.5"],
            "'algorithm.lagrange_threshold' is not known",
        ),
    ],
)
def test_f46_combinations_that_cannot_be_meant_end_before_pretraining(
    overrides: list[str], message: str, place: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        run("finetune", *TINY, *overrides)
    assert not list(Path("runs").glob("pretrained-*"))


def test_f52_a_sweep_outlives_a_failing_run_and_a_rerun_does_what_is_missing(
    pretrained: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = [*TINY, pretrained, "exploration=noise", "exploration.sigma=0.1,0.2,0.3", "name=sigma${exploration.sigma}"]
    second = settings("finetune", *TINY, pretrained, "exploration=noise", "exploration.sigma=0.2", "name=sigma0.2")
    begun: list[str] = []
    original = finetune.finetune

    def counted(config: DictConfig, folder: RunFolder) -> Any:
        begun.append(config.name)
        return original(config, folder)

    monkeypatch.setattr(finetune, "finetune", counted)
    with RunFolder.open(plain(second)):  # in use: the second run fails
        assert command("finetune", *sweep, "-m") == 1
    told = capsys.readouterr().err
    assert begun == ["sigma0.1", "sigma0.3"]
    assert "1 of 3 runs of the sweep failed" in told
    (line,) = [line for line in told.splitlines() if "exit code" in line]
    assert "exploration.sigma=0.2" in line
    assert "exit code 4: " in line
    assert "is in use by process" in line
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("sigma0.[13]/*/*/metrics.csv")}
    begun.clear()
    assert command("finetune", *sweep, "-m") == 0
    assert begun == ["sigma0.2"]
    assert len(list(Path("runs").rglob("done.json"))) == 3
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_f52_every_failure_is_told_at_once_and_again_at_the_end(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["algorithm.expectile=1,0.5,7", "online.steps=20", "exploration=policy"]
    assert command("finetune", *TINY, *SCRATCH[:1], *wrong, "name=e${algorithm.expectile}", "-m") == 1
    told = capsys.readouterr().err.splitlines()
    assert [line[:7] for line in told] == ["error: "] * 2 + ["2 of 3 "] + ["  job 0", "    run", "  job 2", "    run"]
    assert all("exit code 2: " in line and "(0, 1)" in line for line in told[3::2])


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make a package look as if it were not installed."""

    def block(package: str) -> None:
        users = (package, "gymnasium.envs.mujoco") if package == "mujoco" else (package,)
        for name in [name for name in sys.modules if name.startswith(users)]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return block


@pytest.mark.parametrize(
    ("package", "extra", "work"),
    [
        ("matplotlib", "plots", lambda folder: check_comparison(settings("compare"))),
        ("scipy", "plots", lambda folder: t_interval([1.0, 2.0])),
        ("mujoco", "robotics", lambda folder: make_raw_env(EnvConfig("Reacher-v5"))),
        ("gymnasium_robotics", "robotics", lambda folder: make_raw_env(EnvConfig("AntMaze_UMaze-v5"))),
    ],
)
def test_f53_a_missing_package_is_named_with_the_command(
    package: str, extra: str, work: Callable[[Path], object], without: Callable[[str], None], tmp_path: Path
) -> None:
    without(package)
    with pytest.raises((ImportError, ValueError), match=re.escape(f'pip install "o3f[{extra}]"')):
        work(tmp_path)


def test_f53_quickstart_says_so_before_it_works(without: Callable[[str], None], place: Path) -> None:
    without("matplotlib")
    with pytest.raises(ImportError, match=r'matplotlib cannot be imported .*pip install "o3f\[plots\]"'):
        quickstart.main(settings("quickstart"))
    assert list(place.iterdir()) == []
