"""The page of the figures' arms, composed from the configuration: python docs/tools/arms.py (writes docs/arms.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import o3f.cli.assets  # noqa: F401  (what configurations ask Python for)
from o3f.figures.plan import Compose, PlannedRun, compose_finetune, plan
from o3f.runs.identity import plain

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ("fig2", "fig3", "fig4", "fig5", "fig6")
FAMILIES = {"antmaze": "AntMaze", "kitchen": "FrankaKitchen"}
LOCOMOTION = "HalfCheetah, Hopper, Walker2d"
HEAD = """# What each arm is

The arms of the paper's figures at `budget=paper`, as their configurations are composed: made by
`python docs/tools/arms.py`, and compared with the configuration by a test. Another test compares every constant with
its source (`tests/figures/test_arms.py`). r is the environment's reward, n the number of kitchen tasks that are done.
The discount is 0.99, and target networks follow by 0.005 an update. Goals are cells (row, column) of the maze.
"""
Columns = Mapping[str, Callable[[dict[str, Any]], str]]


def runs_of(figure: str, composed: Compose) -> list[PlannedRun]:
    """Return a figure's runs of one seed."""
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        config = compose("figures", overrides=[f"figure={figure}", "budget=paper", "seeds=1"])
    OmegaConf.resolve(config)
    return plan(config, list(config.figure.arms), composed)


def number(value: float) -> str:
    """A number as a person writes it."""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def reward(run: dict[str, Any]) -> str:
    """What the learner sees of the reward r, or of the number n of tasks that are done."""
    rule = run["task"]["reward"]
    what = "n" if run["task"]["dataset"].get("rewards") == "tasks_counted" else "r"
    scale = {"largest_reward": f"{what} / largest", "return_range": f"1000 {what} / range"}.get(rule["scale"])
    scale = scale or (what if rule["scale"] == 1 else f"{number(rule['scale'])} {what}")
    shift = f" {'-' if rule['shift'] < 0 else '+'} {number(abs(rule['shift']))}" if rule["shift"] else ""
    bounds = f", values in [{', '.join(map(number, rule['value_bounds']))}]" if rule["value_bounds"] else ""
    return f"{scale}{shift}{bounds}"


def critics(run: dict[str, Any]) -> str:
    """How many, and what the target takes of them."""
    algorithm = run["algorithm"]
    subset = algorithm["subset_size"] if algorithm.get("aggregation", "subset") == "subset" else None
    target = f"{subset} drawn" if subset else algorithm.get("aggregation", "min")
    return f"{algorithm['num_critics']}, {target}"


def networks(run: dict[str, Any]) -> str:
    """Hidden layers, and those of the actor where they are others."""
    sizes = [run["algorithm"][key] for key in ("hidden_sizes", "actor_hidden_sizes") if key in run["algorithm"]]
    told = [f"{len(each)}x{each[0]}" for each in sizes]
    return told[0] if len(told) == 1 else f"{told[0]}, actor {told[1]}"


def rates(run: dict[str, Any]) -> str:
    """Learning rates: of all networks, or critics / actor / temperature."""
    algorithm = run["algorithm"]
    names = ("critic_learning_rate", "actor_learning_rate", "temperature_learning_rate")
    if "learning_rate" in algorithm:
        return number(algorithm["learning_rate"])
    return " / ".join(number(algorithm[name]) for name in names)


#: Coefficients of each algorithm's objective: key, and what it is called here.
COEFFICIENTS = {
    "iql": {"expectile": "expectile", "temperature": "beta", "actor_dropout": "dropout"},
    "lapo": {
        "min_weight": "lambda",
        "kl_weight": "KL",
        "max_latent": "latents to",
        "target_noise": "target noise",
        "advantage_weight": "weight of A > 0",
    },
    "awac": {"lam": "lambda", "weighting": "weights", "weight_decay": "decay"},
    "cql": {"conservative_weight": "weight", "lagrange": "multiplier", "lagrange_threshold": "threshold"},
    "sac": {},
}
COEFFICIENTS["lapo_original"] = COEFFICIENTS["lapo"]


