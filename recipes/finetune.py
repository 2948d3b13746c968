"""Online fine-tuning: python recipes/finetune.py task=hopper/medium exploration=optimistic seed=0.

The whole method is the loop of :func:`finetune`: the actor picks what is executed, the executed action is stored,
and the update is the one used offline.
"""

from __future__ import annotations

from o3f.cli.recipe import answer_first, recipe

if __name__ == "__main__":
    answer_first("finetune", __file__)  # before the imports below, which take seconds

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tensordict import TensorDictBase

from o3f.cli.commands import command
from o3f.collection import make_collection
from o3f.data import RewardRule
from o3f.envs.seeds import seed_streams
from o3f.figures.quantities import what_changed
from o3f.runs.counters import Counters
from o3f.runs.folder import RunFolder
from o3f.training import build
from o3f.training.best import BestAgent
from o3f.training.checks import check_online
from o3f.training.compiling import settle_compile
from o3f.training.loop import Training
from o3f.training.start import online_rows_of, own_agent, record_agent, start_learner


@recipe("finetune")
def main(config: DictConfig) -> None:
    """Fine-tune, unless it is done already, and say what to do next."""
    check_online(config)
    path, scores = finetune_in_folder(config)
    print(f"Fine-tuned: {path}: {scores}")
    print(what_changed(path))
    print(f"Next: {command('evaluate', f'run={path}', 'episodes=100')}")
    print(f"      tensorboard --logdir {config.runs}")


def finetune_in_folder(config: DictConfig) -> tuple[Path, dict[str, Any]]:
    """Fine-tune in the configuration's run folder, unless it is done already. Returns folder and final scores."""
    config = settle_compile(config)
    with RunFolder.open(config) as run:
        if run.scores is None:
            run.finish(finetune(config, run))
        else:
            print(f"{run.path} is finished already; there is nothing left to do.")
        return run.path, run.scores or {}


def finetune(config: DictConfig, run: RunFolder) -> dict[str, Any]:
    """Act, store what was executed, update as offline; evaluate and save at times. Returns the final scores."""
    online, agent = config.online, own_agent(config)
    learner = build.learner(config, agent)
    actor = build.actor(config, learner)
    schedule = build.schedule(config, learner, actor)
    build.change_objective(learner, actor, config)
    mixing = {"online_fraction": online.online_fraction, "balanced": online.replay == "balanced"}
    folder = run.path / "storage"
    buffer, reward_rule, facts = build.buffer(config, folder=folder, online_capacity=online.steps, **mixing)
    run.record_environment(**facts, **record_agent(run.path, agent))

    counters = Counters()
    saved_too: Any = {"buffer": online_rows_of(buffer), "state": counters}
    best = BestAgent(run.path / "best", config.evaluation.patience)
    training = Training(config, "online", run, learner, buffer, reward_rule, counters, saved_too, best)
    if not training.resume():
        start_learner(learner, agent, buffer, config, facts)
        seed_streams(config.seed + 1)  # others than those of initial weights and offline batches
    schedule.step(training.step)
    with training, make_collection(build.collection(config), actor, counters, buffer) as collection:
        for episode, transition, may_save, failed in collection:
            step, ended = training.next_step(), bool(transition["next", "done"])
            if failed:  # the environment did: there is nothing to learn from in this step
                episode.cut(buffer)
                training.logger.log(step, {"rollout/failures": counters.failures})
            else:
                buffer.extend(with_rule(transition, reward_rule, episode.total))
                episode.add(float(transition["next", "reward"]), buffer.write_count)
                if ended:
                    episode.close(buffer)
            schedule.step(step)
            if not failed and step > max(online.random_steps, online.warmup_steps):
                training.update([buffer.sample().to(config.device) for _ in range(online.updates_per_step)])
            counters.episode += ended
            training.end_step(ended=episode.metrics() if ended and not failed else None, may_save=may_save)
    return training.scores


def with_rule(transition: TensorDictBase, rule: RewardRule, before: float) -> TensorDictBase:
    """Return the transition with the reward that the learner sees; ``before`` is what the episode had until then."""
    reward = rule.online(transition["next", "reward"], before)
    return transition.copy().set(("next", "reward"), reward)


if __name__ == "__main__":
    main()
