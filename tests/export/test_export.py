"""An exported policy acts as the run does, and needs no part of this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f import export
from o3f.algorithms import Learner, make_learner
from o3f.data import observation_layout
from o3f.envs import EnvConfig
from o3f.errors import ConfigError, ExportError
from o3f.modules import OptimisticActor
from o3f.runs.checkpoint import FOLDERS, load_metadata
from o3f.runs.files import sha256
from o3f.training.exploration import make_actor
from o3f.training.load import load_run
from recipes import export as recipe
from tests.support.learners import NAMES
from tests.support.pages import blocks
from tests.support.recipe_runs import SHORT, run, settings

O, A = 5, 2  # noqa: E741
LOW, HIGH = np.array([-3.0, 0.0], np.float32), np.array([1.0, 10.0], np.float32)
CENTRE, HALF = torch.tensor([-1.0, 5.0]), torch.tensor([2.0, 5.0])


def interface() -> export.Interface:
    layout = observation_layout(gymnasium.spaces.Box(-1.0, 1.0, (O,)))
    return export.Interface(layout, LOW, HIGH, CENTRE.numpy(), HALF.numpy())


def learner(name: str, **options: Any) -> Learner:
    torch.manual_seed(3)
    made = make_learner(name, O, A, {"hidden_sizes": [8, 8], **options})
    rows = TensorDict({"observation": 2 + 3 * torch.randn(50, O), "action": torch.rand(50, A) - 0.5}, [50])
    made.prepare(rows.set("next", TensorDict({"reward": torch.rand(50, 1)}, [50])))  # LAPO's z-scores
    return made


def deterministic(policy: Any, observation: Tensor) -> Tensor:
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        return policy.eval()(TensorDict({"observation": observation}, [len(observation)]))["action"]


def reloaded(program: export.PolicyProgram, folder: Path) -> Any:
    export.save_program(program, folder / "program.pt2")
    return torch.export.load(folder / "program.pt2").module()


@pytest.mark.parametrize("name", NAMES)
def test_the_program_is_the_policy_in_the_environments_units(name: str, tmp_path: Path) -> None:
    trained = learner(name, **({"actor_dropout": 0.5} if name == "iql" else {}))
    program = reloaded(export.PolicyProgram(export.plain_policy(trained.policy), interface()), tmp_path)
    if name == "iql":  # its dropout takes no number
        assert {key for key in program.state_dict() if key.endswith(".weight")} == {
            f"policy.layers.{index}.weight" for index in (0, 2, 4)
        }
    observation = 2 + 3 * torch.randn(7, O)
    expected = CENTRE + HALF * deterministic(trained.policy, observation)
    assert expected.std(0).min() > 0.01
    for batch in (slice(0, 7), slice(0, 1)):
        torch.testing.assert_close(program(observation[batch]), expected[batch], rtol=0, atol=1e-5)


EXPLORATIONS = {
    "paper": {"algorithm": "iql"},
    "ucb": {"algorithm": "cql", "omega": 1.0, "centre": "mean", "include_base": True, "clip_margin": 0.1},
    "latent": {"algorithm": "lapo", "candidates": "latent", "include_base": True},
    "limits": {"algorithm": "sac", "max_displacement": 0.1, "max_change": [0.05, 0.02], "sigma": 0.5},
}


def optimistic(kind: str) -> tuple[OptimisticActor, export.OptimisticProgram]:
    changes = dict(EXPLORATIONS[kind])
    trained = learner(changes.pop("algorithm"))
    config = settings("finetune", "exploration.num_candidates=20", "exploration.sigma=0.2", "task.centre=sample")
    OmegaConf.resolve(config)
    options = {**OmegaConf.to_container(config.exploration), **changes}
    actor = make_actor(trained.policy, trained.critic, options, trained.policy.spec["action"])
    assert isinstance(actor, OptimisticActor)
    return actor, export.OptimisticProgram(export.plain_policy(trained.policy), interface(), actor)


@pytest.mark.parametrize("kind", EXPLORATIONS)
def test_the_optimistic_program_executes_what_the_actor_does(kind: str, tmp_path: Path) -> None:
    actor, program = optimistic(kind)
    loaded = reloaded(program, tmp_path)
    observation = torch.randn(64, O)
    figures = export.check_parity("optimistic.pt2", loaded, program, actor, observation)
    assert figures["max_abs_difference"] < 1e-5
    assert figures["ties"] <= 1
    inputs = {name: torch.randn_like(value) for name, value in program.inputs(64).items()} | {
        "observation": observation
    }
    if "previous" in inputs:
        inputs["previous"] = (CENTRE + HALF * (1.8 * torch.rand(64, A) - 0.9)).clone()
        inputs["previous"][:32] = torch.nan
    observation = inputs.pop("observation")
    action = (loaded(observation, **inputs) - CENTRE) / HALF
    plain = (loaded(observation, **{**inputs, "noise": torch.zeros_like(inputs["noise"])}) - CENTRE) / HALF
    assert (action != plain).any(-1).float().mean() > 0.5  # the noise matters
    if kind == "ucb":
        assert action.abs().max() <= 0.9 + 1e-6
    if kind == "limits":
        before = (inputs["previous"] - CENTRE) / HALF
        change = (action - before)[32:].abs().amax(0)
        torch.testing.assert_close(change, torch.tensor([0.05, 0.02]), rtol=0, atol=1e-5)
        assert (action[:32] - plain[:32]).abs().max() <= 0.1 + 1e-6


def test_parity_fails_where_an_action_or_a_choice_differs(tmp_path: Path) -> None:
    actor, program = optimistic("paper")
    observation = torch.randn(32, O)
    wrong = {
        "shifted": lambda *a, **k: program(*a, **k) + 1e-3,
        "another candidate": lambda s, noise, policy_noise: program(
            s, noise=noise.roll(1, 0), policy_noise=policy_noise
        ),
        "nan": lambda *a, **k: program(*a, **k) * torch.nan,
    }
    for function in wrong.values():
        with pytest.raises(ExportError, match=r"optimistic\.pt2 does not act as the run does"):
            export.check_parity("optimistic.pt2", function, program, actor, observation)
    plain = export.PolicyProgram(program.policy, interface())
    export.check_parity("policy.pt2", plain, plain, actor.policy, observation)
    with pytest.raises(ExportError, match=r"policy\.pt2"):
        export.check_parity("policy.pt2", lambda s: plain(s + 0.01), plain, actor.policy, observation)


def test_the_policys_program_keeps_the_limit_on_change(tmp_path: Path) -> None:
    trained = learner("iql")
    limit = torch.tensor([0.1, 0.2])
    program = export.PolicyProgram(export.plain_policy(trained.policy), interface(), limit)
    loaded, observation = reloaded(program, tmp_path), torch.randn(9, O)
    free = deterministic(trained.policy, observation)
    export.check_parity("policy.pt2", loaded, program, trained.policy, observation)
    first = loaded(observation, previous=torch.full((9, A), torch.nan))
    torch.testing.assert_close(first, CENTRE + HALF * free, rtol=0, atol=1e-5)
    previous = CENTRE.expand(9, A).clone()  # 0 in the agent's units
    expected = CENTRE + HALF * torch.maximum(torch.minimum(free, limit), -limit)
    torch.testing.assert_close(loaded(observation, previous=previous), expected, rtol=0, atol=1e-5)


def test_a_policy_of_another_kind_is_exported_as_it_is(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(O, 8), nn.ELU(), nn.Linear(8, A), nn.Softsign())
    policy = TensorDictModule(network, in_keys=["observation"], out_keys=["action"])
    program = reloaded(export.PolicyProgram(export.plain_policy(policy), interface()), tmp_path)
    observation = torch.randn(6, O)
    torch.testing.assert_close(program(observation), CENTRE + HALF * network(observation), rtol=0, atol=1e-5)
    actor = OptimisticActor(policy, learner("iql").critic, spec=Bounded(-1.0, 1.0, (A,)))
    with pytest.raises(ConfigError, match="how this policy samples is not known"):
        export.OptimisticProgram(export.plain_policy(policy), interface(), actor)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"candidates": "mixed"}, "MixedCandidates"),
        ({"centre": "sample_per_candidate"}, "sample_per_candidate"),
        ({"kind": "softmax", "temperature": 1.0}, "Softmax"),
        ({"kind": "thompson", "per": "step"}, "Thompson"),
        ({"kind": "ascent", "refine_top": 3, "refine_steps": 2, "refine_rate": 0.1}, "candidates climb"),
    ],
)
def test_other_choices_are_refused(change: dict[str, Any], found: str) -> None:
    trained = learner("iql")
    options = {**OmegaConf.to_container(settings("finetune").exploration), "sigma": 0.2, "centre": "sample", **change}
    if options["kind"] in ("softmax", "thompson"):
        options.pop("omega")
    actor: Any = make_actor(trained.policy, trained.critic, options, trained.policy.spec["action"])
    with pytest.raises(ConfigError, match=found):
        export.OptimisticProgram(export.plain_policy(trained.policy), interface(), actor)


def test_a_dict_observation_is_laid_out_as_the_agent_sees_it() -> None:
    parts = export.Interface.of(EnvConfig("PointMaze_UMaze-v3")).parts()
    assert [(part["key"], part["start"], part["stop"]) for part in parts] == [
        ("achieved_goal", 0, 2),
        ("desired_goal", 2, 4),
        ("observation", 4, 8),
    ]


def test_units_are_those_the_environment_is_sent() -> None:
    found = export.Interface.of(EnvConfig("Pendulum-v1", action_scale=0.5))
    assert (found.low.item(), found.high.item(), found.centre.item(), found.half.item()) == (-2.0, 2.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def exported(shared_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run's folder and what the recipe made of it."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
        trained = run("finetune", *SHORT, f"runs={folder}/runs", "exploration.num_candidates=10")
        recipe.main(settings("export", f"run={trained}", f"to={folder}/out", "optimistic=true"))
    return trained, folder / "out"


@pytest.mark.parametrize("which", ["latest", "best"])
def test_the_choice_is_that_of_where_a_schedule_had_come_to(shared_datasets: Path, tmp_path: Path, which: str) -> None:
    moving = ["schedule=linear", "schedule.steps=240", "+schedule.to.exploration={sigma: 0.1, omega: 1.0}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
        trained = run("finetune", *SHORT, f"runs={tmp_path}", "exploration.num_candidates=5", "task.sigma=0.2", *moving)
    config = settings("export", f"run={trained}", "to=unused", f"checkpoint={which}")
    actor = recipe.chooser(config, *recipe.given_run(config))
    share = load_metadata(trained / FOLDERS[which])["step"] / 240
    assert share == 0.5 or which == "best"
    assert actor.sampler.sigma.item() == pytest.approx(0.2 - 0.1 * share)
    assert actor.scorer.omega.item() == pytest.approx(share)


def test_the_folder_says_what_the_policy_is(exported: tuple[Path, Path]) -> None:
    trained, folder = exported
    manifest = json.loads((folder / "policy.json").read_text())
    assert {path.name for path in folder.iterdir()} == {
        *("model.safetensors", "policy.pt2", "optimistic.pt2", "policy.json", "README.md")
    }
    assert manifest["files"] == {
        name: sha256(folder / name) for name in ("model.safetensors", "optimistic.pt2", "policy.pt2")
    }
    scores, facts = (json.loads((trained / name).read_text()) for name in ("done.json", "env.json"))
    assert manifest["checkpoint"]["step"] == scores.pop("step") == 120
    assert manifest["scores"] == {"episodes": 1, **scores}
    assert (manifest["dataset"]["id"], manifest["dataset"]["hash"]) == (facts["dataset"], facts["dataset_hash"])
    assert manifest["parity"]["source"] == "the first 300 rows of me/reacher-v0"
    assert manifest["parity"]["policy.pt2"]["max_abs_difference"] < 1e-5
    assert manifest["programs"]["optimistic.pt2"]["inputs"]["noise"]["shape"] == ["B", 10, 2]
    assert 0 < manifest["latency"]["policy.pt2"]["median_us"] <= manifest["latency"]["policy.pt2"]["p99_us"]
    page = (folder / "README.md").read_text()
    for stated in (f"{scores['return']:.2f}", "me/reacher-v0", facts["dataset_hash"], "Reacher-v5", "120 environment"):
        assert stated in page
    assert str(trained) not in page + (folder / "policy.json").read_text()


WITHOUT_O3F = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"o3f", "torchrl", "tensordict", "gymnasium", "hydra"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import json, re, torch
code = re.findall("```python\\n(.*?)```", open("README.md").read(), re.S)
assert len(code) == 2
for block in code:
    exec(block)
assert action.shape == (1, 2)
observation = torch.tensor(json.load(sys.stdin))
torch.manual_seed(0)
units = weights["action_centre"] + weights["action_half"] * torch.tanh(network(observation))
inputs = json.load(open("policy.json"))["programs"]["optimistic.pt2"]["inputs"]
drawn = {k: torch.randn(len(observation), *v["shape"][1:]) for k, v in inputs.items() if k != "observation"}
chosen = torch.export.load("optimistic.pt2").module()(observation, **drawn)
assert not any(name.split(".")[0] in {"o3f", "torchrl", "tensordict"} for name in sys.modules)
print(json.dumps([policy(observation).tolist(), units.tolist(), chosen.tolist()]))
"""


