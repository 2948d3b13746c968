"""Behaviours that need no knowledge of the task: uniform, Gaussian MLP files, any TensorDict policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.collection.behaviours.gaussian_mlp import GaussianMLP
from o3f.collection.behaviours.rollout import Array, Behaviour
from o3f.data.observations import ObservationLayout
from o3f.evaluation.playing import act


class UniformBehaviour(Behaviour):
    """Uniform actions in [-1, 1], the recipe of D4RL's random datasets.

    Args:
        action_dim: A.
    """

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def act(self, observation: Any, rng: np.random.Generator) -> Array:
        """Draw an action."""
        return rng.uniform(-1.0, 1.0, self.action_dim)


class GaussianMLPBehaviour(Behaviour):
    """Gaussian MLPs, one per episode in turn: several snapshots of a training run make mixed data.

    Args:
        policies: used in turn, by episode number.
        layout: flattens the raw observation.
        sample: False acts with the mean.
        noise: standard deviation of Gaussian noise added to the action.

    Raises:
        ValueError: if a policy reads observations of another size than the layout's.
    """

    def __init__(
        self,
        policies: Sequence[GaussianMLP],
        layout: ObservationLayout,
        *,
        sample: bool = True,
        noise: float = 0.0,
    ) -> None:
        for policy in policies:
            if policy.observation_dim != layout.size:
                raise ValueError(
                    f"The policy reads observations of size {policy.observation_dim}, the environment gives"
                    f" {layout.size}. Use a policy of this environment, or set observation_keys."
                )
        self.policies, self.layout, self.sample, self.noise = policies, layout, sample, noise
        self.policy = policies[0]

    def start(self, episode: int, rng: np.random.Generator) -> None:
        """Take the next policy."""
        self.policy = self.policies[episode % len(self.policies)]

    def act(self, observation: Any, rng: np.random.Generator) -> Array:
        """Act with the episode's policy."""
        flat = self.layout.flatten(observation)
        action = self.policy.sample(flat, rng) if self.sample else self.policy.mode(flat)
        return action + self.noise * rng.standard_normal(action.shape) if self.noise else action


class PolicyBehaviour(Behaviour):
    """Any TensorDict policy that reads ``observation`` and writes ``action``.

    It draws from torch's global stream, which :func:`~o3f.collection.behaviours.rollout` seeds for each episode.

    Args:
        policy: a policy of this environment, actions in [-1, 1].
        layout: flattens the raw observation.
        sample: False acts deterministically.
    """

    def __init__(self, policy: TensorDictModuleBase, layout: ObservationLayout, *, sample: bool = True) -> None:
        self.policy, self.layout = policy, layout
        self.exploration = ExplorationType.RANDOM if sample else ExplorationType.DETERMINISTIC
        self.is_init = True

    def start(self, episode: int, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self.is_init = True

    def act(self, observation: Any, rng: np.random.Generator) -> Array:
        """Act with the policy."""
        with set_exploration_type(self.exploration):
            (action,) = act(self.policy, self.layout.flatten(observation)[None], [self.is_init])
        self.is_init = False
        return np.asarray(action)
