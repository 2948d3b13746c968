"""Make a Minari dataset with a behaviour of the task: python recipes/collect.py task=halfcheetah/random.

Writes to $MINARI_DATASETS_PATH (default ~/.minari/datasets). Behaviours: random; npz (a Gaussian MLP policy);
run (the policy of a run folder); waypoint (AntMaze, with D4RL's relabelling for one goal).
"""

from __future__ import annotations

import sys
import time
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress

from o3f.behaviours import (
    BehaviourConfig,
    Trajectory,
    make_behaviour,
    new_dataset_path,
    rollout,
    write_minari,
)
from o3f.envs import EnvConfig, make_raw_env
from o3f.evaluation import normalised_score


def collect(config: dict[str, Any]) -> list[Trajectory]:
    """Record episodes and write them as a Minari dataset."""
    task = config["task"]
    dataset_id, score = task["dataset"]["id"], task["score"]
    new_dataset_path(dataset_id, overwrite=config["overwrite"])  # a refusal comes before the work
    env_config = EnvConfig(**task["env"])
    behaviour_config = BehaviourConfig(**task["behaviour"])
    env = make_raw_env(env_config)
    behaviour = make_behaviour(behaviour_config, env, env_config)
    torch.manual_seed(config["seed"])
    torch.set_num_threads(1)

    trajectories: list[Trajectory] = []
    left = config["steps"]
    with Progress(
        console=Console(stderr=True), disable=not (config["progress"] and sys.stderr.isatty())
    ) as bar:
        work = bar.add_task(f"collect {dataset_id}", total=left)
        while left > 0:
            trajectory = rollout(
                env, behaviour, seed=config["seed"], episode=len(trajectories), max_steps=left
            )
            trajectories.append(trajectory)
            left -= len(trajectory)
            bar.update(work, advance=len(trajectory))

    path = write_minari(
        dataset_id,
        trajectories,
        env,
        behaviour=f"{behaviour_config.kind} behaviour of o3f",
        description=(
            f"{task['name']}, made by o3f's collect: {behaviour_config}, seed {config['seed']}; a step is"
            f" {env_config.frame_skip} environment step(s) with the action times {env_config.action_scale}."
        ),
        score_range=None if score["max"] is None else (score["min"], score["max"]),
        overwrite=config["overwrite"],
    )
    env.close()
    print(f"{dataset_id}: {summary(trajectories, score)}\nwritten to {path}")
    return trajectories


def summary(trajectories: list[Trajectory], score: dict[str, float | None]) -> str:
    """One line about the episodes."""
    returns = np.array([each.rewards.sum() for each in trajectories])
    line = (
        f"{len(returns)} episodes, {sum(map(len, trajectories))} steps,"
        f" return {returns.mean():.4g} ± {returns.std():.3g}"
    )
    if score["max"] is None:
        return line
    return f"{line}, normalised score {normalised_score(returns, score['min'], score['max']).mean():.1f}"


def next_command(overrides: list[str]) -> str:
    """The command that trains on the dataset."""
    program = "python -m o3f.recipes.pretrain" if __package__ else "python recipes/pretrain.py"
    task = [each for each in overrides if each.startswith("task") and "behaviour" not in each]
    return " ".join([program, *task])


@hydra.main(version_base=None, config_path="../conf", config_name="collect")
def main(config: DictConfig) -> None:
    """Entry point."""
    start = time.monotonic()
    trajectories = collect(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    seconds = time.monotonic() - start
    print(f"took {seconds:.0f} s, {sum(map(len, trajectories)) / seconds:.0f} steps/s")
    print(f"next: {next_command(list(HydraConfig.get().overrides.task))}")


if __name__ == "__main__":
    main()
