"""Will O3F help on my task? python recipes/diagnose.py run=runs/default/hopper-medium-iql-offline/seed0.

Needs a MuJoCo environment, which is set to states of the run's policy; there the candidates are played to see whether
the critics rank them as they should. This judges the choice of an action as it is now: what fine-tuning makes of the
data so collected is another question.
"""

from __future__ import annotations

from o3f.cli.recipe import answer_first, check_keys, recipe, require, require_range

if __name__ == "__main__":
    answer_first("diagnose", __file__)  # before the imports below, which take seconds

import json
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from o3f.algorithms import Learner
from o3f.cli.progress import Progress
from o3f.data import RewardRule
from o3f.evaluation.diagnosis.judge import Judged, Settings, action_noise, judge_states
from o3f.evaluation.diagnosis.report import advice, figures_of, root_mean_square, table_rows
from o3f.runs.files import write_text
from o3f.runs.given import given_folders
from o3f.training import build
from o3f.training.load import load_run
from o3f.training.task_checks import SEEDS


@recipe("diagnose")
def main(config: DictConfig) -> None:
    """Play the candidates, print a table and one sentence, write them into each run folder, too."""
    check(config)
    folders = given_folders(config.run)
    for folder in folders:
        figures, sentence = diagnose_run(folder, config)
        settings = OmegaConf.to_container(config)
        report = {"settings": settings, "figures": figures, "advice": sentence}
        write_text(folder / config.file, json.dumps(report, indent=2, allow_nan=False) + "\n")
        table = Table("", "mean over states ± standard error")
        for row in table_rows(figures):
            table.add_row(*row)
        end = "and the critics' value of the state after them" if config.bootstrap else "nothing for what comes after"
        print(f"{folder}: {config.states} states, {config.candidates} candidates in each, played for {config.horizon}")
        print(f"steps; true return: discounted rewards ({config.reward}) of these steps, {end}")
        Console(width=120).print(table)
        print(sentence)
        print(f"written to {folder / config.file}")


def check(config: DictConfig) -> None:
    """Check every number and name before any work."""
    for key, lowest in {"states": 2, "candidates": 2, "every": 1, "horizon": 1, "data_rows": 0}.items():
        require_range(config, key, f"[{lowest}, inf)", integer=True)
    require_range(config, "seed", SEEDS, integer=True)
    if config.sigma is not None:
        require_range(config, "sigma", "(0, inf)")
    check_keys([config.centre], ["sample", "mean"], "centre")
    check_keys([config.reward], ["rule", "raw"], "reward")
    require(
        Path(config.file).name == config.file and config.file.endswith(".json"),
        f"file must be a name that ends in .json, in the run folder; found {config.file!r}.",
    )
    require(
        config.reward == "rule" or not config.bootstrap,
        "bootstrap=true adds values of the critics, which are of the learner's rewards: leave reward=rule.",
    )


def diagnose_run(folder: Path, config: DictConfig) -> tuple[dict[str, float | None], str]:
    """Return the figures of one run and the advice that follows from them."""
    trained, learner = load_run(folder, config.checkpoint)
    rule, noise = reward_and_noise(trained, learner, config)
    sigma = config.sigma or build.sigma_of(trained)
    settings = Settings(
        **{key: config[key] for key in ("states", "every", "candidates", "centre", "horizon", "bootstrap", "seed")},
        sigma=sigma,
        discount=trained.algorithm.discount,
        rule=rule,
    )
    judged: list[Judged] = []
    with Progress(f"diagnose {folder}", total=config.states, enabled=True) as progress:
        for each in judge_states(learner.policy, learner.critic, build.env_config(trained), settings):
            judged.append(each)
            progress.advance()
    figures = figures_of(judged, root_mean_square(sigma), noise)
    return figures, advice(figures)


def reward_and_noise(trained: DictConfig, learner: Learner, config: DictConfig) -> tuple[RewardRule, float | None]:
    """Return the rule of the rewards, and the data's own action noise where there are data to ask."""
    rule, noise = build.reward_rule(trained), None
    if config.data_rows and trained.dataset.id != "none":
        trained.dataset.storage = "memory"
        buffer, rule, _ = build.buffer(trained)
        noise = action_noise(learner.policy, buffer[:], config.data_rows, config.seed)
    require(
        config.reward == "raw" or not isinstance(rule.scale, str),
        "the run takes the scale of its rewards from the dataset: leave data_rows above 0, or take reward=raw.",
    )
    return (RewardRule() if config.reward == "raw" else rule), noise


if __name__ == "__main__":
    main()
