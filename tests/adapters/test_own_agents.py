"""Fine-tuning from an agent of the user's own: the same policy at step 0, exact resume, clear refusals."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stable_baselines3 import SAC
from tensordict import TensorDict

from o3f import EnsembleQValue, gaussian_policy, tanh_gaussian_policy, value_network
from o3f.adapters import Agent, agent_digest, from_sb3, load_agent, save_agent
from o3f.algorithms import SACLearner
from o3f.envs import episode_seed
from o3f.errors import ConfigError
from o3f.modules import GenericEnsemble
from o3f.training import build
from o3f.training.load import AGENT_FILE, load_run
from o3f.training.reporting import evaluate_policy
from o3f.training.start import start_learner
from recipes import evaluate
from tests.support.recipe_runs import (
    SHORT,
    TINY,
    assert_same_run,
    command,
    part,
    rows,
    run,
    run_stopped,
    same,
    settings,
)

SMALL = {"net_arch": [5, 4], "n_critics": 3}
FOREIGN = [*SHORT, "algorithm=sac", "pretrained=agent.safetensors"]


@pytest.fixture(scope="module")
def trained_model() -> SAC:
    made = SAC("MlpPolicy", gym.make("Reacher-v5"), policy_kwargs=SMALL, seed=0, device="cpu")
    with torch.no_grad():
        made.policy.actor.mu.weight.mul_(20)  # actions of all sizes
    return made


@pytest.fixture
def model(trained_model: SAC, place: Path) -> SAC:
    """A Stable-Baselines3 agent, and its weights under its own names in ``agent.safetensors``."""
    save_file(trained_model.policy.state_dict(), "agent.safetensors")
    return trained_model


@pytest.fixture(scope="module")
def finished(trained_model: SAC, shared_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that started from this agent; the file it came from is no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
        patch.chdir(place := tmp_path_factory.mktemp("finished"))
        save_file(trained_model.policy.state_dict(), "agent.safetensors")
        folder = place / run("finetune", *FOREIGN)
        Path("agent.safetensors").unlink()
    return folder


def returns_of(model: Any, config: Any) -> list[float]:
    """The returns of the peer's own policy in the episodes that evaluations play."""
    env = gym.make("Reacher-v5")
    found = []
    for episode in range(config.evaluation.episodes):
        observation, _ = env.reset(seed=episode_seed(config.evaluation.seed, episode))
        total, done = 0.0, False
        while not done:
            action = model.predict(observation.astype(np.float32), deterministic=True)[0]
            observation, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
        found.append(total)
    return found


def test_step_0_is_the_return_of_the_peers_policy(trained_model: SAC, finished: Path) -> None:
    ours = {step: value for step, _, value in rows(finished, "eval/return")}
    assert ours[0] == pytest.approx(np.mean(returns_of(trained_model, settings("finetune", *FOREIGN))), abs=1e-3)
    assert abs(ours[0] - ours[120]) > 0.1  # and it was trained
    critics = part(finished, "learner")["loss"]["qvalue_network_params.weights.0"]
    assert critics.shape == (3, 12, 5)  # three critics and their widths, not those of the configuration


def test_the_run_is_evaluated_without_the_file_it_came_from(trained_model: SAC, finished: Path) -> None:
    trained, learner = load_run(finished)
    assert same(dict(learner.loss.state_dict()), part(finished, "learner")["loss"])
    begun = load_agent(str(finished / AGENT_FILE))
    agent = from_sb3(trained_model)
    assert same(agent.policy.state_dict(), begun.policy.state_dict())
    assert same(agent.critic.state_dict(), begun.critic.state_dict())
    assert trained.pretrained == "agent.safetensors"


