"""Implicit Q-learning once more: numpy, float64, one sample at a time, gradients derived by hand.

Nothing of the package, of torch or of autograd is used. A network is a list of layers, each with ``"W"``
``[in, out]`` and ``"b"`` ``[out]``, and with ``"g"`` and ``"h"`` (gain and shift) where LayerNorm follows;
then comes a ReLU, except after the last layer.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Layer = dict[str, np.ndarray]
Network = list[Layer]
EPS_NORM = 1e-5


def forward(network: Network, x: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Output for one input vector, and what the backward pass needs."""
    tape = []
    for index, layer in enumerate(network):
        step: dict[str, Any] = {"x": x}
        z = x @ layer["W"] + layer["b"]
        if index < len(network) - 1:
            if "g" in layer:
                step["scale"] = 1.0 / math.sqrt(np.mean((z - z.mean()) ** 2) + EPS_NORM)
                step["normal"] = (z - z.mean()) * step["scale"]
                z = layer["g"] * step["normal"] + layer["h"]
            step["open"] = z > 0
            z = np.where(step["open"], z, 0.0)
        tape.append(step)
        x = z
    return x, tape


def backward(network: Network, tape: list[dict[str, Any]], slope: np.ndarray, gradient: Network) -> np.ndarray:
    """Add to ``gradient`` the derivative of ``slope . output``; return that with respect to the input."""
    for layer, step, total in zip(network[::-1], tape[::-1], gradient[::-1], strict=True):
        if "open" in step:
            slope = np.where(step["open"], slope, 0.0)
            if "g" in layer:
                total["g"] += slope * step["normal"]
                total["h"] += slope
                inner = slope * layer["g"]
                normal = step["normal"]
                slope = step["scale"] * (inner - inner.mean() - normal * np.mean(inner * normal))
        total["W"] += np.outer(step["x"], slope)
        total["b"] += slope
        slope = layer["W"] @ slope
    return slope


def zeros_like(network: Network) -> Network:
    return [{name: np.zeros_like(value) for name, value in layer.items()} for layer in network]


@dataclass
class Adam:
    """Kingma & Ba, 2015, with bias correction."""

    rate: float
    steps: int = 0
    moments: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def step(self, network: Network, gradient: Network) -> None:
        self.steps += 1
        for index, layer in enumerate(network):
            for name in layer:
                g = gradient[index][name]
                first, second = self.moments.get(f"{index}{name}", (np.zeros_like(g), np.zeros_like(g)))
                first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
                self.moments[f"{index}{name}"] = first, second
                mean, square = first / (1 - 0.9**self.steps), second / (1 - 0.999**self.steps)
                layer[name] = layer[name] - self.rate * mean / (np.sqrt(square) + 1e-8)


@dataclass
class Oracle:
    """State of the algorithm; ``policy`` is the network of the mean before its tanh."""

    value: Network
    policy: Network
    log_std: np.ndarray
    critics: list[Network]
    expectile: float
    temperature: float
    discount: float
    tau: float
    rate: float
    actor_decay_steps: int | None = None

    def __post_init__(self) -> None:
        self.targets = copy.deepcopy(self.critics)
        self.updates = 0
        self.value_adam, self.policy_adam = Adam(self.rate), Adam(self.rate)
        self.log_std_adam = Adam(self.rate)
        self.critic_adams = [Adam(self.rate) for _ in self.critics]

    def update(self, batch: list[dict[str, Any]]) -> dict[str, float]:
        target_q = [
            min(float(forward(target, np.append(row["s"], row["a"]))[0][0]) for target in self.targets) for row in batch
        ]
        figures = {"loss/value": self._value_step(batch, target_q)}
        values = [float(forward(self.value, row["s"])[0][0]) for row in batch]
        advantages = [q - v for q, v in zip(target_q, values, strict=True)]
        figures["loss/actor"] = self._policy_step(batch, advantages)
        figures["loss/critic"], qs = self._critic_step(batch)
        for target, critic in zip(self.targets, self.critics, strict=True):
            for old, new in zip(target, critic, strict=True):
                for name in old:
                    old[name] = self.tau * new[name] + (1 - self.tau) * old[name]
        self.updates += 1
        clipped = [math.exp(min(self.temperature * a, 700.0)) > 100 for a in advantages]
        figures["critic/mean"] = float(np.mean(qs))
        figures["critic/std"] = float(np.mean([math.sqrt(np.mean((q - q.mean()) ** 2)) for q in qs]))
        figures["advantage/mean"] = float(np.mean(advantages))
        figures["advantage/clipped_share"] = float(np.mean(clipped))
        return figures

    def _value_step(self, batch: list[dict[str, Any]], target_q: list[float]) -> float:
        gradient, loss = zeros_like(self.value), 0.0
        for row, q in zip(batch, target_q, strict=True):
            output, tape = forward(self.value, row["s"])
            u = q - float(output[0])
            weight = self.expectile if u > 0 else 1 - self.expectile
            loss += weight * u**2 / len(batch)
            backward(self.value, tape, np.array([-2 * weight * u / len(batch)]), gradient)
        self.value_adam.step(self.value, gradient)
        return loss

    def _policy_step(self, batch: list[dict[str, Any]], advantages: list[float]) -> float:
        gradient, slope_log_std, loss = zeros_like(self.policy), np.zeros_like(self.log_std), 0.0
        inside = (self.log_std >= -5) & (self.log_std <= 2)
        std = np.exp(np.clip(self.log_std, -5, 2))
        for row, advantage in zip(batch, advantages, strict=True):
            output, tape = forward(self.policy, row["s"])
            mean = np.tanh(output)
            score = (row["a"] - mean) / std
            log_prob = np.sum(-0.5 * score**2 - np.log(std) - 0.5 * math.log(2 * math.pi))
            weight = min(math.exp(min(self.temperature * advantage, 700.0)), 100.0)
            loss -= weight * float(log_prob) / len(batch)
            backward(self.policy, tape, -weight * score / std * (1 - mean**2) / len(batch), gradient)
            slope_log_std -= np.where(inside, weight * (score**2 - 1) / len(batch), 0.0)
        rate = self.rate
        if self.actor_decay_steps is not None:
            share = min(self.updates / self.actor_decay_steps, 1.0)
            rate *= (1 + math.cos(math.pi * share)) / 2
        self.policy_adam.rate = self.log_std_adam.rate = rate
        self.policy_adam.step(self.policy, gradient)
        wrapped = [{"log_std": self.log_std}]
        self.log_std_adam.step(wrapped, [{"log_std": slope_log_std}])
        self.log_std = wrapped[0]["log_std"]
        return loss

    def _critic_step(self, batch: list[dict[str, Any]]) -> tuple[float, list[np.ndarray]]:
        gradients, loss, qs = [zeros_like(critic) for critic in self.critics], 0.0, []
        for row in batch:
            following = 0.0 if row["terminated"] else float(forward(self.value, row["next_s"])[0][0])
            y = row["r"] + self.discount * following
            q = np.empty(len(self.critics))
            for j, (critic, gradient) in enumerate(zip(self.critics, gradients, strict=True)):
                output, tape = forward(critic, np.append(row["s"], row["a"]))
                q[j] = output[0]
                loss += (q[j] - y) ** 2 / len(batch)
                backward(critic, tape, np.array([2 * (q[j] - y) / len(batch)]), gradient)
            qs.append(q)
        for adam, critic, gradient in zip(self.critic_adams, self.critics, gradients, strict=True):
            adam.step(critic, gradient)
        return loss, qs
