"""Candidate actions from several sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from o3f.modules.candidates import Centre, GaussianCandidates
from o3f.modules.keys import key_list


class MixedCandidates(TensorDictModuleBase):
    r"""The policy's action, further samples of the policy, and Gaussian noise around the action, together.

    .. math::
        c_1 = a, \quad c_2, \ldots, c_k \sim \pi(s), \quad c_{k+1}, \ldots, c_N = \mathrm{clip}(a + \sigma \epsilon_i),
        \quad a \sim \pi(s)

    with N = ``num_candidates``, sigma = ``sigma`` and the Gaussian share ``N - k`` = half of N, rounded down: the
    policy's own spread finds what fixed noise does not, and the action itself keeps the choice from scoring
    lower than the policy. Reads N samples under ``action_key`` (``[*B, N, A]``, which
    :class:`~o3f.modules.OptimisticActor` draws from a policy with ``get_dist``), writes ``out_key``
    (``[*B, N, A]``), all clipped to the bounds. Not part of the paper.

    Args:
        num_candidates: N, at least 2.
        sigma: standard deviation of the noise, a buffer of ``local``; the default is the paper's for locomotion.
        action_key: the samples' entry.
        out_key: the candidates' entry.
        **kwargs: bounds, ``clip_margin`` and ``generator`` of :class:`~o3f.modules.GaussianCandidates`.

    Raises:
        ValueError: if ``num_candidates`` < 2, and as :class:`~o3f.modules.GaussianCandidates`.

    Examples:
        >>> samples = TensorDict({"action": torch.zeros(3, 10, 2)}, [3])
        >>> MixedCandidates(num_candidates=10, sigma=0.2)(samples)["candidates"].shape
        torch.Size([3, 10, 2])
    """

    centre: Centre = "sample_per_candidate"

    def __init__(
        self,
        num_candidates: int = 100,
        sigma: float | Sequence[float] | Tensor = 0.2,
        *,
        action_key: NestedKey = "action",
        out_key: NestedKey = "candidates",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if num_candidates < 2:
            raise ValueError(f"num_candidates must be at least 2, got {num_candidates}.")
        self.in_keys = key_list([action_key])
        self.out_keys = key_list([out_key])
        self.num_candidates = num_candidates
        self.local = GaussianCandidates(num_candidates // 2, sigma, action_key=action_key, **kwargs)

    @property
    def low(self) -> Tensor:
        """Lower action bound."""
        return self.local.low

    @property
    def high(self) -> Tensor:
        """Upper action bound."""
        return self.local.high

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the candidates, the policy's action first."""
        key = self.in_keys[0]
        samples = tensordict.get(key)
        own = samples[..., : self.num_candidates - self.local.num_candidates, :]
        base = TensorDict({key: samples[..., 0, :]}, samples.shape[:-2])
        own = own.clamp(self.local.low, self.local.high)
        return tensordict.set(self.out_keys[0], torch.cat([own, self.local(base).get("candidates")], -2))
