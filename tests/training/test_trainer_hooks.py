"""TorchRL's Trainer with our stepper and hook is the recipes' loop, to the last bit."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from tensordict import TensorDict
from torchrl.checkpoint import Checkpoint, GlobalRNGState
from torchrl.collectors import Collector
from torchrl.data import ReplayBuffer
from torchrl.objectives import SoftUpdate
from torchrl.trainers import Trainer
from torchrl.trainers.trainers import DefaultOptimizationStepper, TargetNetUpdaterHook

from o3f.algorithms import Learner
from o3f.data import RewardRule, make_buffer, online_rows
from o3f.envs import make_env
from o3f.envs.seeds import seed_streams
from o3f.modules import EnsembleQValue, gaussian_policy, value_network
from o3f.objectives import IQLLoss
from o3f.training import build
from o3f.training.exploration import make_actor
from o3f.training.torchrl.hooks import JointStepper, LearnerStepper, OfflineOnlineHook
from tests.support.iql_cases import make_batch
from tests.support.recipe_runs import TINY, part, run, same, settings

STEPS = 52  # more than an episode of Reacher
LEARNERS = {"iql": [], "lapo": ["algorithm.updates_per_step=3"]}


def configured(algorithm: str) -> list[str]:
    return [*TINY, f"algorithm={algorithm}", "pretrained=none", f"online.steps={STEPS}", *LEARNERS[algorithm]]


def make_trainer(config: DictConfig, steps: int = STEPS, **options: Any) -> tuple[Trainer, Learner, OfflineOnlineHook]:
    """The objects of a fine-tuning run, in TorchRL's Trainer instead of the recipe's loop."""
    learner = build.learner(config)
    actor = make_actor(learner.policy, learner.critic, config.exploration, learner.policy.spec["action"])
    buffer, rule, _ = build.buffer(config, online_capacity=config.online.steps)
    learner.prepare(buffer[:])
    env = make_env(build.env_config(config), seed=config.seed)
    quiet: dict[str, Any] = {"track_traj_ids": False, "auto_register_policy_transforms": False}
    trainer = Trainer(
        collector=Collector(env, actor, frames_per_batch=1, total_frames=steps, **quiet),
        total_frames=steps,
        frame_skip=1,
        optim_steps_per_batch=1,
        loss_module=learner.loss,
        optimization_stepper=LearnerStepper(learner),
        progress_bar=False,
        **options,
    )
    hook = OfflineOnlineHook(buffer, updates_per_step=config.online.updates_per_step, reward=rule)
    hook.register(trainer)
    return trainer, learner, hook


@pytest.mark.parametrize("algorithm", LEARNERS)
def test_the_trainer_is_the_recipe(place: Path, algorithm: str) -> None:
    folder = run("finetune", *configured(algorithm))
    trainer, learner, hook = make_trainer(settings("finetune", *configured(algorithm)))
    seed_streams(1)
    trainer.train()
    saved = part(folder, "learner")
    assert learner.updates >= STEPS
    assert same(dict(learner.loss.state_dict()), saved["loss"])
    assert same(learner.state_dict()["optimisers"], saved["optimisers"])
    assert same(online_rows(hook.buffer)["rows"], part(folder, "buffer")["rows"])


def test_a_checkpoint_of_the_trainer_holds_learner_and_rows(place: Path) -> None:
    config = settings("finetune", *configured("lapo"))

    def fresh() -> tuple[Trainer, Learner, OfflineOnlineHook]:
        checkpoint = Checkpoint()
        checkpoint.register("rng", GlobalRNGState())
        return make_trainer(config, 10, checkpoint=checkpoint, save_trainer_file=place / "trainer")

    trainer, learner, hook = fresh()
    trainer.train()
    restored, same_learner, same_hook = fresh()
    assert not same(same_learner.state_dict(), learner.state_dict())
    restored.load_from_file(place / "trainer")
    assert restored.collected_frames == 10
    assert same(same_learner.state_dict(), learner.state_dict())
    assert same(same_hook.state_dict(), hook.state_dict())
    state = torch.get_rng_state()
    trainer.optim_steps(None)
    torch.set_rng_state(state)
    restored.optim_steps(None)
    assert learner.updates == 33
    assert same(same_learner.state_dict(), learner.state_dict())
    held = {path.name for path in (place / "trainer").rglob("*")}
    assert not any("pkl" in name or name.endswith(".pt") for name in held), held


def toy_loss() -> IQLLoss:
    torch.manual_seed(0)
    return IQLLoss(gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, 5, (8,)), value_network(3, (8,)))


class Transitions:
    """Gives the same transitions as a collector would, one by one."""

    init_random_frames = 0

    def __init__(self, rows: TensorDict) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return iter(self.rows.split(1))

    def shutdown(self) -> None:
        pass


def toy_trainer(buffer: ReplayBuffer, rows: TensorDict, loss: IQLLoss, **options: Any) -> Trainer:
    made = {"frame_skip": 1, "optim_steps_per_batch": 1, "progress_bar": False, "total_frames": len(rows)}
    return Trainer(collector=Transitions(rows), loss_module=loss, **made, **options)


def rows_of(count: int, seed: int) -> TensorDict:
    batch = make_batch(count, seed=seed)
    batch["next", "truncated"] = torch.zeros(count, 1, dtype=torch.bool)
    batch["next", "done"] = batch["next", "terminated"].clone()
    return batch


@pytest.mark.parametrize("stepper", [DefaultOptimizationStepper, JointStepper])
def test_the_default_stepper_and_soft_update_train_a_loss(stepper: type[DefaultOptimizationStepper]) -> None:
    """One optimiser and TorchRL's target updater, against the loop in the README."""
    offline, online = rows_of(20, 1), rows_of(5, 2)
    losses = toy_loss(), toy_loss()
    adams = [torch.optim.Adam(loss.parameters(), lr=1e-2) for loss in losses]
    targets = [SoftUpdate(loss, tau=0.1) for loss in losses]
    buffer = make_buffer(offline, online_capacity=5, batch_size=8)
    trainer = toy_trainer(buffer, online, losses[0], optimizer=adams[0], optimization_stepper=stepper())
    OfflineOnlineHook(buffer).register(trainer)
    trainer.register_op("post_optim", TargetNetUpdaterHook(targets[0]))
    torch.manual_seed(3)
    trainer.train()
    kept = [value for values in trainer._log_dict.values() for value in values if isinstance(value, torch.Tensor)]
    assert len(kept) == 5 * 5  # three losses, the entropy and the norm of the gradient
    assert any(value.requires_grad for value in kept) == (stepper is DefaultOptimizationStepper)

    torch.manual_seed(3)
    buffer = make_buffer(offline, online_capacity=5, batch_size=8)
    start = deepcopy(losses[1].state_dict())
    for transition in online.split(1):
        buffer.extend(transition)
        sum(value for key, value in losses[1](buffer.sample()).items() if key.startswith("loss")).backward()
        adams[1].step()
        adams[1].zero_grad()
        targets[1].step()
    found, expected = (loss.state_dict() for loss in losses)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert all(not torch.equal(start[key], value) for key, value in found.items() if "params" in key and "0" in key)


