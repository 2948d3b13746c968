"""A random choice that is kept for an episode."""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor, nn


class HeldForEpisode(nn.Module):
    """Keeps what was drawn at the first step of an episode until the next one begins, row by row.

    Nothing of it needs saving: a run that resumes at the start of an episode draws anew, as it would have.

    Args:
        is_init_key: entry ``[*B, 1]`` that marks an episode's first step, written by TorchRL's ``InitTracker``.
    """

    def __init__(self, is_init_key: NestedKey = "is_init") -> None:
        super().__init__()
        self.is_init_key = is_init_key
        self._held: Tensor | None = None

    def forward(self, fresh: Tensor, tensordict: TensorDictBase) -> Tensor:
        """Return ``fresh`` ``[*B, K]`` where an episode begins, and what is held elsewhere.

        Raises:
            KeyError: if ``is_init_key`` is missing.
        """
        is_init = tensordict.get(self.is_init_key, None)
        if is_init is None:
            raise KeyError(
                f"Choosing once per episode needs {self.is_init_key!r}: "
                "add torchrl.envs.InitTracker() to the environment."
            )
        if self._held is None or self._held.shape != fresh.shape:
            self._held = fresh
        self._held = torch.where(is_init, fresh, self._held)
        return self._held
