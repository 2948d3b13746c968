"""What the learners of soft actor-critic and CQL share: their networks, and which of several batches serves what."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from o3f.algorithms.agent import Agent, make_critics
from o3f.algorithms.compiled_step import Step
from o3f.algorithms.learner import Learner, batch_list
from o3f.modules import tanh_gaussian_policy


def soft_networks(observation_dim: int, action_dim: int, config: Any, device: torch.device | str | None) -> Agent:
    """Build the policy and the critics that SAC and CQL share, so that one can start from the other.

    Args:
        observation_dim: O.
        action_dim: A.
        config: a :class:`~o3f.algorithms.SACConfig` or a :class:`~o3f.algorithms.CQLConfig`.
        device: of both.
    """
    sizes, init = tuple(config.hidden_sizes), config.init
    policy = tanh_gaussian_policy(
        observation_dim,
        action_dim,
        sizes,
        init=init,
        layer_norm=config.actor_layer_norm,
        normalise=config.normalise,
        device=device,
    )
    critic = make_critics(observation_dim, action_dim, config, device)
    return Agent(policy, critic)


class SoftLearner(Learner):
    """What soft actor-critic and CQL share: of several batches all but the last serve the critics and their targets."""

    _take_step: Step
    _take_critic_step: Step

    @property
    def entropy_weight(self) -> float | None:
        """The temperature, where the critics' targets count the policy's entropy."""
        return self.loss.alpha.item() if self.config.entropy_backup else None

    @abstractmethod
    def _critic_step(self, batch: TensorDictBase, next_value: Tensor | None) -> dict[str, Tensor]: ...

    def update(self, batches: Sequence[TensorDictBase], *, report: bool = True) -> dict[str, Tensor]:
        """Take one step of the critics per batch ``[B]``, of the rest on the last; return its metrics, 0-d."""
        metrics: dict[str, Tensor] = {}
        for index, batch in enumerate(batch_list(batches)):
            step = self._take_step if index == len(batches) - 1 else self._take_critic_step
            metrics = step(batch, None if self.next_value is None else self.next_value(batch))
            self.updates += 1
        return metrics if report else {}

    def _critics_alone(self, batch: TensorDictBase, next_value: Tensor | None) -> dict[str, Tensor]:
        metrics = self._critic_step(batch, next_value)
        self.loss.update_targets(self.config.tau)
        return metrics