def coefficients(run: dict[str, Any]) -> str:
    """Those of the objective, and what they become online."""
    algorithm = dict(run["algorithm"])
    if algorithm.get("lagrange", "") is None:
        del algorithm["lagrange"], algorithm["lagrange_threshold"]
    told = []
    for key, name in COEFFICIENTS[algorithm["name"]].items():
        if algorithm.get(key):
            value = algorithm[key] if isinstance(algorithm[key], str) else number(algorithm[key])
            later = run["schedule"]["to"]["algorithm"].get(key) if run["schedule"]["kind"] != "same" else None
            told.append(f"{name} {value}{'' if later is None else f' to {number(later)}, ' + run['schedule']['kind']}")
    if run.get("offline_algorithm"):
        told.append(f"from {run['offline_algorithm']['name'].upper()}")
        told.append("its target critics" if run["transfer"]["targets"] else "fresh target critics")
    return ", ".join(told) or "-"


def acting(run: dict[str, Any]) -> str:
    """How it collects."""
    exploration = run["exploration"]
    if exploration["kind"] == "policy":
        return "policy, sampled"
    if exploration["kind"] == "noise":
        return f"noise, sigma {number(exploration['sigma'])}"
    choice = f"best of {exploration['num_candidates']}, sigma {number(exploration['sigma'])}"
    return choice + (f", omega {number(exploration['omega'])}" if exploration["omega"] else "")


ARM_COLUMNS: Columns = {
    "algorithm": lambda run: run["algorithm"]["name"],
    "reward": reward,
    "critics, target": critics,
    "networks": networks,
    "batch": lambda run: number(run["offline"]["batch_size"]),
    "rates": rates,
    "objective": coefficients,
    "offline updates": lambda run: number(run["offline"]["steps"]),
    "updates a step": lambda run: number(run["online"]["updates_per_step"]),
    "collects with": acting,
}
TASK_COLUMNS: Columns = {
    "environment": lambda run: run["task"]["env"]["id"],
    "agent steps an episode": lambda run: str(run["task"]["env"]["max_episode_steps"] or "the environment's"),
    "goal": lambda run: str(tuple((run["task"]["env"]["reset_options"] or {}).get("goal_cell", "")) or "-"),
    "IQL's reward": reward,
    "0 and 100": lambda run: " and ".join(number(run["task"]["score"][key]) for key in ("min", "max")),
    "episodes of an evaluation": lambda run: number(run["evaluation"]["episodes"]),
}


def table(first: str, columns: Columns, rows: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Return a Markdown table; where the configurations of a row differ in a column, it says so."""
    lines = [[first, *columns], ["---"] * (1 + len(columns))]
    for name, configs in rows.items():
        values = [list(dict.fromkeys(tell(config) for config in configs)) for tell in columns.values()]
        lines.append([name, *(each[0] if len(each) == 1 else "by task, below" for each in values)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def page(figures: Mapping[str, Sequence[PlannedRun]]) -> str:
    """Return the whole page, of the runs of each figure."""
    arms: dict[str, dict[str, list[dict[str, Any]]]] = {LOCOMOTION: {}, **{name: {} for name in FAMILIES.values()}}
    tasks: dict[str, list[dict[str, Any]]] = {}
    among: dict[str, list[str]] = {}
    for figure, runs in figures.items():
        for run in runs:
            config = plain(run.config)
            arms[FAMILIES.get(run.task.split("/")[0], LOCOMOTION)].setdefault(run.arm, []).append(config)
            among.setdefault(run.arm, []).append(figure.removeprefix("fig"))
            if run.arm == "iql2_policy":
                tasks.setdefault(run.task, []).append(config)
    label = {arm: f"{arm} ({', '.join(dict.fromkeys(numbers))})" for arm, numbers in among.items()}
    sections = [HEAD]
    for family, rows in arms.items():
        named = {label[arm]: configs for arm, configs in rows.items()}
        sections.append(f"## {family}\n\n{table('arm (figures)', ARM_COLUMNS, named)}")
    return "\n".join([*sections, f"## Tasks\n\n{table('task', TASK_COLUMNS, tasks)}"])


def main() -> None:
    """Write the page."""
    composed = compose_finetune(ROOT / "conf")
    text = page({figure: runs_of(figure, composed) for figure in FIGURES})
    (ROOT / "docs/arms.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
