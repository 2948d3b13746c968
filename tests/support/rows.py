"""Rows for buffers that are told apart by their number."""

from __future__ import annotations

import torch
from tensordict import TensorDict


def make_rows(count: int, first: int = 0) -> TensorDict:
    """Rows that can be told apart: observation and reward are the row's number."""
    number = torch.arange(first, first + count, dtype=torch.float32)[:, None]
    flag = number.remainder(3) == 0
    return TensorDict(
        {
            "observation": number.repeat(1, 3),
            "action": torch.full((count, 2), 0.5),
            "next": {
                "observation": number.repeat(1, 3) + 1,
                "reward": number,
                "done": flag,
                "terminated": flag,
                "truncated": ~flag,
            },
        },
        batch_size=[count],
    )
