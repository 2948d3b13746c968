"""Make a Minari dataset with the behaviour of a task: python recipes/collect.py task=halfcheetah/random.

Writes to $MINARI_DATASETS_PATH (default ~/.minari/datasets). Behaviours: random; npz (a Gaussian MLP policy);
run (the policy of a run folder); waypoint (AntMaze, with D4RL's relabelling for one goal).
"""

from __future__ import annotations

from o3f.cli.recipe import answer_first, recipe, require_range

if __name__ == "__main__":
    answer_first("collect", __file__)  # before the imports below, which take seconds

import contextlib
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tensordict.nn import TensorDictModuleBase

from o3f.cli.progress import Progress
from o3f.collection.behaviours import (
    Behaviour,
    BehaviourConfig,
    MinariWriter,
    make_behaviour,
    new_dataset_path,
    record,
)
from o3f.envs import check_interface, episode_seed, make_raw_env
from o3f.envs.wrappers import Env
from o3f.evaluation.episodes import normalised_score
from o3f.runs.identity import plain
from o3f.training import build
from o3f.training.load import load_run
from o3f.training.task_checks import check_task


@recipe("collect")
def main(config: DictConfig) -> None:
    """Record episodes, write them, and say what they hold."""
    require_range(config, "steps", "[1, inf)", integer=True)
    check_task(config)
    task, start = config.task, time.monotonic()
    env_config = build.env_config(config)
    behaviour_config = BehaviourConfig(**plain(task.behaviour))
    policies: dict[str, TensorDictModuleBase] = {}

    def policy_of(run: str) -> TensorDictModuleBase:
        return policies.setdefault(run, load_run(run)[1].policy)

    def make() -> tuple[Env, Behaviour]:
        env = make_raw_env(env_config)
        return env, make_behaviour(behaviour_config, env, env_config, policy_of)

    new_dataset_path(task.dataset.id, overwrite=config.overwrite)  # refusals come before the work
    with contextlib.closing(make_raw_env(env_config)) as env:
        check_interface(env, episode_seed(config.seed, 0))
        writer = MinariWriter(
            task.dataset.id,
            env,
            behaviour=f"{behaviour_config.kind} behaviour of o3f",
            description=(
                f"{task.name}, made by o3f's collect: {without_folders(behaviour_config)}, seed {config.seed}; a step"
                f" is {env_config.frame_skip} environment step(s) with the action times {env_config.action_scale}."
            ),
            score_range=None if task.score.max is None else (task.score.min, task.score.max),
            overwrite=config.overwrite,
            steps=config.steps,
        )
    returns: list[float] = []
    with writer, Progress(f"collect {task.dataset.id}", total=config.steps, enabled=config.progress) as progress:
        try:
            for trajectory in record(make, seed=config.seed, steps=config.steps):
                writer.add(trajectory)
                returns.append(float(trajectory.rewards.sum()))
                progress.advance(len(trajectory))
            path = writer.publish()
        except BaseException:  # Ctrl-C, too: what was played may have taken hours
            print(writer.keep(), file=sys.stderr)
            raise
    seconds = time.monotonic() - start
    print(f"{task.dataset.id}: {summary(returns, writer.steps, task.score.min, task.score.max)}")
    print(f"written to {path} in {seconds:.0f} s, {config.steps / seconds:.0f} steps/s")
    print(f"next: {next_command()}")


def without_folders(config: BehaviourConfig) -> BehaviourConfig:
    """Return what a dataset may tell others: of absolute paths the names, not where they lie on this machine."""
    if config.path is None:
        return config
    paths = [Path(path) for path in ([config.path] if isinstance(config.path, str) else config.path)]
    return replace(config, path=[path.name if path.is_absolute() else path.as_posix() for path in paths])


def summary(returns: list[float], steps: int, minimum: float | None, maximum: float | None) -> str:
    """One line about the episodes."""
    score = normalised_score(np.array(returns), minimum, maximum)
    line = f"{len(returns)} episodes, {steps} steps, return {np.mean(returns):.4g} ± {np.std(returns):.3g}"
    return line if maximum is None else f"{line}, normalised score {score.mean():.1f}"


def next_command() -> str:
    """The command that trains on the dataset."""
    program = "python -m o3f.recipes.pretrain" if __package__ else "python recipes/pretrain.py"
    if not HydraConfig.initialized():
        return program
    running = HydraConfig.get()
    changed = [each for each in running.overrides.task if each.lstrip("+").startswith("task.")]
    changed = [each for each in changed if not each.startswith("task.behaviour")]
    task = running.runtime.choices["task"]
    return f"{program} {shlex.join([f'task={task}', *changed])}"


if __name__ == "__main__":
    main()
