"""The metrics of an evaluation, as they are logged, printed and saved."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from omegaconf import DictConfig
from tensordict.nn import TensorDictModuleBase

from o3f.algorithms import Learner
from o3f.cli.progress import Progress
from o3f.data import RewardRule
from o3f.errors import EvaluationError
from o3f.evaluation.episodes import Evaluation, evaluate, normalised_score
from o3f.evaluation.q_bias import measure_q_bias
from o3f.evaluation.video import record_video
from o3f.runs.logger import RunLogger
from o3f.training.build import env_config, evaluated_choice


def summarise(evaluation: Evaluation, config: DictConfig) -> dict[str, float]:
    """Return the means over episodes.

    Returns:
        ``return`` (undiscounted, raw rewards), ``length`` (agent steps), ``score`` where the task has
        reference returns (0 to 100), ``success`` (share of episodes) where the environment tells.
    """
    metrics = {"return": float(np.mean(evaluation.returns)), "length": float(np.mean(evaluation.lengths))}
    reference = config.task.score
    if reference.min is not None and reference.max is not None:
        metrics["score"] = float(np.mean(normalised_score(evaluation.returns, reference.min, reference.max)))
    if evaluation.successes is not None:
        metrics["success"] = float(np.mean(evaluation.successes))
    return metrics


def evaluate_policy(policy: TensorDictModuleBase, config: DictConfig) -> dict[str, float]:
    """Evaluate the plain policy (its deterministic action) or another actor, always on the same episodes."""
    settings = config.evaluation
    evaluation = evaluate(policy, env_config(config), episodes=settings.episodes, seed=settings.seed)
    return summarise(evaluation, config)


def evaluate_and_log(
    logger: RunLogger, progress: Progress, step: int, learner: Learner, config: DictConfig, rule: RewardRule
) -> dict[str, Any]:
    """Evaluate, log the metrics as ``eval/*`` and print them in a line.

    Where it is asked for, the critics' choice plays the same episodes (``eval_optimistic/*``), ``bias/*`` is measured
    and a film is made. All of these are logged beside the policy's metrics, which alone are returned.

    Where the environment of the evaluation fails, that is a warning and the step has no score: training goes on.
    """
    try:
        metrics = evaluate_policy(learner.policy, config)
        choice = evaluate_policy(evaluated_choice(config, learner), config) if config.evaluation.optimistic else {}
        bias = _bias(learner, config, rule) if config.evaluation.q_bias_episodes else {}
    except EvaluationError as error:
        warnings.warn(f"Step {step} has no score, and training goes on. {error}", RuntimeWarning, stacklevel=2)
        return {"step": step}
    logger.log(step, {f"eval/{name}": value for name, value in metrics.items()})
    if choice:
        logger.log(step, {f"eval_optimistic/{name}": value for name, value in choice.items()})
    if bias:
        logger.log(step, {f"bias/{name}": value for name, value in bias.items()})
    if config.evaluation.video_every and step % config.evaluation.video_every == 0:
        film = logger.folder / "videos" / f"step_{step}.mp4"
        record_video(learner.policy, env_config(config), film, seed=config.evaluation.seed)
    told = [f"{name} {value:.1f}" for name, value in metrics.items()]
    told += [f"the critics' choice {name} {value:.1f}" for name, value in choice.items() if name in ("return", "score")]
    progress.say(f"step {step}: " + ", ".join(told))
    return {"step": step, **metrics}


def _bias(learner: Learner, config: DictConfig, rule: RewardRule) -> dict[str, float]:
    return measure_q_bias(
        learner.policy,
        learner.critic,
        env_config(config),
        rule=rule,
        discount=config.algorithm.discount,
        episodes=config.evaluation.q_bias_episodes,
        seed=config.evaluation.seed,
        entropy_weight=learner.entropy_weight,
    )
