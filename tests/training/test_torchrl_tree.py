"""The configurations in TorchRL's tree are our classes' arguments, and build what they say."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize
from hydra.utils import get_object, instantiate
from omegaconf import MISSING, OmegaConf
from tensordict import TensorDict
from torchrl.objectives import SoftUpdate
from torchrl.trainers import Trainer
from torchrl.trainers.algorithms.configs.common import ConfigBase
from torchrl.trainers.algorithms.configs.objectives import LossConfig

import o3f
from o3f.data import load_minari
from o3f.envs import EnvConfig
from o3f.errors import ConfigError
from o3f.modules import LatentCandidates, LatentPolicy
from o3f.training import torchrl as configs
from o3f.training.torchrl.trainer import measure_dataset, seeded_apart
from tests.support.iql_cases import make_batch

NODES = [(group, name) for group, nodes in configs.GROUPS.items() for name in nodes]
HYDRA = {"_target_", "_partial_", "_convert_"}
#: Arguments beside those of the target's signature: of the class that takes its **kwargs, or of the factory.
FURTHER: dict[str, Any] = {
    "replay_buffer/o3f_file": load_minari,
    "env/o3f_gym": EnvConfig,
    "trainer/o3f": Trainer.__init__,
    "candidates/o3f_mixed": configs.make.modules.GaussianCandidates,
}
#: Arguments that YAML does not give: the caller or the factory does, or they are not for this use.
NOT_GIVEN = {
    "replay_buffer/o3f_file": {"dataset_id", "download", "root"},
    "candidates/o3f_mixed": {"centre", "include_base"},
    "candidates/o3f_latent": {"decoder"},
    "exploration/o3f_optimistic_actor": {"policy", "critic"},
    "exploration/o3f_noise_actor": {"policy"},
    "learner/o3f": {"agent"},
    "trainer/o3f": {"self", "optimization_stepper", "batch_size", "num_epochs", "async_collection"}
    | {"learner_backend", "learner_backend_options", "learner_poll_interval"},
}
ADDED = {"loss": {"gamma"}, "env": {"seed", "device"}}


def arguments(target: Any) -> dict[str, inspect.Parameter]:
    """The arguments of a class or function, those of the base class in the place of ``**kwargs``."""
    found = {name: one for name, one in inspect.signature(target).parameters.items() if one.kind != one.VAR_POSITIONAL}
    rest = [name for name, parameter in found.items() if parameter.kind is parameter.VAR_KEYWORD]
    for name in rest:
        del found[name]
        if isinstance(target := inspect.unwrap(target), type):
            found = arguments(target.__mro__[1]) | found if target.__mro__[1].__module__.startswith("o3f") else found
    return found


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(("group", "name"), NODES, ids=lambda value: value)
def test_the_fields_are_the_arguments_with_their_defaults(group: str, name: str) -> None:
    where, node = f"{group}/{name}", configs.GROUPS[group][name]
    fields = {each.name: each for each in dataclasses.fields(node) if each.name not in HYDRA}
    expected = arguments(get_object(node._target_))
    if where in FURTHER:
        expected = arguments(FURTHER[where]) | (expected if group != "env" else {})
    assert set(fields) - ADDED.get(group, set()) == set(expected) - NOT_GIVEN.get(where, set())
    for key in set(fields) & set(expected):
        default, found = expected[key].default, fields[key].default
        if found is dataclasses.MISSING:
            found = fields[key].default_factory()
        if default is inspect.Parameter.empty:
            assert found in (MISSING, None, 1, {}), key  # 1: frame_skip and optim_steps_per_batch of the Trainer
        elif not isinstance(default, dataclasses._MISSING_TYPE) and str(default) != "<factory>":
            assert plain(found) == plain(default), key
    assert issubclass(node, LossConfig if group == "loss" else ConfigBase)


NETWORKS = {
    "o3f_iql": {
        "actor_network": "o3f_gaussian_policy",
        "qvalue_network": "o3f_ensemble_qvalue",
        "value_network": "o3f_value",
    },
    "o3f_awac": {"actor_network": "o3f_gaussian_policy", "qvalue_network": "o3f_ensemble_qvalue"},
    "o3f_cql": {"actor_network": "o3f_tanh_gaussian_policy", "qvalue_network": "o3f_ensemble_qvalue"},
    "o3f_sac": {"actor_network": "o3f_tanh_gaussian_policy", "qvalue_network": "o3f_ensemble_qvalue"},
    "o3f_lapo": {
        "actor_network": "o3f_latent_actor",
        "encoder_network": "o3f_latent_encoder",
        "decoder_network": "o3f_latent_decoder",
        "qvalue_network": "o3f_ensemble_qvalue",
        "value_network": "o3f_value",
    },
}


def loss_config(name: str, *overrides: str, exploration: str = "o3f_optimistic_actor", more: Any = ()) -> Any:
    """A loss with all its networks, TorchRL's Adam and soft updates, and an actor."""
    groups = ["+loss@loss=" + name, "+optimizer@optimizer=adam", "+target_net_updater@targets=soft"]
    groups += [f"+model@loss.{place}={model}" for place, model in NETWORKS[name].items()]
    groups += [f"+exploration@exploration={exploration}", *more]
    sizes: list[str] = []
    for place, model in NETWORKS[name].items():
        fields = {each.name for each in dataclasses.fields(configs.GROUPS["model"][model])}
        for field, size in {"observation_dim": 3, "action_dim": 2, "latent_dim": 4}.items():
            sizes += [f"loss.{place}.{field}={size}"] if field in fields else []
        sizes.append(f"loss.{place}.hidden_sizes=[16,16]")
    with initialize(version_base="1.3", config_path=None):
        return compose(overrides=[*groups, *sizes, *overrides])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loss_trains_and_its_actor_acts_with_the_same_parameters(name: str) -> None:
    torch.manual_seed(0)
    config = loss_config(name, "loss.gamma=0.5", "targets.tau=0.25")
    loss = instantiate(config.loss)
    actor = instantiate(config.exploration)(policy=configs.policy_of(loss), critic=loss.critic)
    optimiser = instantiate(config.optimizer)(params=loss.parameters())
    targets = instantiate(config.targets)(loss)
    assert loss.value_estimator.gamma == 0.5
    assert isinstance(targets, SoftUpdate)
    before = {key: value.clone() for key, value in loss.state_dict().items() if "params" in key}
    batch = make_batch(32, seed=0)
    sum(value for key, value in loss(batch).items() if key.startswith("loss")).backward()
    optimiser.step()
    now = loss.state_dict()
    changed = {key.split(".")[0] for key, value in before.items() if not torch.equal(value, now[key])}
    trained = {f"{network}_params" for network in NETWORKS[name]}
    assert changed == trained
    targets.step()
    key = next(key for key in now if key.startswith("target_qvalue_network_params.weights"))
    online = now[key.removeprefix("target_")]
    torch.testing.assert_close(loss.state_dict()[key], before[key] + 0.25 * (online - before[key]))
    acted = actor(TensorDict({"observation": batch["observation"]}, [32]))["action"]
    own = {id(parameter) for parameter in loss.parameters()}
    assert all(id(parameter) in own for parameter in actor.critic.parameters())
    assert acted.shape == (32, 2)
    assert (acted.abs() <= 1).all()


