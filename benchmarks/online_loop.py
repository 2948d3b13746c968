"""HalfCheetah-v5 through the collection that recipes/finetune.py makes: collecting alone, and the whole loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig

from o3f.collection import make_collection
from o3f.data import make_buffer
from o3f.runs.counters import Counters
from o3f.training import build
from o3f.training.exploration import make_actor
from recipes.finetune import with_rule

from .data import BATCH, transitions
from .ours import learner_for, rows_of

Cases = dict[str, Callable[[], int]]
STEPS = 100_000_000  # never reached
CAPACITY = 100_000


def settings(exploration: str) -> DictConfig:
    """What recipes/finetune.py would be given."""
    folder = str(Path(__file__).resolve().parents[1] / "conf")
    overrides = ["task=halfcheetah/random", "dataset=none", "pretrained=none"]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=folder):
        return hydra.compose("finetune", [*overrides, f"exploration={exploration}", f"online.steps={STEPS}"])


def stepper(exploration: str, updates: int) -> tuple[Callable[[], int], Callable[[], int]]:
    """One step of the loop of recipes/finetune.py, and its updates alone (each counts as a step)."""
    config = settings(exploration)
    torch.manual_seed(0)
    learner = learner_for("iql5")
    policy: Any = learner.policy
    actor = make_actor(policy, learner.critic, config.exploration, policy.spec["action"])
    buffer = make_buffer(rows_of(transitions()), online_capacity=CAPACITY, batch_size=BATCH)
    rule = build.reward_rule(config)
    schedule = build.schedule(config, learner, actor)
    counters = Counters()
    steps = iter(make_collection(build.collection(config), actor, counters, buffer))

    def update() -> int:
        learner.update([buffer.sample().to(config.device) for _ in range(updates)])
        return updates

    def step() -> int:
        episode, transition, ended, _ = next(steps)
        counters.step += 1
        buffer.extend(with_rule(transition, rule, episode.total))
        episode.add(float(transition["next", "reward"]), buffer.write_count)
        schedule.step(counters.step)
        if updates:
            update()
        counters.episode += ended
        return updates or 1

    return step, update


def collection() -> Cases:
    """Environment, selection and insertion, without updates: with O3F's actor and with the plain policy."""
    return {"O3F": stepper("optimistic", 0)[0], "plain policy": stepper("policy", 0)[0]}


def loop() -> Cases:
    """Updates in the whole loop and alone, in time an update, IQL with five critics."""
    cases = {}
    for updates in (1, 20):
        cases[f"loop, {updates} a step"], cases[f"learner, {updates} a step"] = stepper("optimistic", updates)
    return cases
