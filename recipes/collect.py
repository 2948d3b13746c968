"""Make a Minari dataset with the behaviour of a task: python recipes/collect.py task=halfcheetah/random.

Writes to $MINARI_DATASETS_PATH (default ~/.minari/datasets). Behaviours: random; npz (a Gaussian MLP policy);
run (the policy of a run folder); waypoint (AntMaze, with D4RL's relabelling for one goal).
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from o3f.cli.progress import Progress
from o3f.cli.recipe import recipe, require_range
from o3f.collection.behaviours import (
    BehaviourConfig,
    Trajectory,
    make_behaviour,
    new_dataset_path,
    rollout,
    write_minari,
)
from o3f.envs import make_raw_env
from o3f.evaluation.episodes import normalised_score
from o3f.runs.identity import plain
from o3f.training import build
from o3f.training.checks import check_task


@recipe("collect")
def main(config: DictConfig) -> None:
    """Record episodes, write them, and say what they hold."""
    require_range(config, "steps", "[1, inf)", integer=True)
    check_task(config)
    task, start = config.task, time.monotonic()
    new_dataset_path(task.dataset.id, overwrite=config.overwrite)  # a refusal comes before the work
    env_config = build.env_config(config)
    behaviour_config = BehaviourConfig(**plain(task.behaviour))
    env = make_raw_env(env_config)
    behaviour = make_behaviour(behaviour_config, env, env_config, lambda run: build.load_run(run)[1].policy)
    torch.manual_seed(config.seed)

    trajectories: list[Trajectory] = []
    left = config.steps
    with Progress(f"collect {task.dataset.id}", total=left, enabled=config.progress) as progress:
        while left > 0:
            episode = len(trajectories)
            trajectory = rollout(env, behaviour, seed=config.seed, episode=episode, max_steps=left)
            trajectories.append(trajectory)
            left -= len(trajectory)
            progress.advance(len(trajectory))

    path = write_minari(
        task.dataset.id,
        trajectories,
        env,
        behaviour=f"{behaviour_config.kind} behaviour of o3f",
        description=(
            f"{task.name}, made by o3f's collect: {without_folders(behaviour_config)}, seed {config.seed}; a step is"
            f" {env_config.frame_skip} environment step(s) with the action times {env_config.action_scale}."
        ),
        score_range=None if task.score.max is None else (task.score.min, task.score.max),
        overwrite=config.overwrite,
    )
    env.close()
    seconds = time.monotonic() - start
    print(f"{task.dataset.id}: {summary(trajectories, task.score.min, task.score.max)}")
    print(f"written to {path} in {seconds:.0f} s, {config.steps / seconds:.0f} steps/s")
    print(f"next: {next_command()}")


def without_folders(config: BehaviourConfig) -> BehaviourConfig:
    """Return what a dataset may tell others: of absolute paths the names, not where they lie on this machine."""
    if config.path is None:
        return config
    paths = [Path(path) for path in ([config.path] if isinstance(config.path, str) else config.path)]
    return replace(config, path=[path.name if path.is_absolute() else path.as_posix() for path in paths])


def summary(trajectories: list[Trajectory], minimum: float | None, maximum: float | None) -> str:
    """One line about the episodes."""
    returns = np.array([each.rewards.sum() for each in trajectories])
    score = normalised_score(returns, minimum, maximum)
    line = (
        f"{len(returns)} episodes, {sum(map(len, trajectories))} steps,"
        f" return {returns.mean():.4g} ± {returns.std():.3g}"
    )
    return line if maximum is None else f"{line}, normalised score {score.mean():.1f}"


def next_command() -> str:
    """The command that trains on the dataset."""
    program = "python -m o3f.recipes.pretrain" if __package__ else "python recipes/pretrain.py"
    if not HydraConfig.initialized():
        return program
    running = HydraConfig.get()
    changed = [each for each in running.overrides.task if each.lstrip("+").startswith("task.")]
    changed = [each for each in changed if not each.startswith("task.behaviour")]
    return " ".join([program, f"task={running.runtime.choices.task}", *changed])


if __name__ == "__main__":
    main()
