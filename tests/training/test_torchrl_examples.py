"""The examples of docs/torchrl.md run on a real dataset and do what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.envs.mujoco.reacher_v5 import ReacherEnv
from hydra import compose, initialize_config_dir
from tensordict import TensorDict
from torchrl.trainers import Trainer

from o3f.training.torchrl.hooks import OfflineOnlineHook
from tests.support.recipe_runs import ROOT

EXAMPLES = ROOT / "docs/examples"
REACHER = ["env_id=Reacher-v5", "dataset=me/reacher-v0", "observation_dim=10", "action_dim=2", "hidden_sizes=[16,16]"]
SHORT = ["trainer.total_frames=60", "trainer.offline_steps=30", "trainer.replay_buffer.batch_size=16"]
RULE = "trainer.replay_buffer.reward={scale: 0.5, shift: -1.0}"


def module_of(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def from_yaml(name: str) -> Trainer:
    main = module_of(EXAMPLES / "torchrl_hydra/main.py")
    faster = ["trainer.updates_per_step=3"] if name == "lapo" else ["trainer.log_interval=0"]
    with initialize_config_dir(version_base="1.3", config_dir=str(EXAMPLES / "torchrl_hydra")):
        config = compose(name, overrides=[*REACHER, *SHORT, *faster, RULE])
    return main.build(config)


def from_python() -> Trainer:
    sizes = {"offline_steps": 30, "online_steps": 15, "hidden_sizes": (16, 16)}
    return module_of(EXAMPLES / "torchrl_trainer.py").build("Reacher-v5", "me/reacher-v0", **sizes)


BUILD = {"iql": lambda: from_yaml("iql"), "lapo": lambda: from_yaml("lapo"), "python": from_python}


@pytest.mark.parametrize("example", BUILD)
def test_an_example_trains_and_stores_what_was_executed(
    place: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    executed: list[tuple[torch.Tensor, float]] = []
    step = ReacherEnv.step

    def recorded(env: Any, action: Any) -> Any:
        result = step(env, action)
        executed.append((torch.as_tensor(action, dtype=torch.float32).clone(), float(result[1])))
        return result

    torch.manual_seed(0)
    trainer = BUILD[example]()
    actor, loss, hook = trainer.collector.policy, trainer.loss_module, trainer._modules["offline_online"]
    assert isinstance(hook, OfflineOnlineHook)
    before = {key: value.clone() for key, value in loss.state_dict().items() if "params" in key}
    monkeypatch.setattr(ReacherEnv, "step", recorded)
    trainer.train()

    steps = trainer.total_frames
    assert len(hook.buffer) == 300 + steps
    assert torch.equal(hook.buffer[300:]["action"], torch.stack([action for action, _ in executed[-steps:]]))
    rewards = torch.tensor([[reward] for _, reward in executed[-steps:]])
    ruled = rewards if example == "python" else 0.5 * rewards - 1.0
    torch.testing.assert_close(hook.buffer[300:]["next", "reward"], ruled)
    assert len(trainer._log_dict["optim_steps"]) == 30 + steps
    logged = torch.stack([torch.stack(values) for key, values in trainer._log_dict.items() if key.startswith("loss")])
    assert logged.isfinite().all()
    after = loss.state_dict()
    assert any(key.startswith("target_") for key in before)
    fixed = [key for key, value in before.items() if torch.equal(value, after[key])]
    assert not [key for key in fixed if not key.endswith(("loc", "scale"))], fixed  # statistics of the dataset

    if example != "iql":
        shown = hook.buffer[:300]["observation"].mean(0)
        torch.testing.assert_close(after["value_network_params.module.0.loc"], shown)  # measured on the dataset

    states = TensorDict({"observation": hook.buffer[:]["observation"]}, [300 + steps])
    torch.manual_seed(1)
    chosen = actor(states.clone())
    torch.manual_seed(1)  # the same sample of the policy, the centre of the candidates
    centre = actor.policy(states.clone())
    values = [loss.critic(acted)["state_action_value"].mean(-1) for acted in (chosen, centre)]
    assert (values[0] >= values[1]).float().mean() > 0.97
    assert (values[0] > values[1]).float().mean() > 0.85  # equal where both are in a corner of the box
    if example == "iql":
        assert [line for line in next(place.rglob("loss_qvalue.csv")).read_text().splitlines() if line]
    if example == "python":
        restored = BUILD[example]().load_from_file(place / "trainer")
        assert all(map(torch.equal, restored.loss_module.state_dict().values(), loss.state_dict().values()))


def test_the_page_shows_the_examples_as_they_are() -> None:
    page = (ROOT / "docs/torchrl.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- from (\S+) -->\n```\w+\n(.*?)```", page, re.DOTALL)
    assert len(shown) >= 3
    for name, code in shown:
        source = "".join((EXAMPLES / name).read_text(encoding="utf-8").split())
        for line in code.splitlines():
            assert "".join(line.split()) in source, f"{name}: {line}"