def test_the_actor_s_parts_come_from_the_tree() -> None:
    parts = ["+candidates@exploration.sampler=o3f_latent", "+scorer@exploration.scorer=o3f_ucb"]
    parts += ["+selector@exploration.selector=o3f_softmax"]
    numbers = ["exploration.sampler.num_candidates=7", "exploration.scorer.omega=2.0"]
    config = loss_config("o3f_lapo", *numbers, "exploration.selector.temperature=0.5", more=parts)
    loss = instantiate(config.loss)
    actor = instantiate(config.exploration)(policy=configs.policy_of(loss), critic=loss.critic)
    assert isinstance(actor.policy, LatentPolicy)
    assert isinstance(actor.sampler, LatentCandidates)
    assert actor.sampler.decoder is actor.policy.decoder is loss.target_decoder_network
    assert actor.sampler.num_candidates == 7
    assert (actor.scorer.omega, actor.selector.temperature) == (2.0, 0.5)


def test_critics_as_a_list_keep_their_weights() -> None:
    """TorchRL's own losses redraw the weights of one configured critic; ours also take a list, here of TorchRL's."""
    config = loss_config("o3f_iql")
    critic = {
        "_target_": "torchrl.modules.ValueOperator",
        "module": {"_target_": "torchrl.modules.MLP", "in_features": 5, "out_features": 1, "num_cells": [8]},
        "in_keys": ["observation", "action"],
    }
    critic["module"]["activation_class"] = {"_target_": "hydra.utils.get_class", "path": "torch.nn.ReLU"}
    OmegaConf.set_struct(config, False)
    config.loss.qvalue_network = [critic, critic]
    torch.manual_seed(1)
    loss = instantiate(config.loss)
    assert loss.critic.num_critics == 2
    bound = 5**-0.5  # of torch's own initialisation
    assert loss.critic.weights[0].abs().max() <= bound
    assert loss.critic.weights[0].abs().max() > 0.8 * bound
    assert not torch.equal(loss.critic.weights[0][0], loss.critic.weights[0][1])


