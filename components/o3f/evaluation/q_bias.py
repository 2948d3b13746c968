"""How far the critics are from the returns that the policy really gets."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.data import RewardRule, discounted_returns
from o3f.envs import EnvConfig, episode_seed
from o3f.envs.flat_observation import FlatObservation
from o3f.errors import number
from o3f.evaluation.playing import isolated, own_env, play, with_place
from o3f.modules.arguments import whole_number

Floats = npt.NDArray[np.float64]

REMAINING = 0.05
"""Steps of a truncated episode count while the cut-off part of their return has at most this weight."""


@dataclass(frozen=True)
class Trajectory:
    """One episode played: observations ``[T, O]``, actions ``[T, A]``, rewards ``[T]``, and how it ended."""

    observations: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    rewards: Floats
    terminated: bool


def q_bias(values: Floats, returns: Floats) -> dict[str, float]:
    r"""Three definitions of the critics' bias; the paper, which plots one, does not say which.

    .. math::
        \text{difference} = E[Q - G], \quad \text{relative} = E[Q - G] / |E[G]|, \quad \text{ratio} = E[Q] / E[G]

    with Q = ``values``, the mean over the critics, and G = ``returns``.

    Args:
        values: ``[D]``.
        returns: ``[D]``.

    Examples:
        >>> q_bias(np.array([3.0, 5.0]), np.array([1.0, 3.0]))
        {'difference': 2.0, 'relative': 1.0, 'ratio': 2.0}
    """
    if np.shape(values) != np.shape(returns) or not np.size(values):
        raise ValueError(
            f"Expected as many values as returns, at least one, got {np.shape(values)} and {np.shape(returns)}."
        )
    value, target = float(np.mean(values)), float(np.mean(returns))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative, ratio = np.divide(value - target, abs(target)), np.divide(value, target)
    return {"difference": value - target, "relative": float(relative), "ratio": float(ratio)}


def measure_q_bias(
    policy: TensorDictModuleBase,
    critic: TensorDictModuleBase,
    config: EnvConfig,
    *,
    rule: RewardRule,
    discount: float,
    episodes: int,
    seed: int,
    entropy_weight: float | None = None,
) -> dict[str, float]:
    r"""Play episodes with the policy as it samples, and compare the critics with the returns.

    G is the discounted Monte Carlo return of the learner's rewards, from every step on. Where a time limit cut
    the episode, steps count whose missing rest weighs at most 5 % (:data:`REMAINING`); with none left,
    the result is empty. With ``entropy_weight`` alpha the entropy terms of soft critics are added,

    .. math:: G^{soft}_t = r_t + \gamma \left( -\alpha \log \pi(a_{t+1} | s_{t+1}) + G^{soft}_{t+1} \right)

    Args:
        policy: reads ``observation`` and writes ``action``.
        critic: writes ``state_action_value`` ``[*B, m]``.
        config: the environment.
        rule: from raw rewards to the learner's.
        discount: gamma.
        episodes: how many to play.
        seed: of the episodes and of what the policy draws; the training's streams are untouched.
        entropy_weight: alpha of a soft actor-critic; None leaves the soft metrics out.

    Returns:
        ``difference``, ``relative`` and ``ratio`` of :func:`q_bias`, and with ``entropy_weight`` the same
        names with ``soft_`` before them.
    """
    episodes = whole_number("episodes", episodes)
    number("discount", discount, "[0, 1]")
    kept: dict[str, list[Floats]] = {"values": [], "hard": [], "soft": []}
    with contextlib.ExitStack() as stack:
        stack.enter_context(isolated(policy, seed))
        stack.enter_context(set_exploration_type(ExplorationType.RANDOM))
        env = stack.enter_context(contextlib.closing(own_env(config)))
        for episode in range(episodes):
            played = _play(policy, env, episode_seed(seed, episode), rule)
            count = counted_steps(len(played.rewards), played.terminated, discount)
            values, log_probs = _judge(policy, critic, played, entropy_weight is not None)
            bonus = np.append(-(entropy_weight or 0.0) * log_probs[1:], 0.0)
            kept["values"].append(values[:count])
            kept["hard"].append(discounted_returns(played.rewards, discount)[:count])
            kept["soft"].append(discounted_returns(played.rewards + discount * bonus, discount)[:count])
    values, hard, soft = (np.concatenate(parts) for parts in kept.values())
    if not len(values):
        return {}
    metrics = q_bias(values, hard)
    if entropy_weight is not None:
        metrics |= {f"soft_{name}": value for name, value in q_bias(values, soft).items()}
    return metrics


def counted_steps(length: int, terminated: bool, discount: float) -> int:
    """How many of an episode's first steps have a return that is complete, or nearly (:data:`REMAINING`).

    Examples:
        >>> counted_steps(1000, False, 0.99), counted_steps(1000, True, 0.99)
        (702, 1000)
    """
    if terminated:
        return length
    weights = discount ** np.arange(length, 0, -1)
    return int(np.count_nonzero(weights <= REMAINING))


def _play(policy: TensorDictModuleBase, env: FlatObservation, seed: int, rule: RewardRule) -> Trajectory:
    with with_place("at the start of an episode"):
        observation, _ = env.reset(seed=seed)
    steps = list(play(policy, env, observation))
    raw = torch.tensor([step.reward for step in steps], dtype=torch.float64)
    observations = np.stack([step.observation for step in steps])
    actions = np.stack([step.action for step in steps])
    return Trajectory(observations, actions, rule.of_episode(raw).numpy(), steps[-1].terminated)


@torch.no_grad()
def _judge(
    policy: TensorDictModuleBase, critic: TensorDictModuleBase, played: Trajectory, with_log_prob: bool
) -> tuple[Floats, Floats]:
    """The critics' mean values and, if asked for, the policy's log-probabilities, ``[T]`` each."""
    device = next(critic.parameters()).device
    rows: Any = {"observation": torch.from_numpy(played.observations), "action": torch.from_numpy(played.actions)}
    steps = TensorDict(rows, [len(played.rewards)], device=device)
    log_probs = torch.zeros(len(played.rewards))
    if with_log_prob:
        chooser: Any = policy
        log_probs = chooser.get_dist(steps.select("observation")).log_prob(steps["action"])
    values = critic(steps).get(critic.out_keys[-1]).mean(-1)
    return values.cpu().double().numpy(), log_probs.cpu().double().numpy()
