"""The transitions all contenders train on: random, of HalfCheetah's sizes."""

from __future__ import annotations

import numpy as np

OBSERVATION_DIM, ACTION_DIM = 17, 6
ROWS = 100_000
BATCH = 256
LAPO_BATCH = 512
DISCOUNT, TAU = 0.99, 0.005
EPISODE = 1_000

Columns = dict[str, np.ndarray]


def transitions(rows: int = ROWS, seed: int = 0) -> Columns:
    """Float32 columns ``[rows, width]``; one row in a hundred is terminal, each thousandth ends its episode."""
    random = np.random.default_rng(seed)
    observation = random.standard_normal((rows + 1, OBSERVATION_DIM), dtype=np.float32)
    terminated = random.random((rows, 1)) < 0.01
    truncated = (np.arange(1, rows + 1) % EPISODE == 0)[:, None] & ~terminated
    return {
        "observation": observation[:-1].copy(),
        "action": np.tanh(random.standard_normal((rows, ACTION_DIM), dtype=np.float32)),
        "reward": random.standard_normal((rows, 1), dtype=np.float32),
        "next_observation": observation[1:].copy(),
        "terminated": terminated,
        "truncated": truncated,
    }
