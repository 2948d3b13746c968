"""The critics' bias: exact on environments whose values are known."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torch import nn
from torchrl.modules import IndependentNormal

from o3f.data import RewardRule
from o3f.envs import EnvConfig
from o3f.evaluation.q_bias import counted_steps, discounted_returns, measure_q_bias, q_bias

DISCOUNT = 0.9
# Two states: from the first one goes to the second (reward 1), from there to the end (reward 5).
VALUES = {0.0: 1 + DISCOUNT * 5, 1.0: 5.0}


class TwoStates(gym.Env):
    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.state += 1
        return np.ones(1, np.float32), 1.0 if self.state == 1 else 5.0, self.state == 2, False, {}


class Endless(TwoStates):
    """Reward 2 for ever, cut by a time limit."""

    def step(self, action):
        return np.zeros(1, np.float32), 2.0, False, False, {}


gym.register("TwoStates-v0", TwoStates, max_episode_steps=10)
gym.register("Endless-v0", Endless, max_episode_steps=60)


class Policy(nn.Module):
    """N(0, 0.1) in the first state, N(0, 0.05) in the second."""

    def __init__(self):
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, observation):
        return self.zero * observation, torch.where(observation < 0.5, 0.1, 0.05)


def policy() -> ProbabilisticTensorDictSequential:
    return ProbabilisticTensorDictSequential(
        TensorDictModule(Policy(), ["observation"], ["loc", "scale"]),
        ProbabilisticTensorDictModule(["loc", "scale"], ["action"], distribution_class=IndependentNormal),
    )


class Critic(nn.Module):
    """The true values, scaled and shifted, by two critics that differ by 2 around them."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([scale, shift]))

    def forward(self, observation):
        values = torch.where(observation < 0.5, VALUES[0.0], VALUES[1.0]) * self.numbers[0] + self.numbers[1]
        return torch.cat([values - 1, values + 1], -1)


def measured(scale=1.0, shift=0.0, rule=None, env="TwoStates-v0", **kwargs) -> dict[str, float]:
    critic = TensorDictModule(Critic(scale, shift), ["observation"], ["state_action_value"])
    arguments = {"discount": DISCOUNT, "episodes": 3, "seed": 0, **kwargs}
    return measure_q_bias(policy(), critic, EnvConfig(id=env), rule=rule or RewardRule(), **arguments)


def test_exact_critics_have_no_bias():
    assert measured() == pytest.approx({"difference": 0.0, "relative": 0.0, "ratio": 1.0}, abs=1e-6)


def test_a_shift_and_a_scale():
    mean = (VALUES[0.0] + VALUES[1.0]) / 2
    assert measured(shift=3.0) == pytest.approx({"difference": 3, "relative": 3 / mean, "ratio": 1 + 3 / mean})
    assert measured(scale=40.0) == pytest.approx({"difference": 39 * mean, "relative": 39, "ratio": 40})


def test_the_learners_rewards_count():
    """Rewards doubled: critics of the raw ones are half of what they should be."""
    assert measured(rule=RewardRule(scale=2.0))["ratio"] == pytest.approx(0.5)


def test_entropy_terms():
    """E[-log pi] of N(0, 0.05) is known; only that of later steps counts."""
    figures = measured(entropy_weight=0.3, episodes=2000)
    entropy = 0.5 * np.log(2 * np.pi * np.e * 0.05**2)
    expected = -0.5 * DISCOUNT * 0.3 * entropy  # half of the steps are first ones
    assert figures["soft_difference"] == pytest.approx(expected, abs=0.02)
    assert figures["difference"] == pytest.approx(0.0, abs=1e-6)


def test_a_time_limit_cuts_what_is_counted():
    """The last 28 of 60 steps have less than 95 % of their return, and are left out."""
    assert DISCOUNT**29 <= 0.05 < DISCOUNT**28
    assert counted_steps(60, False, DISCOUNT) == 32
    assert counted_steps(20, False, DISCOUNT) == 0
    assert measured(env="Endless-v0", discount=0.99) == {}
    returns = [2 * (1 - DISCOUNT**n) / (1 - DISCOUNT) for n in range(29, 61)]
    found = measured(env="Endless-v0")
    assert found["difference"] == pytest.approx(VALUES[0.0] - np.mean(returns))


def test_the_training_stream_is_untouched():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    measured()
    assert torch.equal(torch.rand(3), expected)


def test_pure_functions():
    assert discounted_returns(np.array([1.0, 2.0, 3.0]), 0.5).tolist() == [2.75, 3.5, 3.0]
    assert discounted_returns(np.array([]), 0.5).tolist() == []
    assert q_bias(np.array([-1.0]), np.array([-2.0])) == {"difference": 1.0, "relative": 0.5, "ratio": 0.5}
