"""Online fine-tuning: python recipes/finetune.py task=hopper/medium exploration=optimistic seed=0.

The whole method is the loop of :func:`finetune`: the actor picks what is executed, the executed action is stored,
and the update is the one used offline.
"""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tensordict import TensorDictBase

from o3f.cli.commands import command
from o3f.cli.progress import Progress, Stopwatch
from o3f.cli.recipe import recipe
from o3f.cli.signals import StopSignals
from o3f.collection import make_collection
from o3f.data import RewardRule, online_rows, restore_online
from o3f.runs.folder import RunFolder
from o3f.runs.identity import plain
from o3f.runs.logger import RunLogger
from o3f.runs.stateful import StateOf
from o3f.training import build
from o3f.training.best import BestAgent
from o3f.training.checks import check_online
from o3f.training.exploration import make_actor
from o3f.training.guard import Guard
from o3f.training.lanes import Run, Update, complete, lane_configs
from o3f.training.reporting import evaluate_and_log, evaluate_policy
from o3f.training.start import own_agent, record_agent, start_learner
from o3f.training.weight_watch import WeightWatch


@recipe("finetune")
def main(config: DictConfig) -> None:
    """Fine-tune, unless it is done already, and say what to do next."""
    check_online(config)
    for path, scores in complete([finetune_in_folder(each) for each in lane_configs(config)]):
        print(f"Fine-tuned: {path}: {scores}")
        print(f"Next: {command('evaluate', f'run={path}', 'episodes=100')}")
    print(f"      tensorboard --logdir {config.runs}")


def finetune_in_folder(config: DictConfig) -> Run[tuple[Path, dict[str, Any]]]:
    """Fine-tune in the configuration's run folder, unless it is done already. Returns folder and final scores."""
    with RunFolder.open(config) as run:
        if run.scores is None:
            run.finish((yield from finetune(config, run)))
        else:
            print(f"{run.path} is finished already; there is nothing left to do.")
        return run.path, run.scores or {}


def finetune(config: DictConfig, run: RunFolder) -> Run[dict[str, Any]]:
    """Act, store what was executed, update as offline; evaluate and save at times. Returns the final scores."""
    online = config.online
    agent = own_agent(config)
    learner = build.learner(config, agent)
    actor = make_actor(learner.policy, learner.critic, config.exploration, learner.policy.spec["action"])
    schedule = build.schedule(config, learner, actor)
    build.change_objective(learner, actor, config)
    buffer, reward_rule, facts = build.buffer(
        config,
        online_capacity=online.steps,
        online_fraction=online.online_fraction,
        folder=run.path / "storage",
    )
    run.record_environment(**facts, **record_agent(run.path, agent))

    state = {"step": 0, "episode": 0, "saved": 0}
    rows = StateOf(lambda: online_rows(buffer), lambda saved: restore_online(buffer, saved))
    best = BestAgent(run.path / "best", config.evaluation.patience)
    components = {"learner": learner, "buffer": rows, "state": state, "best": best}
    resumed = run.load(components)
    if not resumed:
        yield from start_learner(learner, agent, buffer, config, facts)
        build.seed_streams(config.seed + 1)  # others than those of initial weights and offline batches
    guard = Guard(learner, config.guard, run.path / "nonfinite", buffer, config.algorithm.discount)
    weights = WeightWatch(learner)

    done = state["step"]
    scores: dict[str, Any] = {}
    logger = RunLogger(run.path, done or None, settings=plain(config))
    with (
        logger,
        Progress(f"online {run.path}", online.steps, done, config.progress) as progress,
        StopSignals() as stop,
        make_collection(config, actor, state, buffer) as collection,
    ):
        if not resumed:
            scores = evaluate_and_log(logger, progress, 0, learner, config, reward_rule)
            best.update(0, scores, learner)
        clock = Stopwatch()
        schedule.step(done)
        for episode, transition, may_save in collection:
            step = state["step"] = state["step"] + 1
            reward = float(transition["next", "reward"])
            if stored := not isnan(reward):
                buffer.extend(with_rule(transition, reward_rule))
                episode.add(reward, buffer.write_count)
            else:  # the environment failed: there is nothing to learn from in this step
                episode.cut(buffer)
                logger.log(step, {"rollout/failures": state["failures"]})
            schedule.step(step)
            metrics: dict[str, Any] = {}
            if stored and step > max(online.random_steps, online.warmup_steps):
                batches = [buffer.sample().to(config.device) for _ in range(online.updates_per_step)]
                guard.watch(batches)
                metrics = yield Update(learner, batches, report=step % online.log_every == 0)
                guard.check(step)
            progress.advance()

            if step % online.log_every == 0:
                metrics |= guard.check_values(step)
                weights.check(step, metrics)
                logger.log(step, {f"train/{tag}": value for tag, value in metrics.items()})
                logger.log_time(step, {"time/steps_per_second": clock.rate(min(online.log_every, step - done))})
            if step % online.evaluate_every == 0 or step == online.steps:
                with clock.paused():
                    scores = evaluate_and_log(logger, progress, step, learner, config, reward_rule)
                best.update(step, scores, learner)
            if bool(transition["next", "done"]):
                if stored:
                    logger.log(step, {"rollout/return": episode.total, "rollout/length": episode.length})
                state["episode"] += 1
            if step == online.steps or (may_save and step - state["saved"] >= online.checkpoint_every):
                state["saved"] = step
                logger.flush()
                guard.keep()
                run.save(step, components, last=step == online.steps)
            stop.check(step, run.saved)
    return scores or {"step": online.steps, **evaluate_policy(learner.policy, config)}


def with_rule(transition: TensorDictBase, rule: RewardRule) -> TensorDictBase:
    """Return the transition with the reward that the learner sees."""
    transition = transition.copy()
    transition["next"] = transition["next"].copy().set("reward", rule(transition["next", "reward"]))
    return transition


if __name__ == "__main__":
    main()