def test_it_loads_without_this_package_as_the_card_says(exported: tuple[Path, Path]) -> None:
    trained, folder = exported
    observation = torch.randn(4, 10)
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_O3F],
        cwd=folder,
        env=environment,
        input=json.dumps(observation.tolist()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    program, by_hand, chosen = (torch.tensor(each) for each in json.loads(done.stdout))
    _, agent = load_run(trained)
    expected = deterministic(agent.policy, observation)  # Reacher's actions are in [-1, 1]
    torch.testing.assert_close(program, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(by_hand, expected, rtol=0, atol=1e-5)
    assert chosen.shape == expected.shape
    assert (chosen - expected).abs().min() > 0


def test_the_page_on_exporting_plays_an_episode(
    exported: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained, folder = exported
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for code in blocks(Path(__file__).parents[2] / "docs" / "export.md"):
        exec(code, names)
    _, agent = load_run(trained)
    env = gymnasium.make("Reacher-v5")
    (observation, _), total, ended = env.reset(seed=0), 0.0, False
    while not ended:
        row = torch.as_tensor(observation, dtype=torch.float32).unsqueeze(0)
        observation, reward, _, ended, _ = env.step(deterministic(agent.policy, row)[0].numpy())
        total += float(reward)
    assert float(capsys.readouterr().out) == pytest.approx(total, abs=1e-3)
    assert names["action"].shape == (1, 2)


def test_weights_fill_a_plain_perceptron(exported: tuple[Path, Path]) -> None:
    trained, folder = exported
    weights = load_file(folder / "model.safetensors")
    network = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2), nn.Tanh())
    layers = {k.removeprefix("policy.layers."): v for k, v in weights.items() if k.startswith("policy.layers.")}
    network.load_state_dict(layers)
    _, agent = load_run(trained)
    observation = torch.randn(4, 10)
    torch.testing.assert_close(network(observation), deterministic(agent.policy, observation), rtol=0, atol=1e-6)
    manifest = json.loads((folder / "policy.json").read_text())
    assert manifest["weights"] == {name: list(value.shape) for name, value in weights.items()}


def test_what_is_there_is_kept(exported: tuple[Path, Path], tmp_path: Path) -> None:
    trained, folder = exported
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="exists already"):
        recipe.main(settings("export", f"run={trained}", f"to={folder}"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"not an exported policy \(found thesis.tex\)"):
        recipe.main(settings("export", f"run={trained}", f"to={tmp_path}/mine", "overwrite=true"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_is_left_of_an_export_that_differs(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("o3f.export.programs.PolicyProgram.within", lambda self, action, previous: 0.9 * action)
    with pytest.raises(ExportError, match="Nothing was written"):
        recipe.main(settings("export", f"run={exported[0]}", f"to={tmp_path}/out"))
    assert list(tmp_path.iterdir()) == []


def test_without_the_dataset_the_environment_is_asked(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "empty"))
    target = tmp_path / "out"
    recipe.main(settings("export", f"run={exported[0]}", f"to={target}", "checkpoint=best"))
    recipe.main(settings("export", f"run={exported[0]}", f"to={target}", "overwrite=true"))
    manifest = json.loads((target / "policy.json").read_text())
    assert manifest["parity"]["source"] == "300 steps of the policy in Reacher-v5"
    assert manifest["parity"]["observations"] == 300
    assert manifest["checkpoint"]["which"] == "latest"
    assert manifest["dataset"]["description"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["mine.npz", "picture.png"])
def test_a_file_that_no_export_wrote_is_not_replaced(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    np.savez(tmp_path / "mine.npz", data=np.ones(3))
    if name != "mine.npz":
        target.write_text("mine")
    before = target.read_bytes()
    with pytest.raises(ConfigError, match="is a file that no export wrote, so it is not overwritten"):
        export.check_destination(target, overwrite=True)
    assert target.read_bytes() == before
