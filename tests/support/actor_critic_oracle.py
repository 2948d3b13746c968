"""AWAC and CQL once more: numpy, float64, one sample at a time, gradients derived by hand.

Networks, their passes and Adam are those of :mod:`tests.support.iql_oracle`. The draws are given: standard normal
numbers and uniform actions, in the shapes in which the learners draw them.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.support.iql_oracle import Adam, Network, backward, forward, zeros_like

Row = dict[str, Any]


def value(critic: Network, s: np.ndarray, a: np.ndarray) -> float:
    return float(forward(critic, np.append(s, a))[0][0])


def aggregate(values: list[float], rule: str) -> float:
    return min(values) if rule == "min" else sum(values) / len(values)


def polyak(targets: list[Network], critics: list[Network], tau: float) -> None:
    for target, critic in zip(targets, critics, strict=True):
        for old, new in zip(target, critic, strict=True):
            for name in old:
                old[name] = tau * new[name] + (1 - tau) * old[name]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@dataclass
class AWACOracle:
    policy: Network
    log_std: np.ndarray
    critics: list[Network]
    lam: float
    weighting: str
    discount: float
    tau: float
    rate: float
    weight_decay: float
    aggregation: str

    def __post_init__(self) -> None:
        self.targets = copy.deepcopy(self.critics)
        self.policy_adam, self.log_std_adam = Adam(self.rate), Adam(self.rate)
        self.critic_adams = [Adam(self.rate) for _ in self.critics]

    def _std(self) -> np.ndarray:
        return np.exp(-6 + 6 * sigmoid(self.log_std))

    def _sample(self, s: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return np.clip(np.tanh(forward(self.policy, s)[0]) + self._std() * noise, -1, 1)

    def _q(self, critics: list[Network], s: np.ndarray, a: np.ndarray) -> float:
        return aggregate([value(critic, s, a) for critic in critics], self.aggregation)

    def update(self, batch: list[Row], next_noise: np.ndarray, noise: np.ndarray) -> dict[str, float]:
        gradients, loss, size = [zeros_like(critic) for critic in self.critics], 0.0, len(batch)
        for row, eps in zip(batch, next_noise, strict=True):
            following = self._q(self.targets, row["next_s"], self._sample(row["next_s"], eps))
            y = row["r"] + (0.0 if row["terminated"] else self.discount * following)
            for critic, gradient in zip(self.critics, gradients, strict=True):
                output, tape = forward(critic, np.append(row["s"], row["a"]))
                loss += (output[0] - y) ** 2 / size
                backward(critic, tape, 2 * (output - y) / size, gradient)
        for adam, critic, gradient in zip(self.critic_adams, self.critics, gradients, strict=True):
            adam.step(critic, gradient)
        advantages = [
            self._q(self.critics, row["s"], row["a"]) - self._q(self.critics, row["s"], self._sample(row["s"], eps))
            for row, eps in zip(batch, noise, strict=True)
        ]
        actor_loss = self._policy_step(batch, self._weights(advantages))
        polyak(self.targets, self.critics, self.tau)
        return {
            "loss/critic": loss,
            "loss/actor": actor_loss,
            "advantage/mean": sum(advantages) / size,
        }

    def _weights(self, advantages: list[float]) -> list[float]:
        powers = [math.exp(a / self.lam) for a in advantages]
        if self.weighting == "exp":
            return [min(power, 100.0) for power in powers]
        return [power / sum(powers) * len(powers) for power in powers]

    def _policy_step(self, batch: list[Row], weights: list[float]) -> float:
        gradient, slope_log_std, loss = zeros_like(self.policy), np.zeros_like(self.log_std), 0.0
        std, s = self._std(), sigmoid(self.log_std)
        for row, weight in zip(batch, weights, strict=True):
            output, tape = forward(self.policy, row["s"])
            mean = np.tanh(output)
            score = (row["a"] - mean) / std
            log_prob = np.sum(-0.5 * score**2 - np.log(std) - 0.5 * math.log(2 * math.pi))
            loss -= weight * float(log_prob) / len(batch)
            backward(self.policy, tape, -weight * score / std * (1 - mean**2), gradient)
            slope_log_std -= weight * (score**2 - 1) * 6 * s * (1 - s)
        for layer, slopes in zip(self.policy, gradient, strict=True):
            for name in layer:
                slopes[name] += self.weight_decay * layer[name]
        self.policy_adam.step(self.policy, gradient)
        wrapped = [{"log_std": self.log_std}]
        self.log_std_adam.step(wrapped, [{"log_std": slope_log_std + self.weight_decay * self.log_std}])
        self.log_std = wrapped[0]["log_std"]
        return loss


@dataclass
class Draws:
    """Standard normal: of the action [B, A], proposals [n, 2, B, A], next action [B, A]; uniform [B, n, A]."""

    action: np.ndarray
    proposals: np.ndarray
    uniform: np.ndarray
    next_action: np.ndarray | None


@dataclass
class CQLOracle:
    policy: Network
    critics: list[Network]
    config: Any
    log_std_bounds: tuple[float, float] = (-5.0, 2.0)

    def __post_init__(self) -> None:
        c = self.config
        self.targets = copy.deepcopy(self.critics)
        self.scalars = {"alpha": 0.0, "multiplier": 0.0}  # logarithms
        self.policy_adam = Adam(c.actor_learning_rate)
        self.critic_adams = [Adam(c.critic_learning_rate) for _ in self.critics]
        self.scalar_adams = {
            "alpha": Adam(c.temperature_learning_rate),
            "multiplier": Adam(c.lagrange_learning_rate),
        }

    def _step_scalar(self, name: str, slope: float) -> None:
        wrapped = [{"x": np.array(self.scalars[name])}]
        self.scalar_adams[name].step(wrapped, [{"x": np.array(slope)}])
        self.scalars[name] = float(wrapped[0]["x"])

    def _draw(self, s: np.ndarray, eps: np.ndarray) -> tuple[np.ndarray, float]:
        """Action and log-density."""
        loc, log_std = np.split(forward(self.policy, s)[0], 2)
        log_std = np.clip(log_std, *self.log_std_bounds)
        u = loc + np.exp(log_std) * eps
        log_slope = 2 * (math.log(2) - u - np.log1p(np.exp(-2 * u)))  # log(1 - tanh(u)^2)
        density = -0.5 * eps**2 - log_std - 0.5 * math.log(2 * math.pi) - log_slope
        return np.tanh(u), float(density.sum())

    def update(self, batch: list[Row], draws: Draws) -> dict[str, float]:
        alpha, size, actions = math.exp(self.scalars["alpha"]), len(batch), len(batch[0]["a"])
        log_probs = [self._draw(row["s"], eps)[1] for row, eps in zip(batch, draws.action, strict=True)]
        excess = sum(log_probs) / size - actions  # the target entropy is -A
        figures = {"loss/temperature": -self.scalars["alpha"] * excess, "entropy": -sum(log_probs) / size}
        self._step_scalar("alpha", -excess)
        figures["temperature"] = alpha
        figures |= self._critic_step(batch, draws)
        figures["loss/actor"] = self._policy_step(batch, draws.action)
        polyak(self.targets, self.critics, self.config.tau)
        return figures

    def _proposals(self, row: Row, b: int, draws: Draws) -> list[tuple[np.ndarray, float]]:
        found = []
        for pair in draws.proposals:
            found += [self._draw(row["s"], pair[0][b]), self._draw(row["next_s"], pair[1][b])]
        return found + [(action, -len(action) * math.log(2)) for action in draws.uniform[b]]

    def _target(self, row: Row, b: int, draws: Draws) -> float:
        if row["terminated"]:
            return float(row["r"])
        if draws.next_action is None:
            action, log_prob = np.tanh(np.split(forward(self.policy, row["next_s"])[0], 2)[0]), 0.0
        else:
            action, log_prob = self._draw(row["next_s"], draws.next_action[b])
        following = aggregate([value(t, row["next_s"], action) for t in self.targets], self.config.aggregation)
        if self.config.entropy_backup:
            following -= math.exp(self.scalars["alpha"]) * log_prob
        return float(row["r"] + self.config.discount * following)

    def _critic_step(self, batch: list[Row], draws: Draws) -> dict[str, float]:
        c, size, count = self.config, len(batch), len(self.critics)
        proposals = [self._proposals(row, b, draws) for b, row in enumerate(batch)]
        gaps, shares = np.zeros((size, count)), {}
        for b, row in enumerate(batch):
            for j, critic in enumerate(self.critics):
                powers = [math.exp(value(critic, row["s"], a) - p) for a, p in proposals[b]]
                gaps[b, j] = math.log(sum(powers)) - value(critic, row["s"], row["a"])
                shares[b, j] = [power / sum(powers) for power in powers]
        excess = c.conservative_weight * gaps
        if c.lagrange == "weighted_gap":
            excess = excess - c.lagrange_threshold
        elif c.lagrange == "weighted_excess":
            excess = excess - c.conservative_weight * c.lagrange_threshold
        per_row = excess.mean(1) if c.gap_reduction == "mean" else excess.sum(1)
        figures, multiplier = {"cql/gap": float(gaps.mean())}, 1.0
        if c.lagrange is not None:
            before = math.exp(self.scalars["multiplier"])
            figures |= {"loss/lagrange": -before * float(per_row.mean()), "cql/multiplier": before}
            self._step_scalar("multiplier", -before * float(per_row.mean()))
            multiplier = math.exp(self.scalars["multiplier"])
        push = multiplier * c.conservative_weight / size / (count if c.gap_reduction == "mean" else 1)
        gradients, loss = [zeros_like(critic) for critic in self.critics], multiplier * float(per_row.mean())
        for b, row in enumerate(batch):
            y = self._target(row, b, draws)
            for j, (critic, gradient) in enumerate(zip(self.critics, gradients, strict=True)):
                output, tape = forward(critic, np.append(row["s"], row["a"]))
                loss += (output[0] - y) ** 2 / size
                backward(critic, tape, 2 * (output - y) / size - push, gradient)
                for (action, _), share in zip(proposals[b], shares[b, j], strict=True):
                    tape = forward(critic, np.append(row["s"], action))[1]
                    backward(critic, tape, np.array([push * share]), gradient)
        for adam, critic, gradient in zip(self.critic_adams, self.critics, gradients, strict=True):
            adam.step(critic, gradient)
        return {**figures, "loss/critic": float(loss)}

    def _policy_step(self, batch: list[Row], noise: np.ndarray) -> float:
        alpha, gradient, loss = math.exp(self.scalars["alpha"]), zeros_like(self.policy), 0.0
        low, high = self.log_std_bounds
        for row, eps in zip(batch, noise, strict=True):
            output, policy_tape = forward(self.policy, row["s"])
            raw = np.split(output, 2)[1]
            std = np.exp(np.clip(raw, low, high))
            action, log_prob = self._draw(row["s"], eps)
            passes = [forward(critic, np.append(row["s"], action)) for critic in self.critics]
            values = [float(q[0]) for q, _ in passes]
            chosen = [values.index(min(values))] if self.config.actor_aggregation == "min" else range(len(values))
            rise = np.zeros_like(action)
            for j in chosen:
                unused = zeros_like(self.critics[j])
                slope = backward(self.critics[j], passes[j][1], np.ones(1), unused)
                rise += slope[len(row["s"]) :] / len(chosen)
            loss += (alpha * log_prob - sum(values[j] for j in chosen) / len(chosen)) / len(batch)
            before_tanh = alpha * 2 * action - rise * (1 - action**2)
            spread = np.where((raw >= low) & (raw <= high), before_tanh * std * eps - alpha, 0.0)
            backward(self.policy, policy_tape, np.append(before_tanh, spread) / len(batch), gradient)
        self.policy_adam.step(self.policy, gradient)
        return loss