def test_rewards_follow_the_rule_and_failures_end_their_episode() -> None:
    buffer = make_buffer(rows_of(4, 1), online_capacity=8, batch_size=2)
    rows = rows_of(5, 2)
    raw = rows["next", "reward"].clone()
    rows["next", "reward"][2] = torch.nan
    rows["next", "done"].zero_()
    rows["next", "terminated"].zero_()
    kept = rows.clone()
    hook = OfflineOnlineHook(buffer, reward=RewardRule(scale=2.0, shift=-1.0))
    hook.extend(rows)
    stored = buffer[4:]
    left = torch.tensor([0, 1, 3, 4])
    assert torch.equal(stored["next", "reward"], 2 * raw[left] - 1)
    assert torch.equal(stored["action"], rows["action"][left])
    assert stored["next", "truncated"].flatten().tolist() == [False, True, False, False]
    assert same(rows["observation"], kept["observation"])
    whole = rows[3:]
    hook.extend(whole)
    assert torch.equal(buffer[8:]["next", "reward"], 2 * raw[3:] - 1)
    for batch, first in ((whole, 3), (rows[:2], 0)):  # the collector's batches are not changed
        assert torch.equal(batch["next", "reward"], raw[first : first + 2])


def test_a_running_sum_belongs_to_the_environment() -> None:
    buffer = make_buffer(rows_of(4, 1), online_capacity=8, batch_size=2)
    with pytest.raises(ValueError, match=r"make_env\(reward=\.\.\.\), and None here"):
        OfflineOnlineHook(buffer, reward=RewardRule(running_sum=True))


def test_offline_steps_come_first_one_batch_each_and_once() -> None:
    drawn: list[Any] = []

    class Counting(LearnerStepper):
        def __init__(self) -> None:
            pass

        def step(self, trainer: Any, sub_batch: Any) -> Any:
            drawn.append((tuple(sub_batch.shape), trainer.collected_frames))
            return TensorDict({"loss": torch.zeros(())})

        def register(self, trainer: Any, name: str = "") -> None:
            pass

    def trainer(hook: OfflineOnlineHook) -> Trainer:
        made = toy_trainer(hook.buffer, rows_of(2, 2), toy_loss(), optimization_stepper=Counting())
        hook.register(made)
        return made

    hook = OfflineOnlineHook(make_buffer(rows_of(6, 1), online_capacity=4, batch_size=3), updates_per_step=2)
    hook.offline_steps = 3
    trainer(hook).train()
    assert drawn == [((3,), 0)] * 3 + [((2, 3), 1), ((2, 3), 2)]
    drawn.clear()
    again = OfflineOnlineHook(make_buffer(rows_of(6, 1), online_capacity=4, batch_size=3), offline_steps=3)
    again.load_state_dict(hook.state_dict())
    trainer(again).train()
    assert drawn == [((3,), 1), ((3,), 2)]


@pytest.mark.parametrize("options", [{"updates_per_step": 0}, {"offline_steps": -1}])
def test_impossible_numbers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be a whole number of at least"):
        OfflineOnlineHook(make_buffer(rows_of(4, 1)), **options)
