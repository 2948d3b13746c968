"""Critics' values of candidate actions, within a memory bound."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor

from o3f.modules.calls import critic_values, replaced, takes_tensors


def candidate_values(
    critic: Any,
    states: TensorDictBase,
    candidates: Tensor,
    *,
    action_key: NestedKey,
    value_key: NestedKey,
    chunk_size: int,
) -> Tensor:
    """Evaluate ``critic`` on every (state, candidate) pair, at most ``chunk_size`` pairs at a time.

    Args:
        critic: reads ``states`` and ``action_key``, writes ``value_key`` ``[..., m]``.
        states: what the critic reads beside the action, of batch shape ``[*B]``.
        candidates: actions ``[*B, N, A]``.
        action_key: the action's entry.
        value_key: the values' entry.
        chunk_size: most pairs in one call.

    Returns:
        The values ``[*B, N, m]``.
    """

    def values(part: TensorDictBase, actions: Tensor) -> Tensor:
        if takes_tensors(critic):
            return critic_values(critic, replaced(critic, part, action_key, actions), value_key)
        inputs = part.unsqueeze(-1).expand(actions.shape[:-1]).set(action_key, actions)
        written: Tensor = critic(inputs).get(value_key)
        return written

    *batch, count, size = candidates.shape
    if candidates.shape[:-1].numel() <= chunk_size:
        return values(states, candidates)
    rows, columns = max(1, chunk_size // count), min(count, chunk_size)
    chunks = [
        torch.cat([values(part, actions) for actions in torch.split(some, columns, dim=1)], dim=1)
        for part, some in zip(
            states.reshape(-1).split(rows),
            torch.split(candidates.reshape(-1, count, size), rows),
            strict=True,
        )
    ]
    joined = torch.cat(chunks)
    return joined.reshape(*batch, count, joined.shape[-1])
