"""Every experiment file composes and runs, at toy size, and does what its name says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from o3f.runs.identity import run_path
from tests.support.recipe_runs import REACHER, ROOT, make_dataset, part, rows, run, settings

pytestmark = pytest.mark.filterwarnings(
    "ignore:Dataset 'me/reacher-v0' was made in Reacher-v5 with other settings:UserWarning"
)

EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf/experiment").glob("*.yaml"))
SCRATCH = {"behaviour"}
TOY = [
    *(*REACHER, "debug=toy", "task.discount=0.8"),
    *("task.env.max_episode_steps=25", "online.steps=30", "online.evaluate_every=15"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset; pre-trained agents are shared between experiments."""
    folder = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "data"))
        make_dataset()
    return folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(place / "data"))
    monkeypatch.chdir(place)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_runs(name: str) -> None:
    data = ["dataset=none"] if name in SCRATCH else []
    folder = run("finetune", f"experiment={name}", *TOY, *data)
    assert json.loads((folder / "done.json").read_text())["step"] == 30
    assert part(folder, "learner")["updates"] > 0
    values = [value for _, tag, value in rows(folder) if tag.startswith("train/")]
    assert values
    assert all(abs(value) < 1e6 for value in values)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_composes_as_written(name: str) -> None:
    """At its real size, every interpolation resolved, into a run folder of its own."""
    config = settings("finetune", f"experiment={name}")
    assert run_path(config).parts[1].startswith(name.split("_")[0])
    assert config.online.updates_per_step >= 1


@pytest.mark.parametrize(
    ("name", "coefficient", "offline", "online"),
    [
        ("fig3_iql", "expectile", 0.7, 0.85),
        ("fig3_awac", "lam", 1.0, 0.1),
        ("fig3_cql_weight", "conservative_weight", 5.0, 0.5),
        ("fig3_cql_threshold", "lagrange_threshold", 5.0, 0.5),
    ],
)
@pytest.mark.parametrize("kind", ["abrupt", "linear"])
def test_the_third_figure_changes_its_coefficient(
    name: str, coefficient: str, offline: float, online: float, kind: str
) -> None:
    """The pre-trained agent has the first value, the fine-tuned one half way and at the end what the kind says."""
    half = run("finetune", f"experiment={name}", *TOY, f"schedule={kind}", "schedule.steps=60")
    pretrained = sorted(
        Path("runs").glob(f"pretrained-*/*-{settings('finetune', f'experiment={name}').algorithm.name}-*")
    )
    begun = [part(folder / "seed0", "learner")["loss"].get(coefficient) for folder in pretrained]
    assert any(value is not None and value.item() == pytest.approx(offline) for value in begun)
    expected = online if kind == "abrupt" else (offline + online) / 2
    assert part(half, "learner")["loss"][coefficient].item() == pytest.approx(expected)


def sac_from_cql(targets: bool) -> tuple[dict, dict]:
    """SAC after one step that changes next to nothing, and the CQL agent it began with."""
    still = ["online.warmup_steps=29", "algorithm.learning_rate=1e-12", "algorithm.tau=1e-12", "runs=still"]
    folder = run("finetune", "experiment=fig2_sac_from_cql", *TOY, *still, f"transfer.targets={targets}")
    (begun,) = Path("still").glob("pretrained-*/*-cql-offline/seed0")
    return part(folder, "learner")["loss"], part(begun, "learner")["loss"]


def test_sac_starts_from_cql_with_or_without_its_targets() -> None:
    copied, cql = sac_from_cql(targets=True)
    fresh, _ = sac_from_cql(targets=False)
    groups = {
        prefix: [name for name in copied if name.startswith(prefix)]
        for prefix in ("actor_network_params.", "qvalue_network_params.", "target_qvalue_network_params.")
    }
    assert all(groups.values())
    close = {"rtol": 0, "atol": 1e-6}
    for names in groups.values():
        for name in names:
            torch.testing.assert_close(copied[name], cql[name], **close)
    for name in groups["actor_network_params."] + groups["qvalue_network_params."]:
        torch.testing.assert_close(fresh[name], cql[name], **close)
    weights = [name for name in groups["target_qvalue_network_params."] if "weights" in name]
    assert all((fresh[name] - cql[name]).abs().max() > 1e-5 for name in weights)


def test_the_bias_of_the_critics_is_logged() -> None:
    folder = run("finetune", "experiment=fig2_sac_from_cql", *TOY)
    tags = {tag for _, tag, _ in rows(folder) if tag.startswith("bias/")}
    names = {"difference", "relative", "ratio"}
    assert tags == {f"bias/{name}" for name in names} | {f"bias/soft_{name}" for name in names}
    steps = [step for step, tag, _ in rows(folder) if tag == "bias/ratio"]
    assert steps == [0, 15, 30]


def test_a_warm_up_collects_and_leaves_the_agent_alone() -> None:
    folder = run("finetune", "experiment=wsrl_like", *TOY, "online.warmup_steps=29", "name=warm")
    assert part(folder, "learner")["updates"] == 4  # those of the one step behind the warm-up
    assert len(part(folder, "buffer")["rows"]["action"]) == 30
