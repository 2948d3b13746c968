"""Choices among scored candidates."""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase

from o3f.modules.keys import key_list


class Argmax(TensorDictModuleBase):
    """The candidate of the highest score, the first of them on ties.

    Reads ``"candidates"`` ``[*B, N, A]`` and ``"scores"`` ``[*B, N]``, writes ``action_key`` ``[*B, A]``. A
    candidate whose score is NaN is never chosen.

    Args:
        action_key: entry to write.

    Raises:
        RuntimeError: at the call, if all candidates of a state have NaN scores.
    """

    def __init__(self, action_key: NestedKey = "action") -> None:
        super().__init__()
        self.in_keys = ["candidates", "scores"]
        self.out_keys = key_list([action_key])

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action."""
        scores, candidates = tensordict.get("scores"), tensordict.get("candidates")
        best = torch.where(scores.isnan(), -torch.inf, scores).amax(-1, keepdim=True)
        is_best = scores == best
        if not bool(is_best.any(-1).all()):
            raise RuntimeError(
                "Every candidate of a state has the score NaN. Check the observation for non-finite entries, "
                "then the critics' and the policy's weights: training has probably diverged."
            )
        index = is_best.int().argmax(-1, keepdim=True).unsqueeze(-1)
        return tensordict.set(self.out_keys[0], candidates.take_along_dim(index, -2).squeeze(-2))
