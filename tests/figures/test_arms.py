"""Every constant of every arm of the paper's figures, with its source: what is composed equals this table.

Sources: O3F, section 5 and its captions; IQL's code (ikostrikov/implicit_q_learning 09d7002: configs/,
train_offline.py, train_finetune.py); LAPO's code (d2493b1); d3rlpy v1.1.1 with its scripts for the reproduction of AWAC
and CQL, which the paper used; D4RL (infos.py, maze_env.py, its kitchen).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from docs.tools import arms
from o3f.figures.plan import PlannedRun, compose_finetune
from o3f.runs.identity import leaves, plain
from tests.support.mazes import cell_of
from tests.support.recipe_runs import ROOT

# ---------------------------------------------------------------------------------------------------------- tasks

#: Of the family: sigma (O3F), expectile, temperature and dropout (IQL's configs/), lambda (LAPO's doubleq_min).
FAMILIES = {
    "locomotion": {"sigma": 0.2, "expectile": 0.7, "temperature": 3.0, "actor_dropout": 0.0, "min_weight": 1.0},
    "antmaze": {"sigma": 0.05, "expectile": 0.9, "temperature": 10.0, "actor_dropout": 0.0, "min_weight": 0.7},
    "kitchen": {"sigma": 0.05, "expectile": 0.7, "temperature": 0.5, "actor_dropout": 0.1, "min_weight": 1.0},
}
#: IQL's scale of rewards, 1000 / (largest - smallest return): of 200,000 steps of our data, halfcheetah/medium D4RL's.
IQL_SCALES = {
    "halfcheetah/random": 2.5053,
    "hopper/random": 4.2496,
    "walker2d/random": 17.2146,
    "halfcheetah/medium": 0.18,
    "hopper/medium": 0.3733,
    "walker2d/medium": 0.2254,
}
#: Returns that count as 0 and 100 (D4RL's infos.py).
SCORES = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "antmaze": (0.0, 1.0),
    "kitchen": (0.0, 4.0),
}
ENVIRONMENTS = {
    "halfcheetah": "HalfCheetah-v5",
    "hopper": "Hopper-v5",
    "walker2d": "Walker2d-v5",
    "antmaze/umaze-diverse": "AntMaze_UMaze-v5",
    "antmaze/medium-diverse": "AntMaze_Medium_Diverse_GR-v5",
    "antmaze/large-diverse": "AntMaze_Large_Diverse_GR-v5",
    "kitchen": "FrankaKitchen-v1",
}
#: D4RL's kitchen-complete-v0, -partial-v0 and -mixed-v0.
SLIDE = ["microwave", "kettle", "light switch", "slide cabinet"]
KITCHEN = {"complete": SLIDE, "partial": SLIDE, "mixed": ["microwave", "kettle", "bottom burner", "light switch"]}
#: The same for every task.
UNITS = {
    "frame_skip": 1,
    "action_scale": 1.0,
    "observation_keys": None,
    "reset_options": None,
    "attributes": {},
    "max_episode_steps": None,  # Gymnasium's 1000, as D4RL's
    "goal_radius": None,
}
TASKS = [*IQL_SCALES, *(f"antmaze/{size}-diverse" for size in ("umaze", "medium", "large"))]
TASKS += [f"kitchen/{level}" for level in KITCHEN]


def family_of(task: str) -> str:
    first = task.split("/")[0]
    return first if first in FAMILIES else "locomotion"


def environment(task: str) -> dict[str, Any]:
    first, last = task.split("/")
    common = {**UNITS, "id": ENVIRONMENTS.get(task, ENVIRONMENTS.get(first)), "kwargs": {}}
    if first == "antmaze":  # D4RL's ant: 0.1 s a step, a fifth of Gymnasium's torque, the goal's middle within 0.5
        size = last.removesuffix("-diverse")
        return common | {
            "kwargs": {"continuing_task": False, "include_cfrc_ext_in_observation": False},
            "frame_skip": 2,
            "action_scale": 0.2,
            "observation_keys": ["achieved_goal", "observation"],
            "reset_options": {"reset_cell": cell_of(size, "r"), "goal_cell": cell_of(size, "g")},
            "attributes": {"position_noise_range": 0.0, "ant_env": {"_reset_noise_scale": 0.1}},
            "max_episode_steps": 700 if size == "umaze" else 1000,
            "goal_radius": 0.5,
        }
    if first == "kitchen":
        kwargs = {"remove_task_when_completed": True, "terminate_on_tasks_completed": True}
        return common | {
            "kwargs": {**kwargs, "tasks_to_complete": KITCHEN[last]},
            "observation_keys": ["observation"],
            "max_episode_steps": 280,
        }
    return common


#: (scale, shift, bounds of values) of the learner's rewards, by family and the algorithm's authors.
RAW = (1.0, 0.0, None)
REWARDS: dict[tuple[str, str], Any] = {
    ("locomotion", "lapo"): ("largest_reward", 0.0, None),  # LAPO's code: r / max(r)
    ("antmaze", "iql"): (1.0, -1.0, None),  # IQL's train_offline.py: r - 1
    ("antmaze", "lapo"): (100.0, 0.0, [0.0, 100.0]),  # LAPO's code: 100 r, V clamped to [0, 100]
    ("kitchen", "lapo"): (0.25, 0.0, None),  # r / max(r), of at most four tasks
}  # elsewhere raw: IQL on kitchen, d3rlpy everywhere


def reward(task: str, authors: str) -> tuple[Any, Any, Any]:
    if authors == "iql" and task in IQL_SCALES:
        return (IQL_SCALES[task], 0.0, None)
    return REWARDS.get((family_of(task), authors), RAW)


# ----------------------------------------------------------------------------------------------------- algorithms


def iql(task: str, num_critics: int) -> dict[str, Any]:
    """IQL's configs/*_config.py and learner.py; five critics are O3F's, the original has two."""
    family = FAMILIES[family_of(task)]
    return {
        "name": "iql",
        "hidden_sizes": [256, 256],
        "num_critics": num_critics,
        "layer_norm": False,
        "expectile": family["expectile"],
        "temperature": family["temperature"],
        "discount": 0.99,
        "tau": 0.005,
        "learning_rate": 3e-4,
        "actor_dropout": family["actor_dropout"],
        "actor_decay_steps": None,  # train_finetune.py has no decay
        "aggregation": "min",
        "subset_size": 2,  # unused: aggregation is min
        "normalise": False,
        "init": "orthogonal",
        "compile": "auto",
        "batch_size": 256,
        "updates_per_step": 1,
        "offline_steps": 1_000_000,
    }


def lapo(task: str, original: bool) -> dict[str, Any]:
    """LAPO's code; five critics, two of them drawn, twenty updates a step are O3F's (5.1)."""
    return {
        "name": "lapo_original" if original else "lapo",
        "hidden_sizes": [256, 256, 256],
        "num_critics": 2 if original else 5,
        "subset_size": None if original else 2,  # of O3F's not stated; REDQ's
        "latent_dim": None,  # twice the number of actions
        "max_latent": 2.0,
        "min_weight": FAMILIES[family_of(task)]["min_weight"],
        "kl_weight": 1.0,
        "advantage_weight": 0.9,
        "discount": 0.99,
        "tau": 0.005,
        "learning_rate": 2e-4,
        "target_noise": 0.1,
        "target_noise_clip": 0.2,
        "value_clamp": "fixed" if original else "running",  # ours: the dataset's range would hold better policies down
        "value_bounds": reward(task, "lapo")[2],
        "delay_value": False,
        "actor_aggregation": "first" if original else "mean",  # of O3F's not stated; REDQ's
        "layer_norm": False,
        "normalise": True,
        "init": "default",
        "compile": "auto",
        "batch_size": 512,
        "updates_per_step": 1 if original else 20,
        "offline_steps": 1_000_000,
    }


#: d3rlpy's AWAC (lam, critics, weight decay) and its script (actor 4 x 256, batch, steps).
AWAC = {
    "name": "awac",
    "hidden_sizes": [256, 256],
    "actor_hidden_sizes": [256, 256, 256, 256],
    "num_critics": 2,
    "layer_norm": False,
    "lam": 1.0,
    "weighting": "softmax",
    "discount": 0.99,
    "tau": 0.005,
    "learning_rate": 3e-4,
    "weight_decay": 1e-4,
    "aggregation": "min",
    "subset_size": 2,  # unused: aggregation is min
    "normalise": False,
    "init": "default",
    "compile": "auto",
    "batch_size": 1024,
    "updates_per_step": 1,
    "offline_steps": 500_000,
}
#: d3rlpy's CQL (rates, tau, proposals, deterministic target) and its script (3 x 256, weight 5, no multiplier, steps).
CQL = {
    "name": "cql",
    "hidden_sizes": [256, 256, 256],
    "num_critics": 2,
    "layer_norm": False,
    "actor_layer_norm": False,
    "discount": 0.99,
    "tau": 0.005,
    "actor_learning_rate": 1e-4,
    "critic_learning_rate": 3e-4,
    "temperature_learning_rate": 1e-4,
    "lagrange_learning_rate": 1e-4,
    "conservative_weight": 5.0,
    "lagrange": None,
    "lagrange_threshold": 10.0,
    "num_random": 10,
    "calibrate": False,
    "gap_reduction": "mean",
    "backup": "deterministic",
    "entropy_backup": False,
    "target_entropy": None,
    "aggregation": "min",
    "subset_size": 2,  # unused: aggregation is min
    "actor_aggregation": "min",
    "normalise": False,
    "init": "default",
    "compile": "auto",
    "batch_size": 256,
    "updates_per_step": 1,
    "offline_steps": 500_000,
}
#: d3rlpy's CQL with its defaults: the multiplier, and 2 x 256; O3F's figure 3 has the threshold 5.
CQL_WITH_MULTIPLIER = {**CQL, "hidden_sizes": [256, 256], "lagrange": "weighted_gap", "lagrange_threshold": 5.0}
#: d3rlpy's SAC; the networks must be those of the CQL it starts from.
SAC = {
    "name": "sac",
    "hidden_sizes": [256, 256, 256],
    "num_critics": 2,
    "layer_norm": False,
    "actor_layer_norm": False,
    "discount": 0.99,
    "tau": 0.005,
    "learning_rate": 3e-4,
    "target_entropy": None,
    "aggregation": "min",
    "subset_size": 2,  # unused: aggregation is min
    "actor_aggregation": "min",
    "entropy_backup": True,
    "normalise": False,
    "init": "default",
    "compile": "auto",
    "batch_size": 256,
    "updates_per_step": 1,
    "offline_steps": 500_000,
}

# ------------------------------------------------------------------------------------------------------- figures


def algorithm(arm: str, task: str) -> tuple[str, dict[str, Any]]:
    """Whose rewards an arm has, and its algorithm."""
    if arm.startswith("lapo"):
        return "lapo", lapo(task, original="original" in arm)
    if arm.startswith(("iql", "fig3_iql")):
        return "iql", iql(task, num_critics=2 if arm.startswith(("iql2", "fig3")) else 5)
    if "awac" in arm:
        return "d3rlpy", AWAC
    if "sac" in arm:
        return "d3rlpy", SAC
    return "d3rlpy", CQL_WITH_MULTIPLIER if "threshold" in arm else CQL


#: O3F, 5.1: N and omega; where its text is silent: around a sample, without the policy's own action, no limits.
CHOICE = {
    "candidates": "gaussian",
    "num_candidates": 100,
    "omega": 0.0,
    "centre": "sample",
    "include_base": False,
    "clip_margin": 0.0,
    **dict.fromkeys(("max_displacement", "max_change", "veto")),
}


def exploration(arm: str, task: str) -> dict[str, Any]:
    sigma = {"sigma": FAMILIES[family_of(task)]["sigma"]}
    if arm.endswith("optimistic"):
        return {"kind": "optimistic", **CHOICE, **sigma}
    if arm.endswith("ucb"):  # figure 6
        return {"kind": "ucb", **CHOICE, "omega": 1.0, **sigma}
    if arm.endswith("noise"):
        return {"kind": "noise", "centre": "sample", **sigma}
    return {"kind": "policy"}


#: Figure 3: what each coefficient becomes; over all online steps where it is linear.
BECOMES = {"iql": ("expectile", 0.85), "awac": ("lam", 0.1)}
BECOMES |= {"weight": ("conservative_weight", 0.5), "threshold": ("lagrange_threshold", 0.5)}


def schedule(arm: str) -> dict[str, Any]:
    to: dict[str, Any] = {"algorithm": {}, "exploration": {}}
    if not arm.startswith("fig3"):
        return {"kind": "same", "steps": 250_000, "to": to}
    _, what, kind = arm.split("_")
    return {"kind": kind, "steps": 250_000, "to": to | {"algorithm": dict([BECOMES[what]])}}


def expected(arm: str, task: str) -> dict[str, Any]:
    """The table's row: everything that an arm's result on a task depends on, but for the seed."""
    authors, chosen = algorithm(arm, task)
    scale, shift, bounds = reward(task, authors)
    first = task.split("/")[0]
    low, high = SCORES[first]
    return {
        "algorithm": chosen,
        "reward": {"scale": scale, "shift": shift, "value_bounds": bounds},
        "counted": "tasks_counted" if first == "kitchen" else "recorded",
        "score": {"min": low, "max": high},
        "discount": 0.99,
        "env": environment(task),
        "exploration": exploration(arm, task),
        "schedule": schedule(arm),
        "offline": {"steps": chosen["offline_steps"], "batch_size": chosen["batch_size"]},
        "online": {
            "steps": 250_000,  # not stated by O3F; its figure 2 needs more than 15,000
            "updates_per_step": chosen["updates_per_step"],
            "online_fraction": None,  # O3F: one buffer, dataset and online rows alike
            "random_steps": 0,
            "warmup_steps": 0,
            "distil_weight": 0.0,
            "target_candidates": 0,
        },
        "evaluation": {"episodes": 100 if first == "antmaze" else 10, "seed": 1_000},
        "transfer": {"targets": "fresh" not in arm, "optimisers": False},
        "offline_algorithm": CQL if "sac" in arm else None,
        "dataset": {"max_transitions": None, "clip_actions": False},
    }


def found(config: DictConfig) -> dict[str, Any]:
    """The same of a composed configuration."""
    whole = plain(config)
    task, rows = whole["task"], expected("lapo_ucb", TASKS[0])
    picked = {name: whole[name] for name in ("algorithm", "exploration", "schedule")}
    picked["reward"] = {name: task["reward"][name] for name in ("scale", "shift", "value_bounds")}
    picked["counted"] = task["dataset"].get("rewards", "recorded")
    picked |= {name: task[name] for name in ("score", "discount", "env")}
    for name in ("offline", "online", "evaluation", "transfer", "dataset"):
        picked[name] = {key: whole[name][key] for key in rows[name]}
    return picked | {"offline_algorithm": whole.get("offline_algorithm")}


@functools.cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    return compose_finetune(ROOT / "conf")(overrides)


def quick(overrides: Sequence[str]) -> DictConfig:
    """Compose each arm and each task but once: an arm's node reads the task by interpolation, a task's the arm."""
    (task,) = (each for each in overrides if each.startswith("task="))
    arm = OmegaConf.create(composed(tuple(each for each in overrides if each != task)))
    arm.task = composed((task,)).task
    return arm


@functools.cache
def runs(figure: str) -> list[PlannedRun]:
    return arms.runs_of(figure, quick)


#: The paper's figures: their arms, and the tasks they are on.
THREE = ["halfcheetah/medium", "antmaze/large-diverse", "kitchen/mixed"]
KINDS = ("same", "abrupt", "linear")
FIGURES = {
    "fig2": (["fig2_cql", "fig2_sac", "fig2_sac_fresh_targets"], ["halfcheetah/medium"]),
    "fig3": ([f"fig3_{what}_{kind}" for what in BECOMES for kind in KINDS], ["halfcheetah/medium"]),
    "fig4": (["lapo_optimistic", "iql2_policy", "awac_policy", "cql_policy"], TASKS),
    "fig5": (
        ["lapo_optimistic", "lapo_noise", "lapo_original_noise", "iql_optimistic", "iql_noise", "iql2_noise"],
        THREE,
    ),
    "fig6": (["lapo_optimistic", "lapo_ucb"], THREE),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_every_constant_of_every_arm_is_that_of_its_source(figure: str) -> None:
    names, tasks = FIGURES[figure]
    planned = {(run.task, run.arm): run.config for run in runs(figure)}
    assert set(planned) == {(task, arm) for task in tasks for arm in names}
    for (task, arm), config in planned.items():
        table, composition = leaves(expected(arm, task)), leaves(found(config))
        changed = {key for key in table.keys() | composition.keys() if table.get(key, "-") != composition.get(key, "-")}
        assert not changed, (task, arm, {key: (table.get(key), composition.get(key)) for key in changed})


def test_the_page_of_the_arms_is_that_of_the_configuration() -> None:
    text = arms.page({figure: runs(figure) for figure in FIGURES})
    assert (ROOT / "docs/arms.md").read_text(encoding="utf-8") == text, "run: python docs/tools/arms.py"
    for part in ("| 100 r, values in [0, 100] |", "| r / largest |", "| 0.25 n |", "| (6, 6) |", "| r - 1 |"):
        assert part in text


def test_figures_share_their_agents() -> None:
    """Figures 2 to 4 have one CQL, figures 3 and 4 one IQL and one AWAC; figure 5's arms start from one agent each."""
    starts = {
        run.arm: run.pretraining for figure in FIGURES for run in runs(figure) if run.task == "halfcheetah/medium"
    }
    assert starts["cql_policy"] == starts["fig2_cql"] == starts["fig2_sac"] == starts["fig3_weight_linear"]
    assert starts["cql_policy"] != starts["fig3_threshold_same"]
    assert starts["iql2_policy"] == starts["fig3_iql_abrupt"] == starts["iql2_noise"] != starts["iql_noise"]
    assert starts["awac_policy"] == starts["fig3_awac_same"]
    assert starts["lapo_optimistic"] == starts["lapo_ucb"] == starts["lapo_noise"] != starts["lapo_original_noise"]


def test_the_quick_composition_is_hydras() -> None:
    overrides = (
        "task=antmaze/large-diverse",
        "algorithm=lapo",
        "exploration=noise",
        "evaluation.episodes=100",
        "seed=0",
    )
    assert plain(quick(overrides)) == plain(composed(overrides))