def test_an_actor_collects_in_torchrl_s_own_environment_and_collector() -> None:
    groups = [
        "+collector@collector=sync",
        "+env@collector.create_env_fn=gym",
        "+exploration@actor=o3f_optimistic_actor",
    ]
    groups += ["+model@policy=o3f_gaussian_policy", "+model@critic=o3f_ensemble_qvalue"]
    sizes = [f"{each}.{size}" for each in ("policy", "critic") for size in ("observation_dim=3", "action_dim=1")]
    run = ["frames_per_batch=6", "total_frames=6", "auto_register_policy_transforms=false", "_partial_=true"]
    run += ["create_env_fn.env_name=Pendulum-v1"]
    numbers = [*sizes, *(f"collector.{each}" for each in run), "actor.num_candidates=9", "actor.return_candidates=true"]
    with initialize(version_base="1.3", config_path=None):
        config = compose(overrides=[*groups, *numbers])
    actor = instantiate(config.actor)(policy=instantiate(config.policy), critic=instantiate(config.critic))
    (batch,) = list(instantiate(config.collector)(policy=actor))
    best = batch["scores"].argmax(-1, keepdim=True)
    assert batch["candidates"].shape == (6, 9, 1)
    assert torch.equal(batch["action"], batch["candidates"][..., 0].gather(-1, best))


@pytest.mark.parametrize("name", configs.GROUPS["exploration"])
def test_both_actors_are_called_alike(name: str) -> None:
    config = loss_config("o3f_iql", "exploration.sigma=0.3", exploration=name)
    loss = instantiate(config.loss)
    actor = instantiate(config.exploration)(policy=loss.actor_network, critic=loss.critic)
    assert actor.sampler.sigma == torch.tensor(0.3)
    assert actor.policy is loss.actor_network


def test_lapo_s_loss_is_fitted_to_the_dataset() -> None:
    rows = make_batch(40, seed=3)
    loss = instantiate(loss_config("o3f_lapo").loss)
    measure_dataset(None, loss, rows)
    normaliser = loss.actor_network.module.normaliser
    torch.testing.assert_close(normaliser.loc, rows["observation"].mean(0))
    assert loss.value_clamp.reward_max == rows["next", "reward"].max()


