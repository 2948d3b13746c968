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
from tensordict.nn import TensorDictModuleBase
from torchrl.checkpoint import GlobalRNGState
from torchrl.collectors import Collector
from torchrl.envs import InitTracker, TransformedEnv

from o3f import build
from o3f.best import BestAgent
from o3f.commands import command
from o3f.config import recipe
from o3f.data import RewardRule, end_episode, online_rows, restore_online
from o3f.envs import make_env
from o3f.exploration import make_actor
from o3f.guard import Guard
from o3f.lanes import Run, Update, complete, lane_configs
from o3f.logging import RunLogger
from o3f.progress import Progress, Stopwatch
from o3f.reporting import evaluate_and_log, evaluate_policy
from o3f.run_checks import check_online
from o3f.run_config import plain
from o3f.runs import RunFolder
from o3f.signals import StopSignals
from o3f.start import own_agent, record_agent, start_learner
from o3f.stateful import StateOf


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
    collector = make_collector(config, actor, state)
    guard = Guard(learner, config.guard, run.path / "nonfinite", buffer, config.algorithm.discount)

    done = state["step"]
    scores: dict[str, Any] = {}
    logger = RunLogger(run.path, done or None, settings=plain(config))
    with logger, Progress(f"online {run.path}", online.steps, done, config.progress) as progress, StopSignals() as stop:
        if not resumed:
            scores = evaluate_and_log(logger, progress, 0, learner, config, reward_rule)
            best.update(0, scores, learner)
        clock = Stopwatch()
        episode_return, episode_length = 0.0, 0
        schedule.step(done)
        for transition in collector:
            step = state["step"] = state["step"] + 1
            reward = float(transition["next", "reward"])
            if stored := not isnan(reward):
                buffer.extend(with_rule(transition, reward_rule))
                episode_return += reward
                episode_length += 1
            else:  # the environment failed: there is nothing to learn from in this step
                end_episode(buffer)
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
                logger.log(step, {f"train/{tag}": value for tag, value in metrics.items()})
                logger.log_time(step, {"time/steps_per_second": clock.rate(min(online.log_every, step - done))})
            if step % online.evaluate_every == 0 or step == online.steps:
                with clock.paused():
                    scores = evaluate_and_log(logger, progress, step, learner, config, reward_rule)
                best.update(step, scores, learner)
            ended = bool(transition["next", "done"])
            if ended:
                logger.log(step, {"rollout/return": episode_return, "rollout/length": episode_length})
                state["episode"] += 1
                episode_return, episode_length = 0.0, 0
            # Only at episode ends, so that a resumed run needs no state of the environment.
            if step == online.steps or (ended and step - state["saved"] >= online.checkpoint_every):
                state["saved"] = step
                logger.flush()
                guard.keep()
                run.save(step, components, last=step == online.steps)
            stop.check(step, run.saved)
    collector.shutdown()
    return scores or {"step": online.steps, **evaluate_policy(learner.policy, config)}


def make_collector(config: DictConfig, actor: TensorDictModuleBase, state: dict[str, int]) -> Collector:
    """One environment, acting with the newest policy and critics, from the next episode on."""
    streams = GlobalRNGState().state_dict()
    env = make_env(
        build.env_config(config),
        seed=config.seed,
        first_episode=state["episode"],
        max_failures=config.online.max_env_failures,
        counters=state,
    )
    if "is_init" in actor.in_keys:
        env = TransformedEnv(env, InitTracker())
    collector = Collector(
        env,
        actor,
        frames_per_batch=1,
        total_frames=config.online.steps - state["step"],
        init_random_frames=max(0, config.online.random_steps - state["step"]),
        policy_device=config.device,
        env_device="cpu",
        storing_device="cpu",
        track_traj_ids=False,
        auto_register_policy_transforms=False,
    )
    GlobalRNGState().load_state_dict(streams)  # building draws numbers, and must not in a run that goes on
    return collector


def with_rule(transition: TensorDictBase, rule: RewardRule) -> TensorDictBase:
    """Return the transition with the reward that the learner sees."""
    transition = transition.copy()
    transition["next"] = transition["next"].copy().set("reward", rule(transition["next", "reward"]))
    return transition


if __name__ == "__main__":
    main()