def test_a_killed_run_notices_a_changed_file_and_ends_as_an_uninterrupted_one(
    model: SAC, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stopped(SACLearner, "update", 70, *FOREIGN)
    (killed,) = Path("runs").rglob("seed0")
    assert part(killed, "state")["step"] == 50
    state = model.policy.state_dict()
    changed = {**state, "critic.qf0.0.bias": state["critic.qf0.0.bias"] + 1e-6}
    save_file(changed, "agent.safetensors")
    assert command("finetune", *FOREIGN) == 2
    assert "was begun with something else (old -> new): agent: " in capsys.readouterr().err
    save_file(state, "agent.safetensors")
    assert_same_run(finished, run("finetune", *FOREIGN))


CODE = """
import torch
from torch import nn

class Q(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10 + 2, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, observation, action):
        return self.net(torch.cat([observation, action], -1)).squeeze(-1)

def make():
    torch.manual_seed(5)
    policy = nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 2), nn.Tanh())
    return {"policy": policy, "critics": [Q(), Q()], "value": nn.Linear(10, 1), "action_dim": 2}
"""


def test_networks_of_any_code_by_an_import_path(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("code_of_mine.py").write_text(CODE)
    given = [*TINY, "pretrained=code_of_mine:make"]  # 60 steps
    folder = run("finetune", *given)
    ours = {step: value for step, _, value in rows(folder, "eval/return")}
    learner = build.learner(settings("finetune", *given), load_agent("code_of_mine:make"))
    assert isinstance(learner.critic, GenericEnsemble)
    played = evaluate_policy(learner.policy, settings("finetune", *given))
    assert ours[0] == played["return"]
    assert ours[0] != ours[60]
    with pytest.raises(ConfigError, match=r"are code: code_of_mine:make\. In Python"):
        load_run(folder)  # a folder's configuration runs no code
    _, again = load_run(folder, agent=load_agent("code_of_mine:make"))
    assert same(dict(again.loss.state_dict()), part(folder, "learner")["loss"])
    figures = evaluate.evaluate_run(
        folder, settings("evaluate", f"run={folder}", "episodes=1", "agent=code_of_mine:make")
    )
    assert np.isfinite(figures["acting"]["policy"]["return"])


def test_a_folder_that_names_code_does_not_run_it(place: Path, finished: Path) -> None:
    Path("trap.py").write_text("open('sprung', 'w').close()\ndef make(): pass\n")
    shutil.copytree(finished, "theirs")
    Path("theirs", AGENT_FILE).unlink()
    text = Path("theirs/config.yaml").read_text()
    Path("theirs/config.yaml").write_text(text.replace("pretrained: agent.safetensors", "pretrained: trap:make"))
    with pytest.raises(ConfigError, match="are code: trap:make"):
        load_run("theirs")
    assert not Path("sprung").exists()


def test_a_policy_alone_gets_critics_from_the_dataset_and_stays_as_it_is(place: Path) -> None:
    given = [*SHORT, "pretrained=agent.safetensors"]
    torch.manual_seed(2)
    policy = gaussian_policy(10, 2, (7,))
    save_agent("agent.safetensors", Agent(policy))
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    config = settings("finetune", *given)
    learner = build.learner(config, agent := load_agent("agent.safetensors"))
    buffer, _, facts = build.buffer(config)
    start_learner(learner, agent, buffer, config, facts)
    assert same(before, dict(learner.policy.state_dict()))
    trained = load_run(next(Path("runs").glob("pretrained-*/*/seed0")))[1]
    for name in ("qvalue_network", "target_qvalue_network", "value_network"):
        assert same(dict(getattr(learner.loss, name).state_dict()), dict(getattr(trained.loss, name).state_dict()))


def test_a_missing_value_network_is_fitted_to_the_critics_alone(place: Path) -> None:
    torch.manual_seed(2)
    save_agent("agent.safetensors", Agent(gaussian_policy(10, 2, (7,)), EnsembleQValue(10, 2, 2, (6,))))
    losses = []
    for steps in (1, 300):
        config = settings("finetune", *SHORT, "pretrained=agent.safetensors", f"agent.value_steps={steps}")
        learner = build.learner(config, agent := load_agent("agent.safetensors"))
        buffer, _, facts = build.buffer(config)
        start_learner(learner, agent, buffer, config, facts)
        assert same(dict(agent.critic.state_dict()), dict(load_agent("agent.safetensors").critic.state_dict()))
        losses.append(learner.loss.value_loss(buffer[:])[0].item())
    assert losses[1] < 0.3 * losses[0]


def sac(*sizes: int) -> Agent:
    return Agent(tanh_gaussian_policy(sizes[0], sizes[1], (4,)), EnsembleQValue(sizes[0], sizes[1], 2, (4,)))


def iql(*, critic: bool = False, value: bool = False) -> Agent:
    critics = EnsembleQValue(10, 2, 2, (4,)) if critic else None
    return Agent(gaussian_policy(10, 2, (4,)), critics, value_network(10, (4,)) if value else None)


@pytest.mark.parametrize(
    ("agent", "overrides", "message"),
    [
        (sac(11, 2), ["algorithm=sac"], "the task has 10 observations and 2 actions, its policy takes 11"),
        (sac(10, 3), ["algorithm=sac"], r"action of two of them has shape \[2, 3\], expected \[2, 2\]"),
        (sac(10, 2), [], "algorithm=iql trains a Gaussian that is not squashed, .* Use algorithm=sac or cql"),
        (iql(critic=True), ["algorithm=cql"], "algorithm=cql trains a Gaussian squashed .* Use algorithm=iql"),
        (iql(critic=True), ["algorithm=lapo"], "algorithm=lapo has networks of its own and cannot start from agent"),
        (iql(), ["algorithm=awac"], "has no critics, and those of algorithm=awac are critics of its own policy"),
        (iql(), ["dataset=none"], "has no critics, which would be trained on the dataset, but dataset=none"),
        (iql(critic=True), ["dataset=none"], "has no value network, which would be trained on the dataset"),
        (iql(value=True), [], "has a value network but no critics"),
        (iql(critic=True, value=True), ["algorithm.aggregation=subset", "algorithm.subset_size=3"], "subset"),
        (
            sac(10, 2),
            ["algorithm=sac", "transfer.optimisers=true"],
            "brings networks alone: give transfer.optimisers=f",
        ),
        (iql(critic=True, value=True), ["transfer.targets=false"], "for algorithm=sac alone; found algorithm=iql"),
    ],
)
def test_agents_that_do_not_fit_are_refused(
    place: Path, agent: Agent, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_agent("agent.safetensors", agent)
    assert command("finetune", *SHORT, "pretrained=agent.safetensors", *overrides) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(Path("runs").rglob("metrics.csv"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.safetensors", "there is no such file"),
        ("model.zip", "only safetensors and .npz files are read"),
        ("broken.safetensors", "is no readable safetensors file"),
        ("math:sqrt", "math:sqrt must return an agent when called without arguments"),
        ("no_module_of_mine:make", "No module named 'no_module_of_mine'"),
        ("json:make_agent", "has no attribute 'make_agent'"),
        ("builtins:dict", "its tensors have no names of CORL"),
        ("builtins:list", "returned a list, expected a dict"),
    ],
)
def test_names_that_lead_to_no_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.zip").write_bytes(b"x")
    Path("broken.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(ConfigError, match=message):
        load_agent(name)


@pytest.mark.parametrize(
    "agent",
    [
        Agent(gaussian_policy(3, 2, (5, 4), dropout=0.1, log_std_bounds=(-6.0, 0.0), log_std_rule="sigmoid")),
        Agent(gaussian_policy(3, 2, (5,), squash_mean=False), EnsembleQValue(3, 2, 4, (6,), layer_norm=True)),
        Agent(
            tanh_gaussian_policy(3, 2, (5, 4), layer_norm=True, log_std_bounds=(-3.0, 1.0)),
            EnsembleQValue(3, 2, 2, (6,), normalise=True),
            value_network(3, (4,), layer_norm=True),
            0.3,
        ),
    ],
)
def test_a_saved_agent_is_the_same_again(agent: Agent, tmp_path: Path) -> None:
    file = tmp_path / "agent.safetensors"
    save_agent(file, agent)
    again = load_agent(str(file))
    assert agent_digest(again) == agent_digest(agent)
    td = TensorDict({"observation": torch.randn(5, 3), "action": torch.rand(5, 2)}, [5])
    agent.policy.eval()
    for key in ("loc", "scale"):
        assert torch.equal(agent.policy(td.clone())[key], again.policy(td.clone())[key])
    for left, right in ((agent.critic, again.critic), (agent.value, again.value)):
        assert (left is None) == (right is None)
        assert left is None or torch.equal(left(td.clone())[left.out_keys[0]], right(td.clone())[left.out_keys[0]])
    assert again.temperature == pytest.approx(agent.temperature)


def test_critics_that_read_the_action_first_are_not_saved_as_others(tmp_path: Path) -> None:
    policy = gaussian_policy(3, 2, (8,), in_key="pose", action_key="thrust")
    save_agent(tmp_path / "a.safetensors", Agent(policy, EnsembleQValue(3, 2, 2, (8,), in_keys=["pose", "thrust"])))
    first = EnsembleQValue(2, 3, 2, (8,), in_keys=["thrust", "pose"])
    with pytest.raises(ConfigError, match=r"critics that read \['thrust', 'pose'\] cannot be saved"):
        save_agent(tmp_path / "b.safetensors", Agent(policy, first))
    assert not (tmp_path / "b.safetensors").exists()


def test_the_digest_sees_a_setting_and_a_weight() -> None:
    torch.manual_seed(0)
    policy = gaussian_policy(3, 2, (4,))
    torch.manual_seed(0)
    other = gaussian_policy(3, 2, (4,), log_std_bounds=(-5.0, 1.0))
    digests = {agent_digest(Agent(policy)), agent_digest(Agent(other))}
    policy.module[0].module.log_std.data[0] += 1e-7
    assert len(digests | {agent_digest(Agent(policy))}) == 3


def test_the_agent_of_a_run_can_be_saved_and_start_another(place: Path, finished: Path) -> None:
    config, learner = load_run(finished)
    save_agent("agent.safetensors", Agent(learner.policy, learner.critic))
    other = build.learner(config, load_agent("agent.safetensors"))
    values = {step: value for step, _, value in rows(finished, "eval/return")}
    assert evaluate_policy(other.policy, config)["return"] == values[120]
    assert same(dict(other.critic.state_dict()), dict(learner.critic.state_dict()))


def test_building_a_learner_leaves_the_digest_as_it_is(place: Path) -> None:
    agent = iql(critic=True, value=True)
    before = agent_digest(agent)
    build.learner(settings("finetune", *SHORT), agent)
    assert agent_digest(agent) == before


def test_the_temperature_is_taken_over(model: SAC) -> None:
    state = {**model.policy.state_dict(), "log_ent_coef": torch.tensor([0.25]).log()}
    save_file(state, "agent.safetensors")
    learner = build.learner(settings("finetune", *FOREIGN), load_agent("agent.safetensors"))
    assert learner.loss.alpha.item() == pytest.approx(0.25)
    assert isinstance(learner, SACLearner)


def started(*overrides: str) -> SACLearner:
    """A learner that starts from ``agent.safetensors``, after other draws from torch's global stream each time."""
    config = settings("finetune", *FOREIGN, *overrides)
    learner = build.learner(config, agent := load_agent("agent.safetensors"))
    buffer, _, facts = build.buffer(config)
    torch.rand(int(torch.randint(9, ())))
    start_learner(learner, agent, buffer, config, facts)
    assert isinstance(learner, SACLearner)
    return learner


def targets_of(learner: SACLearner) -> dict[str, Any]:
    """The target critics' weights and z-scores, as a checkpoint keeps them."""
    prefix = "target_qvalue_network_params."
    state = learner.loss.state_dict()
    return {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix) and "__" not in name}


@pytest.mark.parametrize("layer_norm", [False, True])
def test_target_critics_are_copies_or_fresh(place: Path, layer_norm: bool) -> None:
    torch.manual_seed(0)
    critic = EnsembleQValue(10, 2, 3, (6, 5), layer_norm=layer_norm, normalise=True)
    critic.normaliser.loc.fill_(0.3)
    critic.normaliser.scale.fill_(7.0)
    for gain in critic.norm_weights:
        gain.data.fill_(2.0)
    save_agent("agent.safetensors", Agent(tanh_gaussian_policy(10, 2, (4,)), critic))
    state = dict(critic.state_dict())
    copied = started()
    assert same(targets_of(copied), state)
    fresh = started("transfer.targets=false")
    assert same(dict(fresh.critic.state_dict()), state)
    targets = targets_of(fresh)
    assert targets.keys() == state.keys()
    assert same(targets, targets_of(started("transfer.targets=false")))
    assert not same(targets, targets_of(started("transfer.targets=false", "seed=1")))
    for name, value in targets.items():
        if name.startswith("normaliser."):
            assert torch.equal(value, state[name])
        elif name.startswith("norm_"):
            assert value.unique().tolist() == [float(name.startswith("norm_weights"))]
        else:
            assert len(value.unique(dim=0)) == 3  # the members differ
            assert (value - state[name]).abs().max() > 0.05
    for index in range(3):  # the bounds of torch's own rule, by which a run draws its networks
        weight = targets[f"weights.{index}"]
        assert 0.5 < weight.abs().max() * weight.shape[1] ** 0.5 <= 1
    values = [
        learner.target_critic(TensorDict({"observation": torch.ones(1, 10), "action": torch.ones(1, 2)}, [1]))
        for learner in (copied, fresh)
    ]
    assert (values[0]["state_action_value"] - values[1]["state_action_value"]).abs().min() > 1e-3


def test_fresh_targets_do_not_depend_on_the_agents_weights(place: Path) -> None:
    targets = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_agent("agent.safetensors", sac(10, 2))
        targets.append(targets_of(started("transfer.targets=false")))
    assert same(*targets)


def test_fresh_targets_are_drawn_by_the_configured_rule(place: Path) -> None:
    save_agent("agent.safetensors", sac(10, 2))
    weight = targets_of(started("transfer.targets=false", "algorithm.init=orthogonal"))["weights.0"][0]
    torch.testing.assert_close(weight.T @ weight, 2 * torch.eye(4))


def test_fresh_targets_follow_the_critics(place: Path) -> None:
    save_agent("agent.safetensors", sac(10, 2))
    folder = run("finetune", *FOREIGN, "transfer.targets=false", "algorithm.tau=1.0")
    state = part(folder, "learner")["loss"]
    for name in [name for name in state if name.startswith("qvalue_network_params.")]:
        torch.testing.assert_close(state[f"target_{name}"], state[name], rtol=0, atol=1e-6)


def test_critics_of_other_code_cannot_be_drawn_anew(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("soft_code.py").write_text(
        CODE.replace("import torch\n", "import torch\nfrom o3f import tanh_gaussian_policy\n", 1).replace(
            "    policy = nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 2), nn.Tanh())\n",
            "    policy = tanh_gaussian_policy(10, 2, (4,))\n",
        )
    )
    given = [*SHORT, "algorithm=sac", "pretrained=soft_code:make"]
    assert command("finetune", *given, "transfer.targets=false") == 2
    assert "draws target critics that are an EnsembleQValue, found a GenericEnsemble" in capsys.readouterr().err
