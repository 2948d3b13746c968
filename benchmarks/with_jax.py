"""Contender ``jax``: implicit Q-learning as one jitted function, the form its authors gave it.

Our own transcription of the paper's equations (https://arxiv.org/abs/2110.06169), in the order V, policy, critics,
targets; the critics are stacked and mapped over. It is compared with the plain version by a test wherever JAX is
installed. It needs NumPy and JAX alone: ``contenders.jax.python=PATH``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import jax
import jax.numpy as jnp
import numpy as np

from .data import ACTION_DIM, BATCH, DISCOUNT, OBSERVATION_DIM, TAU, transitions

Tree = Any
Cases = dict[str, Callable[[], int]]

EXPECTILE, TEMPERATURE, RATE = 0.7, 3.0, 3e-4
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def mlp(layers: Tree, x: jax.Array) -> jax.Array:
    """Linear layers ``(weight [in, out], bias)`` with ReLU between them."""
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def value(layers: Tree, s: jax.Array) -> jax.Array:
    """V, ``[B]``."""
    return mlp(layers, s)[:, 0]


def critics(stacked: Tree, s: jax.Array, a: jax.Array) -> jax.Array:
    """What each critic says, ``[m, B]``."""
    return jax.vmap(value, (0, None))(stacked, jnp.concatenate([s, a], -1))


def log_prob(policy: Tree, s: jax.Array, a: jax.Array) -> jax.Array:
    """Log-density of actions, ``[B]``."""
    log_std = jnp.clip(policy["log_std"], -5.0, 2.0)
    z = (a - jnp.tanh(mlp(policy["layers"], s))) / jnp.exp(log_std)
    return (-0.5 * z**2 - log_std - 0.5 * jnp.log(2 * jnp.pi)).sum(-1)


def init(num_critics: int) -> Tree:
    """Parameters, their targets and Adam's moments."""
    keys = iter(jax.random.split(jax.random.key(0), 64))

    def layers(*sizes: int) -> Tree:
        shapes = list(itertools.pairwise(sizes))
        return [(jax.random.normal(next(keys), shape) / shape[0] ** 0.5, jnp.zeros(shape[1])) for shape in shapes]

    each = [layers(OBSERVATION_DIM + ACTION_DIM, 256, 256, 1) for _ in range(num_critics)]
    params = {
        "policy": {"layers": layers(OBSERVATION_DIM, 256, 256, ACTION_DIM), "log_std": jnp.zeros(ACTION_DIM)},
        "value": layers(OBSERVATION_DIM, 256, 256, 1),
        "critics": jax.tree.map(lambda *parts: jnp.stack(parts), *each),
    }
    return begin(params)


def begin(params: Tree) -> Tree:
    """The state of training before the first step."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    copy = jax.tree.map(jnp.copy, params["critics"])
    return {"params": params, "targets": copy, "first": zeros, "second": jax.tree.map(jnp.copy, zeros), "step": 0.0}


def adam(state: Tree, name: str, gradient: Tree) -> None:
    """Take a step of one network, in ``state``; the step's number is that of the update."""
    tree, step = jax.tree.map, state["step"]
    state["first"][name] = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, state["first"][name], gradient)
    state["second"][name] = tree(lambda v, g: BETA2 * v + (1 - BETA2) * g**2, state["second"][name], gradient)
    scale = RATE / (1 - BETA1**step)

    def moved(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        return p - scale * m / (jnp.sqrt(v / (1 - BETA2**step)) + EPSILON)

    state["params"][name] = tree(moved, state["params"][name], state["first"][name], state["second"][name])


@partial(jax.jit, donate_argnums=0)
def update(state: Tree, batch: tuple[jax.Array, ...]) -> Tree:
    """Take one step of everything; ``state`` is not to be used again."""
    s, a, r, next_s, alive = batch
    state = jax.tree.map(lambda leaf: leaf, state)  # new containers, the same arrays
    params = state["params"]
    state["step"] = state["step"] + 1.0
    q = critics(state["targets"], s, a).min(0)

    def expectile(layers: Tree) -> jax.Array:
        u = q - value(layers, s)
        return (jnp.where(u > 0, EXPECTILE, 1 - EXPECTILE) * u**2).mean()

    adam(state, "value", jax.grad(expectile)(params["value"]))
    weight = jnp.minimum(jnp.exp(TEMPERATURE * (q - value(params["value"], s))), 100.0)
    adam(state, "policy", jax.grad(lambda policy: -(weight * log_prob(policy, s, a)).mean())(params["policy"]))
    target = r + DISCOUNT * alive * value(params["value"], next_s)

    def squared(stacked: Tree) -> jax.Array:
        return ((critics(stacked, s, a) - target) ** 2).mean(1).sum()

    adam(state, "critics", jax.grad(squared)(params["critics"]))
    follow = partial(jax.tree.map, lambda old, new: old + TAU * (new - old))
    state["targets"] = follow(state["targets"], params["critics"])
    return state


def learning(num_critics: int) -> Cases:
    """Sample with NumPy and update."""
    columns = transitions()
    alive = (~columns["terminated"][:, 0]).astype(np.float32)
    parts = (columns["observation"], columns["action"], columns["reward"][:, 0], columns["next_observation"], alive)
    state, random = init(num_critics), np.random.default_rng(0)

    def step() -> int:
        nonlocal state
        rows = random.integers(len(alive), size=BATCH)
        state = jax.block_until_ready(update(state, tuple(part[rows] for part in parts)))
        return 1

    return {"update": step}


WORKLOADS: dict[str, Callable[[], Cases]] = {"iql2": lambda: learning(2), "iql5": lambda: learning(5)}
