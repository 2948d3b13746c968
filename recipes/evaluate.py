"""Evaluate runs: python recipes/evaluate.py run=runs/default/hopper-medium-iql-optimistic/seed0 episodes=100."""

from __future__ import annotations

from o3f.cli.recipe import answer_first, recipe, require_range

if __name__ == "__main__":
    answer_first("evaluate", __file__)  # before the imports below, which take seconds

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from tensordict.nn import TensorDictModuleBase

from o3f.adapters import load_agent
from o3f.algorithms import Learner
from o3f.evaluation.episodes import evaluate
from o3f.evaluation.video import record_video
from o3f.modules import GaussianCandidates, OptimisticActor
from o3f.runs.checkpoint import FOLDERS, load_metadata
from o3f.runs.files import write_text
from o3f.runs.given import given_folders
from o3f.training import build
from o3f.training.load import load_run
from o3f.training.reporting import summarise
from o3f.training.task_checks import SEEDS

FIGURES = ("return", "score", "success", "length")


@recipe("evaluate")
def main(config: DictConfig) -> None:
    """Play the episodes, print a table, write ``evaluation.json`` into each run folder."""
    require_range(config, "episodes", "[1, inf)", integer=True)
    require_range(config, "seed", SEEDS, integer=True)
    folders = given_folders(config.run)
    for folder in folders:
        figures = evaluate_run(folder, config)
        write_text(folder / "evaluation.json", json.dumps(figures, indent=2) + "\n")
        table = Table("acting", *FIGURES)
        for acting, values in figures["acting"].items():
            table.add_row(acting, *cells(values))
        print(
            f"{folder}, {config.checkpoint} checkpoint: means over {config.episodes} episodes (seed {config.seed}),"
            " return ± standard deviation"
        )
        Console().print(table)
        print(f"written to {folder / 'evaluation.json'}")


def evaluate_run(folder: Path, config: DictConfig) -> dict[str, Any]:
    """Return the figures of one run: of the plain policy and, where asked for, of two ways of choosing."""
    agent = None if config.agent is None else load_agent(config.agent)
    trained, learner = load_run(folder, config.checkpoint, agent, config.device)
    actors: dict[str, TensorDictModuleBase] = {"policy": learner.policy}
    if config.optimistic:
        actors |= {"optimistic": build.evaluated_choice(trained, learner), "best_of_n": best_of_n(trained, learner)}
    acting = {}
    for name, actor in actors.items():
        env = build.env_config(trained)
        evaluation = evaluate(actor, env, episodes=config.episodes, seed=config.seed)
        returns = {"return_std": float(evaluation.returns.std()), "returns": evaluation.returns.tolist()}
        acting[name] = {**summarise(evaluation, trained), **returns}
        if config.video is not None:
            record_video(actor, env, Path(config.video) / f"{name}.mp4", seed=config.seed)
    step = load_metadata(folder / FOLDERS[config.checkpoint])["step"]
    asked = {key: config[key] for key in ("checkpoint", "episodes", "seed")}
    return {**asked, "step": step, "acting": acting}


def best_of_n(trained: DictConfig, learner: Learner) -> OptimisticActor:
    """The best of 100 actions, one of them the policy's own: what is executed never has a lower value than that."""
    sampler = GaussianCandidates(100, build.sigma_of(trained), centre="mean", include_base=True)
    return OptimisticActor(learner.policy, learner.critic, sampler=sampler, optimistic_eval=True)


def cells(values: dict[str, Any]) -> list[str]:
    """Return the table's cells of one way of acting; a dash where the environment says nothing."""
    shown = [f"{values[name]:.1f}" if name in values else "-" for name in FIGURES]
    spread = f" ± {values['return_std']:.1f}" if len(values["returns"]) > 1 else ""
    return [f"{shown[0]}{spread}", *shown[1:]]


if __name__ == "__main__":
    main()
