"""Agents of rlkit: SAC and CQL with a ``TanhGaussianPolicy`` (https://github.com/rail-berkeley/rlkit).

| network | names |
|---|---|
| policy | ``policy.fc{i}``, ``policy.last_fc``, ``policy.last_fc_log_std`` |
| critics | ``qf{k}.fc{i}``, ``qf{k}.last_fc``, with k from 1 |

Layers are linear, with ReLU between them. The logarithm of the standard deviation is clipped to [-20, 2]. Actions are
in [-1, 1], as here; rewards are as its ``reward_scale`` leaves them: give ``task.reward`` the same scale. Where
observations were z-scored, add ``observation_mean`` and ``observation_std``; for the temperature, ``log_alpha``. The
``GaussianPolicy`` of its AWAC and IQL has the same names but is another function: give that as a module.
"""

from __future__ import annotations

import math

from o3f.adapters import networks
from o3f.adapters.networks import join
from o3f.adapters.tensors import Linear, Tensors
from o3f.algorithms.agent import Agent
from o3f.errors import require


def is_rlkit(tensors: Tensors) -> bool:
    """Whether the names are those of rlkit."""
    return tensors.has("policy.fc") or tensors.has("policy.last_fc")


def read_rlkit(tensors: Tensors) -> Agent:
    """Build the agent of the networks' state dicts, see the table above.

    Raises:
        ConfigError: a tensor is missing, not known, or of another shape than the others imply.
    """
    hidden = _hidden(tensors, "policy")
    heads = join(tensors.take_linear("policy.last_fc"), tensors.take_linear("policy.last_fc_log_std"))
    layers = tensors.chain([*hidden, heads], "policy")
    observation_dim, _, outputs = networks.widths(layers)
    statistics = tensors.take_statistics("observation_mean", "observation_std", observation_dim)
    policy = networks.tanh_gaussian(layers, bounds=(-20.0, 2.0), statistics=statistics)
    tensors.drop("target_qf")
    members = [
        tensors.chain([*_hidden(tensors, name), tensors.take_linear(f"{name}.last_fc")], name)
        for name in _numbered(tensors, "qf", 1)
    ]
    critic = networks.critics(members, outputs // 2, statistics) if members else None
    log_alpha = tensors.take_number("log_alpha")
    tensors.finish()
    temperature = None if log_alpha is None else math.exp(log_alpha)
    return Agent(policy, critic, None, temperature, f"{tensors.origin} (rlkit)")


def _hidden(tensors: Tensors, name: str) -> list[Linear]:
    return [tensors.take_linear(layer) for layer in _numbered(tensors, f"{name}.fc", 0)]


def _numbered(tensors: Tensors, prefix: str, first: int) -> list[str]:
    """The names that begin so. A gap in their numbers is an error: layers of one width fit without one of them."""
    found = tensors.indices(prefix)
    expected = list(range(first, first + len(found)))
    require(
        found == expected,
        f"{tensors.origin}: the numbers after {prefix} are {found}, expected {expected}: a part is missing.",
    )
    return [f"{prefix}{number}" for number in found]
