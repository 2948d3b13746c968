"""Agents of CORL, d3rlpy and Stable-Baselines3 give the same numbers here as there."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f import OptimisticActor
from o3f.adapters import Agent, from_d3rlpy, from_sb3, from_tensors
from o3f.errors import ConfigError
from tests.support.corl_networks import CORL, OBSERVATIONS, Peer

GOLDEN = Path(__file__).parents[1] / "golden"


def close(left: Any, right: Any, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(torch.as_tensor(left), torch.as_tensor(right), rtol=tolerance, atol=tolerance)


@torch.no_grad()
def ours(agent: Agent, observation: Tensor, action: Tensor) -> dict[str, Tensor]:
    """What an agent of ours says of observations and actions."""
    td = TensorDict({"observation": observation}, [len(observation)])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        found = {"mean": agent.policy(td.clone())["action"]}
    acted = agent.policy(td.clone())
    found |= {"loc": acted["loc"], "std": acted["scale"], "log_prob": agent.policy.get_dist(td).log_prob(action)}
    if agent.critic is not None:
        found["q"] = agent.critic(td.clone().set("action", action))["state_action_value"]
    if agent.value is not None:
        found["value"] = agent.value(td.clone())["state_value"]
    return found


def sb3_env() -> gym.Env[Any, Any]:
    return gym.make("Pendulum-v1")  # actions in [-2, 2]


def test_sb3_sac() -> None:
    model = SAC("MlpPolicy", sb3_env(), policy_kwargs={"net_arch": [5, 4], "n_critics": 3}, ent_coef="auto_0.2", seed=1)
    agent = from_sb3(model)
    observation, action = torch.randn(6, 3) * 2, torch.rand(6, 1) * 1.8 - 0.9
    found = ours(agent, observation, action)
    with torch.no_grad():
        mean, log_std, _ = model.actor.get_action_dist_params(observation)
        dist = model.actor.action_dist.proba_distribution(mean, log_std)
        close(found["loc"], mean)
        close(found["std"], log_std.exp())
        close(found["mean"], model.actor(observation, deterministic=True))
        close(found["log_prob"], dist.log_prob(action), 2e-5)  # theirs adds 1e-6 inside the logarithm
        close(found["q"], torch.cat(model.critic(observation, action), 1))
    env_action = model.predict(observation.numpy(), deterministic=True)[0]
    close(found["mean"] * 2.0, env_action)
    assert agent.temperature == pytest.approx(0.2)
    assert agent.critic.num_critics == 3


def test_sb3_td3() -> None:
    model = TD3("MlpPolicy", sb3_env(), policy_kwargs={"net_arch": {"pi": [5], "qf": [4, 3]}}, seed=1)
    observation, action = torch.randn(6, 3) * 2, torch.rand(6, 1) * 1.8 - 0.9
    found = ours(from_sb3(model), observation, action)
    with torch.no_grad():
        close(found["mean"], model.actor(observation))
        close(found["q"], torch.cat(model.critic(observation, action), 1))
    assert found["std"].unique().tolist() == pytest.approx([0.1])


def test_sb3_with_normalised_observations() -> None:
    env = VecNormalize(DummyVecEnv([sb3_env]))
    env.obs_rms.mean, env.obs_rms.var = np.array([0.5, -1.0, 2.0]), np.array([4.0, 0.25, 9.0])
    model = SAC("MlpPolicy", env, policy_kwargs={"net_arch": [5, 4]}, seed=1)
    observation, action = torch.randn(6, 3), torch.rand(6, 1) * 1.8 - 0.9
    found = ours(from_sb3(model), observation, action)
    seen = torch.as_tensor(env.normalize_obs(observation.numpy()))
    with torch.no_grad():
        close(found["mean"], model.actor(seen, deterministic=True))
        close(found["q"], torch.cat(model.critic(seen, action), 1))


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("d3rlpy_*.safetensors")), ids=lambda file: file.stem)
def test_d3rlpy(file: Path) -> None:
    tensors = load_file(file)
    check = {name.removeprefix("check."): value for name, value in tensors.items() if name.startswith("check.")}
    state = {name.removeprefix("agent."): value for name, value in tensors.items() if name.startswith("agent.")}
    agent = from_tensors(state)
    found = ours(agent, check.pop("observation"), check.pop("action"))
    for name, value in check.items():
        close(found[name], value, 2e-6)
    assert len(check) == {"d3rlpy_iql": 5, "d3rlpy_td3_plus_bc": 2}.get(file.stem, 4)
    expected = None if file.stem in ("d3rlpy_iql", "d3rlpy_td3_plus_bc") else math.exp(-0.7)
    assert agent.temperature == pytest.approx(expected)


def test_there_are_golden_files_of_five_algorithms() -> None:
    assert len(list(GOLDEN.glob("d3rlpy_*.safetensors"))) == 5


@pytest.mark.parametrize("name", CORL)
def test_corl(name: str) -> None:
    peer: Peer = CORL[name]()
    agent = from_tensors(peer.state)
    observation, action = torch.randn(6, OBSERVATIONS) * 2, torch.rand(6, 2) * 1.8 - 0.9
    found, expected = ours(agent, observation, action), peer.says(observation, action)
    close(found["mean"], expected.pop("mean"))
    for key, value in expected.items():
        close(found[key], value, 2e-5 if key == "log_prob" else 2e-6)
    assert agent.temperature == pytest.approx(peer.temperature)


def test_corl_behaviour_cloning_is_a_policy_alone() -> None:
    peer = CORL["td3_bc"]()
    state = {name: part for name, part in peer.state.items() if not name.startswith("critic_")}
    agent = from_tensors(state, "mine")
    observation, action = torch.randn(6, OBSERVATIONS), torch.rand(6, 2)
    close(ours(agent, observation, action)["mean"], peer.says(observation, action)["mean"])
    assert agent.critic is None
    assert agent.origin == "mine (CORL: BC)"


def test_one_of_two_critics_is_not_taken_for_behaviour_cloning() -> None:
    state = {name: part for name, part in CORL["td3_bc"]().state.items() if name != "critic_1"}
    with pytest.raises(ConfigError, match=r"there are no layers critic_1\.net\."):
        from_tensors(state)


@pytest.mark.parametrize("name", CORL)
def test_every_agent_acts_optimistically(name: str) -> None:
    agent = from_tensors(CORL[name]().state)
    td = TensorDict({"observation": torch.randn(4, OBSERVATIONS)}, [4])
    actor = OptimisticActor(agent.policy, agent.critic, num_candidates=8, return_candidates=True)
    acted = actor(td.clone())
    with torch.no_grad():
        values = agent.critic(acted.select("observation", "action"))["state_action_value"].mean(-1)
    candidates = acted["candidates"]
    inputs = TensorDict({"observation": td["observation"][:, None].expand(4, 8, -1), "action": candidates}, [4, 8])
    best = agent.critic(inputs)["state_action_value"].mean(-1).amax(-1)
    close(values, best, 1e-5)


def wrong(state: dict[str, Tensor], **changes: Any) -> dict[str, Tensor]:
    """A state dict with other tensors, those that are None left out."""
    changed = {**state, **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor__log_std": torch.zeros(3)}, r"actor\.log_std has shape \[3\], expected \[2\]"),
        ({"extra__weight": torch.zeros(2)}, r"these tensors are not known: extra\.weight \[2\]"),
        ({"qf__q2__net__4__weight": torch.zeros(2, 3)}, r"qf\.q2\.net\.4\.bias has shape \[1\], expected \[2\]"),
        ({"qf__q2__net__2__weight": torch.zeros(4, 7)}, r"qf\.q2\.net\. do not fit together .*\(7, 4\)"),
        ({"qf__q2__net__4__bias": None}, r"there is no tensor 'qf\.q2\.net\.4\.bias'"),
        ({"vf__v__net__0__weight": torch.zeros(5)}, r"vf\.v\.net\.0\.weight has shape \[5\], expected a matrix"),
        ({"vf__v__net__0__bias": torch.full((5,), math.nan)}, r"vf\.v\.net\.0\.bias holds numbers that are not finite"),
        ({"observation_std": torch.zeros(3)}, "observation_std must be positive"),
        ({"observation_std": None}, "there is no tensor 'observation_std'"),
        ({"max_action": torch.tensor(-2.0)}, "max_action must be positive, found -2.0"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    state = CORL["iql"]().flat
    from_tensors(state)
    with pytest.raises(ConfigError, match=message):
        from_tensors(wrong(state, **changes), "mine")


def test_names_of_nobody_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"mine: its tensors have no names of CORL, .*: pi\.w"):
        from_tensors({"pi.w": torch.zeros(2)}, "mine")


def test_sb3_networks_that_cannot_be_read_are_refused() -> None:
    model = SAC("MlpPolicy", sb3_env(), policy_kwargs={"net_arch": [4], "activation_fn": nn.Tanh})
    with pytest.raises(ConfigError, match="activation Tanh; only ReLU"):
        from_sb3(model)
    with pytest.raises(ConfigError, match="use_sde=True"):
        from_sb3(SAC("MlpPolicy", sb3_env(), policy_kwargs={"net_arch": [4]}, use_sde=True))


def encoder(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """A network with the names of d3rlpy's."""
    layers = nn.Sequential(nn.Linear(sizes[0], sizes[1]), activation())
    return nn.ModuleDict({"_encoder": nn.ModuleDict({"_layers": layers}), "_fc": nn.Linear(sizes[1], sizes[2])})


