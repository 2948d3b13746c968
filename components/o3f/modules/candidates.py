"""Candidate actions around an action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from o3f.errors import number
from o3f.modules.arguments import check_per_dimension, check_switches, numbers, whole_number
from o3f.modules.keys import key_list
from o3f.modules.noise_source import NoiseSource
from o3f.modules.watched import check_written

Centre = Literal["sample", "mean", "sample_per_candidate"]
Numbers: TypeAlias = float | Sequence[float] | Tensor


class Spread(TensorDictModuleBase):
    """What samplers of Gaussian noise share: the buffers ``sigma``, ``low`` and ``high``.

    Args:
        sigma: standard deviation, one number or one per dimension.
        low: lower bound of actions, likewise; None for -1, or the bounds of the actor that takes the sampler.
        high: upper bound; None for 1, likewise.
        clip_margin: distance kept from the bounds.

    Raises:
        ValueError: if ``sigma`` < 0 or not finite, one bound alone is given, no action lies between the bounds, or one
            of them is neither one number nor one per dimension.
    """

    sigma: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, sigma: Numbers, low: Numbers | None, high: Numbers | None, clip_margin: float) -> None:
        super().__init__()
        if (low is None) != (high is None):
            raise ValueError(f"Give both bounds or none, got {low=} and {high=}.")
        spread = numbers("sigma", sigma)
        _check_spread(spread)
        # Set by whoever makes the sampler, and by schedules: a state loaded must not overwrite it, or the bounds.
        self.register_buffer("sigma", spread, persistent=False)
        self.clip_margin = number("clip_margin", clip_margin, "[0, inf)")
        self.set_bounds(-1.0 if low is None else low, 1.0 if high is None else high)
        self.bounds_assumed = low is None

    def set_bounds(self, low: Numbers, high: Numbers) -> None:
        """Take these bounds, drawn in by ``clip_margin``."""
        device = self.sigma.device
        given = [numbers(name, v, None).to(device) for name, v in (("low", low), ("high", high))]
        lower, upper = (_inwards(bound, other) for bound, other in (given, given[::-1]))
        lower, upper = lower + self.clip_margin, upper - self.clip_margin
        if not bool((lower < upper).all()):
            raise ValueError(f"No action lies between {low=} and {high=} with clip_margin={self.clip_margin}.")
        for name, bound in {"low": lower, "high": upper}.items():
            check_per_dimension(name, bound)
        self.register_buffer("low", lower, persistent=False)
        self.register_buffer("high", upper, persistent=False)
        self.bounds_assumed = False

    def _check_settings(self) -> None:
        """Look at settings that were changed in place."""
        _check_spread(self.sigma)
        if not bool((self.low < self.high).all()):
            raise ValueError(f"No action lies between low={self.low.tolist()} and high={self.high.tolist()}.")

    def clip(self, candidates: Tensor) -> Tensor:
        """Clip candidates ``[*B, N, A]`` to the bounds.

        Raises:
            ValueError: if the bounds are of another width, or they or sigma were changed to what they cannot be.
        """
        check_written(self, ("sigma", "low", "high"), self._check_settings)
        for name, bound in (("low", self.low), ("high", self.high)):
            check_per_dimension(name, bound, candidates.shape[-1])
        return candidates.clamp(self.low, self.high)


def _check_spread(sigma: Tensor) -> None:
    if not bool(((sigma >= 0) & sigma.isfinite()).all()):
        raise ValueError(f"sigma must be finite and not negative, got {sigma.tolist()}.")
    check_per_dimension("sigma", sigma)


def _inwards(bound: Tensor, other: Tensor) -> Tensor:
    """A bound as float32: of a float64 one the nearest number may lie outside, and then the next one is taken."""
    rounded, towards = bound.to(torch.float32, copy=True), other.to(torch.float32)
    outside = (rounded.double() - bound.double()) * (other.double() - bound.double()) < 0
    return torch.where(outside, torch.nextafter(rounded, towards), rounded)


class GaussianCandidates(Spread):
    r"""O3F's candidates: Gaussian noise around the policy's action, clipped to the action bounds.

    .. math:: c_i = \mathrm{clip}(a + \sigma \epsilon_i), \quad \epsilon_i \sim N(0, I), \quad i = 1..N

    with N = ``num_candidates`` and sigma = ``sigma``, in units of the action. Reads ``action_key``
    (``[*B, A]``, or ``[*B, N, A]`` with ``centre="sample_per_candidate"``), writes ``out_key``
    (``[*B, N, A]``). The paper does not say whether candidates are clipped; here they are, before they are
    scored, so that what is scored, executed and stored is the same action.

    ``sigma`` is a buffer, and no part of ``state_dict()``: change it between steps with
    ``candidates.sigma.fill_(0.1)``.

    Args:
        num_candidates: N. The default is the paper's, for all its tasks.
        sigma: standard deviation of the noise, one number or one per action dimension. The default is the
            paper's for locomotion; it uses 0.05 on antmaze and kitchen.
        centre: which action of the policy :class:`~o3f.modules.OptimisticActor` puts in the middle: one
            sample shared by all candidates (the paper), the deterministic action, or a sample of its own
            for each candidate.
        include_base: leave candidate 0 without noise, so that the executed action never scores lower than
            the policy's (where ``clip_margin`` does not move that one). Off, as in the paper.
        low: lower action bound, one number or one per dimension. By default that of the action's spec, which the
            actor that takes the sampler knows; -1 outside of an actor.
        high: upper action bound, by default likewise, or 1. Bounds given hold; they may not be wider than the spec's.
        clip_margin: distance kept from the bounds, where the log-probability of tanh policies explodes.
        generator: source of the noise, see :class:`~o3f.modules.NoiseSource`.
        action_key: the centre's entry.
        out_key: the candidates' entry.

    Raises:
        ValueError: if ``num_candidates`` is no whole number >= 1, ``sigma`` < 0, ``centre`` is unknown or no action
            lies between the bounds; at the call, if ``sigma`` or a bound does not have the action's width.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> td = TensorDict({"action": torch.zeros(3, 2)}, [3])
        >>> GaussianCandidates(num_candidates=10, sigma=0.2)(td)["candidates"].shape
        torch.Size([3, 10, 2])
    """

    def __init__(
        self,
        num_candidates: int = 100,
        sigma: float | Sequence[float] | Tensor = 0.2,
        *,
        centre: Centre = "sample",
        include_base: bool = False,
        low: Numbers | None = None,
        high: Numbers | None = None,
        clip_margin: float = 0.0,
        generator: torch.Generator | None = None,
        action_key: NestedKey = "action",
        out_key: NestedKey = "candidates",
    ) -> None:
        super().__init__(sigma, low, high, clip_margin)
        if centre not in get_args(Centre):
            raise ValueError(f"centre must be one of {get_args(Centre)}, got {centre!r}.")
        self.in_keys = key_list([action_key])
        self.out_keys = key_list([out_key])
        self.num_candidates = whole_number("num_candidates", num_candidates)
        self.centre: Centre = centre
        check_switches(include_base=include_base)
        self.include_base = include_base
        self.noise = NoiseSource(generator)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the candidates around the action in ``tensordict``."""
        centre = tensordict[self.in_keys[0]]
        if self.centre != "sample_per_candidate":
            centre = centre.unsqueeze(-2)
        else:
            check_samples(centre, tensordict, self.num_candidates)
        shape = (*centre.shape[:-2], self.num_candidates, centre.shape[-1])
        check_per_dimension("sigma", self.sigma, shape[-1])
        offset = self.sigma * self.noise.normal(shape, like=centre)
        if self.include_base:
            offset[..., 0, :] = 0.0
        return tensordict.set(self.out_keys[0], self.clip(centre + offset))


def check_samples(samples: Tensor, tensordict: TensorDictBase, count: int) -> None:
    """Check that there is a sample of the policy for each of ``count`` candidates.

    Raises:
        ValueError: if there are not.
    """
    if samples.ndim < 2 or samples.shape[:-1] != (*tensordict.batch_size, count):
        raise ValueError(
            f"The action is {list(samples.shape)}, expected {[*tensordict.batch_size, count, 'A']}: a sample of the"
            " policy for each candidate, as OptimisticActor draws them."
        )


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
        ValueError: if ``num_candidates`` is no whole number >= 2, and as :class:`~o3f.modules.GaussianCandidates`.

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
        num_candidates = whole_number("num_candidates", num_candidates, least=2)
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
        samples = tensordict[key]
        check_samples(samples, tensordict, self.num_candidates)
        own = samples[..., : self.num_candidates - self.local.num_candidates, :]
        base = TensorDict({key: samples[..., 0, :]}, samples.shape[:-2])
        own = self.local.clip(own)
        return tensordict.set(self.out_keys[0], torch.cat([own, self.local(base).get("candidates")], -2))
