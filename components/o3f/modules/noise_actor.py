"""Gaussian action noise: the baseline of optimistic selection, and a control that moves as far as it does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from torch import Tensor
from torchrl.data import TensorSpec

from o3f.errors import number
from o3f.modules.acting import base_action, evaluating, exploring, settle_bounds, spec_of
from o3f.modules.arguments import check_module, whole_number
from o3f.modules.candidates import GaussianCandidates
from o3f.modules.keys import key_list


class GaussianNoiseActor(TensorDictModuleBase):
    r"""Explore by adding Gaussian noise to the policy's action: :math:`\mathrm{clip}(a + \sigma \epsilon)`.

    Equals :class:`~o3f.modules.OptimisticActor` with one candidate, bit for bit under the same generator and
    global stream. Reads what the policy reads, writes the action ``[*B, A]`` alone; the plain policy where
    TorchRL does not explore. The policy is evaluated in evaluation mode.

    Args:
        policy: module that writes ``action_key`` ``[*B, A]``.
        sigma: standard deviation of the noise, one number or one per dimension. The default is the spread of
            O3F's candidates.
        centre: add the noise to the policy's ``"sample"`` or to its deterministic action (``"mean"``).
        clip_margin: distance kept from the action bounds.
        spec: the action's spec, whose bounds clip the action; by default the policy's own, its attribute ``spec``.
        generator: source of the noise, see :class:`~o3f.modules.NoiseSource`.
        action_key: the action's entry.

    Raises:
        ValueError: if ``policy`` does not write ``action_key``, ``spec`` is not bounded or of another width than the
            policy's own, ``sigma`` < 0, or of another width than the action.
        TypeError: if ``policy`` is no TensorDictModule.

    Warns:
        UserWarning: if neither spec nor policy has bounds: then -1 and 1 are assumed.
    """

    def __init__(
        self,
        policy: TensorDictModuleBase,
        sigma: float | Sequence[float] | Tensor = 0.2,
        *,
        centre: Literal["sample", "mean"] = "sample",
        clip_margin: float = 0.0,
        spec: TensorSpec | None = None,
        generator: torch.Generator | None = None,
        action_key: NestedKey = "action",
    ) -> None:
        super().__init__()
        check_module("policy", policy)
        (self.action_key,) = key_list([action_key])
        if self.action_key not in policy.out_keys:
            raise ValueError(f"The policy must write {action_key!r}, but its out_keys are {policy.out_keys}.")
        self.spec = spec_of(policy, spec, self.action_key)
        self.policy = policy
        self.sampler = GaussianCandidates(
            1,
            sigma,
            centre=centre,
            clip_margin=clip_margin,
            generator=generator,
            action_key=action_key,
        )
        settle_bounds(self.sampler, self.spec, self.action_key)
        self.in_keys = key_list(policy.in_keys)
        self.out_keys = [self.action_key]

    @classmethod
    def matched(
        cls,
        policy: TensorDictModuleBase,
        num_candidates: int,
        sigma: float,
        action_dim: int,
        **kwargs: Any,
    ) -> GaussianNoiseActor:
        """Build the noise that moves as far as O3F's choice, see :func:`matched_sigma`.

        Args:
            policy: module that writes the action.
            num_candidates: O3F's number of candidates (the paper's is 100).
            sigma: spread of O3F's candidates (the paper's are 0.2 and 0.05).
            action_dim: A.
            **kwargs: the other arguments of :class:`GaussianNoiseActor`.
        """
        return cls(policy, matched_sigma(sigma, num_candidates, action_dim), **kwargs)

    @dispatch(auto_batch_size=False)
    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action."""
        private = tensordict.select(*self.in_keys)
        with evaluating(self):
            if not exploring():
                return tensordict.set(self.action_key, self.policy(private).get(self.action_key))
            action = base_action(self.policy, private, self.sampler, self.action_key)
            candidates = self.sampler(private.set(self.action_key, action)).get("candidates")
        return tensordict.set(self.action_key, candidates.squeeze(-2))


def matched_sigma(sigma: float, num_candidates: int, action_dim: int) -> float:
    r"""Spread of the Gaussian noise whose mean squared displacement is that of O3F's choice.

    Where the critics are linear in the action and nothing is clipped, O3F's choice is the largest of N normal
    numbers along the gradient and unchanged noise across it, which gives

    .. math::
        \sigma' = \sigma \sqrt{(E_2 + d - 1) / d}, \quad
        E_2 = E[\max(z_1, \ldots, z_N)^2], \; z_i \sim N(0, 1)

    with sigma = ``sigma``, N = ``num_candidates`` and d = ``action_dim``. At N = 100 it is 1.38 sigma in six
    dimensions. Not part of the paper: a control for the size of the step.

    Raises:
        ValueError: if ``num_candidates`` or ``action_dim`` is no whole number >= 1, or ``sigma`` < 0 or not finite.

    Examples:
        >>> round(matched_sigma(1.0, num_candidates=100, action_dim=6), 4)
        1.3828
    """
    num_candidates, action_dim = whole_number("num_candidates", num_candidates), whole_number("action_dim", action_dim)
    sigma = number("sigma", sigma, "[0, inf)")
    return sigma * math.sqrt((_second_moment_of_maximum(num_candidates) + action_dim - 1) / action_dim)


def _second_moment_of_maximum(count: int) -> float:
    """E[max^2] of ``count`` standard normal numbers, whose density is ``count phi(x) Phi(x)^(count - 1)``."""
    x = torch.linspace(-12.0, 12.0, 24001, dtype=torch.float64)
    log_density = math.log(count) - 0.5 * (x**2 + math.log(2 * math.pi))
    log_density = log_density + (count - 1) * torch.special.log_ndtr(x)
    return float(torch.trapezoid(x**2 * log_density.exp(), x))