def d3rlpy_object(**scaler: Any) -> Any:
    """Something with the attributes of a d3rlpy algorithm."""
    modules = SimpleNamespace(policy=encoder(3, 4, 2), q_funcs=nn.ModuleList([encoder(5, 4, 1)]), actor_optim=object())
    config = SimpleNamespace(observation_scaler=SimpleNamespace(**scaler) if scaler else None)
    return SimpleNamespace(impl=SimpleNamespace(_modules=modules), config=config)


def test_d3rlpy_objects_bring_their_scaler() -> None:
    torch.manual_seed(3)
    observation = torch.randn(5, 3)
    mean, std = np.array([0.5, -1.0, 2.0]), np.array([1.5, 0.7, 3.0])
    standard, minmax = (
        d3rlpy_object(mean=mean, std=std, eps=1e-3),
        d3rlpy_object(minimum=mean - std, maximum=mean + std),
    )
    for algorithm, scale in ((standard, std + 1e-3), (minmax, std)):
        policy: Any = algorithm.impl._modules.policy
        seen = (observation - torch.as_tensor(mean).float()) / torch.as_tensor(scale).float()
        expected = torch.tanh(policy["_fc"](policy["_encoder"]["_layers"](seen)))
        close(ours(from_d3rlpy(algorithm), observation, torch.zeros(5, 2))["mean"], expected.detach())


def test_d3rlpy_objects_that_cannot_be_read_are_refused() -> None:
    algorithm = d3rlpy_object()
    algorithm.impl._modules.policy = encoder(3, 4, 2, activation=nn.Tanh)
    with pytest.raises(ConfigError, match="its networks have Tanh; only Linear and ReLU"):
        from_d3rlpy(algorithm)
    with pytest.raises(ConfigError, match="not built yet"):
        from_d3rlpy(SimpleNamespace(impl=None))
    with pytest.raises(ConfigError, match="the scaler SimpleNamespace of observations is not known"):
        from_d3rlpy(d3rlpy_object(pixels=True))
