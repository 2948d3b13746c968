"""Limits for hardware: candidates close to the policy's action, close to the action before, and not forbidden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from o3f.modules.acting import centre_of
from o3f.modules.arguments import check_flags, check_module, check_per_dimension, numbers
from o3f.modules.candidates import Centre
from o3f.modules.keys import key_list
from o3f.modules.selectors import Argmax

#: From states and ``"candidates"`` ``[*B, N, A]`` to a mask ``[*B, N]``, true where a candidate is forbidden.
Veto: TypeAlias = Callable[[TensorDictBase], Tensor]
_Numbers: TypeAlias = float | Sequence[float] | Tensor


class ActionLimits(TensorDictModuleBase):
    r"""Draws candidates with another sampler and limits them before they are scored. Not part of the paper.

    .. math::
        c'_i = \mathrm{clip}(\mathrm{clip}(c_i, \, a - d, \, a + d), \, p - r, \, p + r)

    in each component, with a the policy's action (the first of its samples where there are several), d =
    ``max_displacement``, p the action executed in the step before and r = ``max_change``. An episode's first step
    has no p and is not limited by r. Where both limits cannot hold, r does, and the action is as near to a as r
    allows. Candidates that ``veto`` forbids are replaced before they are scored, and :meth:`choice` never picks the
    replacements: nothing forbidden is scored or executed. Where all are forbidden, all become the policy's action,
    limited.

    Give :meth:`choice` to the actor, too, so that the action executed is known in the next step::

        limits = ActionLimits(GaussianCandidates(100, 0.2), max_change=0.1)
        actor = OptimisticActor(policy, critic, sampler=limits, selector=limits.choice())

    Only candidates are limited: not the plain policy, which acts under a deterministic exploration type, nor random
    actions of a collector. ``max_displacement`` and ``max_change`` are buffers.

    Args:
        sampler: writes ``"candidates"`` ``[*B, N, A]`` as its only output, within its bounds ``low`` and ``high``.
            One without such attributes is held to the bounds of the actor's spec (-1 and 1 outside of an actor).
        max_displacement: d, one number or one per action dimension; None for no limit.
        max_change: r, likewise. Needs ``is_init_key``.
        veto: a function or module; the entries in its attribute ``in_keys``, if it has one, are passed to it.
        action_key: the policy's action, ``[*B, A]`` or ``[*B, N, A]``.
        is_init_key: entry ``[*B, 1]`` that marks an episode's first step, written by TorchRL's ``InitTracker``.

    Raises:
        ValueError: if a limit is negative or NaN; at the call, if it is of another width than the action, the veto
            returns no mask of the candidates, or ``is_init_key`` is not ``[*B, 1]``.
        TypeError: if ``sampler`` is no TensorDictModule, or ``veto`` cannot be called.
        RuntimeError: at the call, if all candidates of a state and the policy's action are forbidden, or the
            action before is not known.
    """

    max_displacement: Tensor | None
    max_change: Tensor | None
    _low: Tensor
    _high: Tensor

    def __init__(
        self,
        sampler: TensorDictModuleBase,
        *,
        max_displacement: _Numbers | None = None,
        max_change: _Numbers | None = None,
        veto: Veto | None = None,
        action_key: NestedKey = "action",
        is_init_key: NestedKey = "is_init",
    ) -> None:
        super().__init__()
        check_module("sampler", sampler)
        if not (veto is None or callable(veto)):
            raise TypeError(f"veto must be a function or module, from states to a mask, got {veto!r}.")
        for name, limit in {"max_displacement": max_displacement, "max_change": max_change}.items():
            value = None if limit is None else numbers(name, limit)
            if value is not None and not bool((value >= 0).all()):
                raise ValueError(f"{name} must not be negative, got {limit}.")
            if value is not None:
                check_per_dimension(name, value)
            self.register_buffer(name, value, persistent=False)
        self.sampler = sampler
        self.bounds_assumed = not (hasattr(sampler, "low") and hasattr(sampler, "high"))
        self.register_buffer("_low", torch.tensor(-1.0), persistent=False)
        self.register_buffer("_high", torch.tensor(1.0), persistent=False)
        self.veto = veto
        (self.action_key,), (self.is_init_key,) = key_list([action_key]), key_list([is_init_key])
        needed = [is_init_key] if max_change is not None else []
        read = [*sampler.in_keys, action_key, *needed, *getattr(veto, "in_keys", [])]
        self.in_keys = key_list(key for key in read if key not in sampler.out_keys)
        self.out_keys = key_list(sampler.out_keys)
        self.excluded: Tensor | None = None
        self.box: tuple[Tensor, Tensor] = (self.low, self.high)  # of the states at hand, for candidates that climb
        self._previous: Tensor | None = None

    @property
    def centre(self) -> Centre:
        """The sampler's, which the actor asks for."""
        return centre_of(self.sampler)

    @property
    def num_candidates(self) -> int:
        """The sampler's, which the actor asks for."""
        sampler: Any = self.sampler
        return int(sampler.num_candidates)

    @property
    def low(self) -> Tensor:
        """Lower action bound: the sampler's, or that of the actor's spec."""
        bound: Tensor = getattr(self.sampler, "low", self._low)
        return bound

    @property
    def high(self) -> Tensor:
        """Upper action bound."""
        bound: Tensor = getattr(self.sampler, "high", self._high)
        return bound

    def set_bounds(self, low: Tensor, high: Tensor) -> None:
        """Hold a sampler that has no bounds to these."""
        self.register_buffer("_low", low.detach().clone(), persistent=False)
        self.register_buffer("_high", high.detach().clone(), persistent=False)
        self.bounds_assumed = False

    def choice(self, selector: TensorDictModuleBase | None = None) -> LimitedChoice:
        """Return the selector (default: :class:`~o3f.modules.Argmax`) to give to the actor with these limits."""
        return LimitedChoice(Argmax(self.action_key) if selector is None else selector, self)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write candidates within the limits."""
        base = tensordict.get(self.action_key)
        candidates = self.sampler(tensordict).get(self.out_keys[0])
        if base.ndim == candidates.ndim:
            base = base[..., 0, :]
        base = base.clamp(self.low, self.high).unsqueeze(-2)
        self.box = self._reachable(tensordict, base)
        limited = torch.cat([candidates, base], -2).clamp(*self.box)
        return tensordict.set(self.out_keys[0], self._replace_forbidden(tensordict, limited))

    def allows(self, states: TensorDictBase, candidates: Tensor) -> Tensor | None:
        """Return where the veto allows candidates ``[*B, K, A]``, a mask ``[*B, K]``; None without a veto.

        Raises:
            ValueError: if the veto returns a mask of another shape, or none.
        """
        if self.veto is None:
            return None
        forbidden: Any = self.veto(states.copy().set(self.out_keys[0], candidates))
        if not isinstance(forbidden, Tensor):
            expected = list(candidates.shape[:-1])
            raise ValueError(f"veto returned {forbidden!r}, expected a mask {expected}: one value per candidate.")
        allowed = ~forbidden.bool()
        if allowed.shape != candidates.shape[:-1]:
            expected, found = list(candidates.shape[:-1]), list(allowed.shape)
            raise ValueError(f"veto returned a mask {found}, expected {expected}: one value per candidate.")
        return allowed

    def remember(self, action: Tensor) -> None:
        """Take note of the action ``[*B, A]`` that is executed."""
        if self.max_change is not None:
            self._previous = action.detach()

    def _reachable(self, tensordict: TensorDictBase, base: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest action ``[*B, 1, A]`` within bounds and limits, of which the change comes last."""
        low, high = self.low.to(base).expand_as(base), self.high.to(base).expand_as(base)
        if self.max_displacement is not None:
            check_per_dimension("max_displacement", self.max_displacement, base.shape[-1])
            low, high = (each.clamp(base - self.max_displacement, base + self.max_displacement) for each in (low, high))
        if self.max_change is not None:
            check_per_dimension("max_change", self.max_change, base.shape[-1])
            change = self._change(tensordict, base, self.max_change)
            low, high = low.clamp(*change), high.clamp(*change)
        return low, high

    def _change(self, tensordict: TensorDictBase, base: Tensor, max_change: Tensor) -> tuple[Tensor, Tensor]:
        is_init = tensordict.get(self.is_init_key, None)
        if is_init is None:
            raise KeyError(f"max_change needs {self.is_init_key!r}: add torchrl.envs.InitTracker() to the environment.")
        check_flags(self.is_init_key, is_init, base.shape[:-2])
        previous, first = self._previous, is_init.unsqueeze(-1)
        if previous is None or previous.shape != base.squeeze(-2).shape:
            if not bool(is_init.all()):
                raise RuntimeError(
                    "max_change needs the action executed in the step before, which is not known: give the actor"
                    " selector=limits.choice(), and begin with an episode's first step."
                )
            previous = base.squeeze(-2)
        previous, change = previous.unsqueeze(-2), torch.where(first, torch.inf, max_change)
        return previous - change, previous + change

    def _replace_forbidden(self, tensordict: TensorDictBase, limited: Tensor) -> Tensor:
        """Of candidates and base ``[*B, N + 1, A]``, ``[*B, N, A]`` of which none is forbidden."""
        candidates, allowed = limited[..., :-1, :], self.allows(tensordict, limited)
        if allowed is None:
            return candidates
        if not bool(allowed.any(-1).all()):
            raise RuntimeError(
                "veto forbids all candidates of a state and the policy's action, too: there is nothing to execute."
                " Widen sigma or the limits, or let the veto allow a safe action."
            )
        first = allowed.int().argmax(-1, keepdim=True).unsqueeze(-1)  # the policy's action where it is the only one
        self.excluded = ~allowed[..., :-1] & allowed[..., :-1].any(-1, keepdim=True)
        return torch.where(allowed[..., :-1, None], candidates, limited.take_along_dim(first, -2))


class LimitedChoice(TensorDictModuleBase):
    """Chooses as another selector does, never one of the replacements of what a veto forbade.

    Args:
        selector: writes the action as its first output.
        limits: told which action is executed.
    """

    def __init__(self, selector: TensorDictModuleBase, limits: ActionLimits) -> None:
        super().__init__()
        self.selector = selector
        self.limits: nn.Module = limits
        self.in_keys, self.out_keys = key_list(selector.in_keys), key_list(selector.out_keys)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action."""
        limits: Any = self.limits
        if limits.excluded is not None:
            tensordict.set("scores", tensordict.get("scores").masked_fill(limits.excluded, torch.nan))
        chosen: TensorDictBase = self.selector(tensordict)
        limits.remember(chosen.get(self.out_keys[0]))
        return chosen
