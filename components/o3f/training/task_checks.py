"""Checks of the numbers of a task, a seed and an algorithm, which every run has."""

from __future__ import annotations

from omegaconf import DictConfig, ListConfig, OmegaConf

from o3f.data.rewards import MEASURED
from o3f.errors import require, require_range
from o3f.objectives.ranges import RANGES

SEEDS = "[0, 9e18]"  # what torch's and the environments' generators take

#: Of a task, with the interval; whole numbers and those that may be null beside.
_TASK = {
    "env.frame_skip": "[1, inf)",
    "env.action_scale": "(0, 1]",
    "env.max_episode_steps": "[1, inf)",
    "env.goal_radius": "(0, inf)",
    "dataset.action_scale": "(0, 1]",
    "dataset.max_transitions": "[1, inf)",
    "score.min": "(-inf, inf)",
    "score.max": "(-inf, inf)",
    "reward.shift": "(-inf, inf)",
    **{name: RANGES[name] for name in ("discount", "expectile", "temperature", "actor_dropout", "min_weight")},
    "behaviour.noise": "[0, inf)",
    "behaviour.position_noise": "[0, inf)",
}
_WHOLE = ("env.frame_skip", "env.max_episode_steps", "dataset.max_transitions")
_NULLABLE = ("env.max_episode_steps", "env.goal_radius", "dataset.max_transitions", "score.min", "score.max")


def check_task(config: DictConfig) -> None:
    """Check a task and the seed.

    Raises:
        ConfigError: naming the key, the allowed range and what was found.
    """
    require_range(config, "seed", SEEDS, integer=True)
    for key, interval in _TASK.items():
        if key not in _NULLABLE or OmegaConf.select(config, f"task.{key}") is not None:
            require_range(config, f"task.{key}", interval, integer=key in _WHOLE)
    if config.task.reward.scale not in MEASURED:
        require_range(config, "task.reward.scale", "(-inf, inf)")
    sigma = config.task.sigma
    for value in sigma if isinstance(sigma, ListConfig) else [sigma]:
        require_range({"task": {"sigma": value}}, "task.sigma", "[0, inf)")
    low, high = config.task.score.min, config.task.score.max
    require((low is None) == (high is None), f"task.score needs both min and max or neither, found {low} and {high}.")
    require(low is None or low < high, f"task.score.min ({low}) must be less than task.score.max ({high}).")


def check_algorithm(config: DictConfig) -> None:
    """Check what the learners do not check of their own hyper-parameters.

    Raises:
        ConfigError: naming the key, the allowed range and what was found.
    """
    algorithm = config.algorithm
    for key in ("batch_size", "updates_per_step", *(["offline_steps"] if "offline_steps" in algorithm else [])):
        require_range(config, f"algorithm.{key}", "[1, inf)", integer=True)
    for key in ("hidden_sizes", "actor_hidden_sizes"):
        sizes = algorithm.get(key, [])
        require(isinstance(sizes, ListConfig | list), f"algorithm.{key} must be a list of sizes, found {sizes!r}.")
        for size in sizes:
            require_range({"algorithm": {key: size}}, f"algorithm.{key}", "[1, inf)", integer=True)
    for part in ("algorithm", "offline_algorithm"):
        compile = (config.get(part) or {}).get("compile", False)
        require(compile in (True, False, "auto"), f"{part}.compile must be auto, true or false, found {compile!r}.")
    require_range(config, "algorithm.num_critics", "[1, inf)", integer=True)
    if algorithm.get("subset_size") is not None:
        require_range(config, "algorithm.subset_size", "[1, inf)", integer=True)
        require(
            algorithm.get("aggregation", "subset") != "subset" or algorithm.subset_size <= algorithm.num_critics,
            f"algorithm.subset_size ({algorithm.subset_size}) must not exceed algorithm.num_critics"
            f" ({algorithm.num_critics}): it is the number of critics drawn from them.",
        )
    require(
        not algorithm.get("calibrate") or algorithm.discount < 1,
        "algorithm.calibrate=true compares with discounted returns, which a discount of 1 leaves without a bound where"
        " an episode was cut: give task.discount or algorithm.discount below 1.",
    )
    bounds = algorithm.get("value_bounds")
    for value in bounds or []:
        require_range({"algorithm": {"value_bounds": value}}, "algorithm.value_bounds", "(-inf, inf)")
    require(
        bounds is None or (len(bounds) == 2 and bounds[0] < bounds[1]),
        f"algorithm.value_bounds must be two ascending numbers, found {bounds}.",
    )
