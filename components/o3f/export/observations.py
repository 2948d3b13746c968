"""Real observations to compare a program on."""

from __future__ import annotations

import contextlib
import itertools
import warnings

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import DictConfig
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.algorithms import Learner
from o3f.envs import make_gym_env
from o3f.evaluation.playing import isolated, play
from o3f.training import build

ROWS = 1_000
STEPS = 300


def real_observations(trained: DictConfig, learner: Learner) -> tuple[Tensor, str]:
    """Return observations of a run's task, ``[B, O]``, and where they are from.

    The first :data:`ROWS` rows of its dataset where that is at hand; else :data:`STEPS` steps of its environment.
    """
    try:
        return _from_dataset(trained)
    except (OSError, RuntimeError, ValueError):  # not here, or not whole: what matters is only to have observations
        return _from_environment(trained, learner), f"{STEPS} steps of the policy in {trained.task.env.id}"


def _from_dataset(trained: DictConfig) -> tuple[Tensor, str]:
    config = trained.copy()
    if config.dataset.id == "none":
        raise ValueError("The run has no dataset.")
    config.dataset.storage, config.dataset.download = "memory", False
    config.dataset.max_transitions = min(ROWS, config.dataset.max_transitions or ROWS)
    config.task.reward = {"scale": 1.0, "shift": 0.0}
    with warnings.catch_warnings():  # the training has told what is odd about the dataset
        warnings.simplefilter("ignore")
        rows, _, facts = build.buffer(config)
    observations: Tensor = rows[:]["observation"].clone()
    return observations, f"the first {len(observations)} rows of {facts['dataset']}"


def _from_environment(trained: DictConfig, learner: Learner) -> Tensor:
    env = make_gym_env(build.env_config(trained), seed=trained.evaluation.seed)
    sample = set_exploration_type(ExplorationType.RANDOM)
    met: list[npt.NDArray[np.float32]] = []
    with contextlib.closing(env), isolated(learner.policy, trained.evaluation.seed), sample:
        while len(met) < STEPS:
            steps = itertools.islice(play(learner.policy, env, env.reset()[0]), STEPS - len(met))  # it may never end
            met += [step.observation for step in steps]
    return torch.from_numpy(np.stack(met))