def test_a_trainer_wants_a_learner_or_a_whole_loss() -> None:
    given: dict[str, Any] = {"collector": None, "replay_buffer": []}
    loss = {"loss_module": 1, "optimizer": 2, "target_net_updater": 3}
    for parts in ({}, {"learner": 1, "optimizer": 2}, {"learner": 1, **loss}, {"loss_module": 1, "optimizer": 2}):
        with pytest.raises(ConfigError, match="give either learner, or all of"):
            configs.make_trainer(**given, **parts)
    with pytest.raises(ConfigError, match="more than 1 needs a learner"):
        configs.make_trainer(**given, **loss, updates_per_step=2)


def test_workers_of_one_environment_are_seeded_apart() -> None:
    """Of a real collector: two workers of one environment began all their episodes in the same states."""
    one, other = (configs.make.gym_env(id="Pendulum-v1", seed=seed) for seed in (7, 8))
    for envs, expected in (([one, one, one], [7]), ([one, other], []), ([one], []), (one, [])):
        seeds: list[int] = []
        collector: Any = SimpleNamespace(create_env_fn=envs, set_seed=seeds.append)
        assert seeded_apart(collector) is collector
        assert seeds == expected


def test_a_file_is_a_replay_buffer_in_the_units_of_its_environment(tmp_path: Path) -> None:
    steps = 12
    columns: dict[str, Any] = {name: np.zeros(steps, bool) for name in ("terminals", "timeouts")}
    columns["timeouts"][[5, 11]] = True
    columns["observations"] = np.arange(3 * steps, dtype=np.float32).reshape(steps, 3) % 7 / 10
    columns["actions"] = np.linspace(-2, 2, steps, dtype=np.float32).reshape(steps, 1)
    columns["rewards"] = -np.arange(steps, dtype=np.float32)
    np.savez(tmp_path / "pendulum.npz", **columns)
    config = OmegaConf.structured(configs.GROUPS["replay_buffer"]["o3f_file"])
    config.merge_with({"path": str(tmp_path / "pendulum.npz"), "env": {"id": "Pendulum-v1"}, "check": False})
    config.merge_with({"reward": {"scale": 0.5}, "online_capacity": 4, "batch_size": 3})
    buffer = instantiate(config)
    row = buffer[2]
    torch.testing.assert_close(row["action"], torch.tensor([columns["actions"][2, 0] / 2]))  # Pendulum's bound is 2
    assert row["next", "reward"].item() == -1.0
    assert buffer.sample().shape == (3,)
    buffer.extend(buffer[:1].clone())
    assert len(buffer) == buffer.sampler.num_offline + 1


def test_nested_keys_are_lists_in_yaml() -> None:
    config = OmegaConf.structured(configs.GROUPS["model"]["o3f_ensemble_qvalue"])
    config.merge_with({"observation_dim": 3, "action_dim": 2, "in_keys": [["robot", "state"], "action"]})
    config.out_key = ["robot", "value"]
    critic = instantiate(config)
    batch = TensorDict({"robot": {"state": torch.zeros(4, 3)}, "action": torch.zeros(4, 2)}, [4])
    assert critic(batch)["robot", "value"].shape == (4, 5)


def imported_by(file: Path) -> set[str]:
    """The modules that a file imports when it is imported."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_core_imports_neither_hydra_nor_the_trainers() -> None:
    package = Path(o3f.__file__).parent
    seen: set[str] = set()
    waiting = {"o3f", *(f"o3f.{room}" for room in o3f._ROOMS)}  # imported when they are used
    while waiting:
        name = waiting.pop()
        seen.add(name)
        path = package.parent / name.replace(".", "/")
        files = [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()]
        waiting |= {each for file in files for each in imported_by(file)} - seen
    assert "o3f.modules.ensemble" in seen
    assert "torchrl.data" in seen
    assert not [name for name in seen if name.startswith(("hydra", "torchrl.trainers", "o3f.training.torchrl"))]
