"""Candidates that climb: a few gradient steps up their score before the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from o3f.errors import number
from o3f.modules.action_limits import ActionLimits
from o3f.modules.arguments import whole_number
from o3f.modules.noise_source import NoiseSource

#: From states ``[*B]`` and candidates ``[*B, K, A]`` to a tensordict with their ``"scores"`` ``[*B, K]``.
Score: TypeAlias = Callable[[TensorDictBase, Tensor], TensorDictBase]
_Told: TypeAlias = dict[str, Tensor]


class CandidateAscent(nn.Module):
    r"""Moves the best of the candidates up their score, as policy-agnostic RL does; not part of the O3F paper.

    .. math::
        c' = \mathrm{clip}(c + \alpha \nabla_c f(s, c)), \qquad
        c \leftarrow c' \; \mathrm{where} \; f(s, c') > f(s, c), \quad \mathrm{else} \; c

    ``steps`` times, for the ``top`` candidates of the highest scores f, with :math:`\alpha` = ``rate``. A step that
    does not raise the score is not taken, so no candidate ends lower than it began. Clipped is to the bounds of the
    sampler and, where there are :class:`~o3f.modules.ActionLimits`, to these; a step that their veto forbids is not
    taken. The others stay as they are, and the actor's selector chooses among all.

    Give it to :class:`~o3f.modules.OptimisticActor` as ``ascent=``, after any sampler that has the bounds ``low`` and
    ``high`` and with any scorer that does not draw. Only the candidates' gradient is taken: none is left on a
    parameter. It costs ``steps`` gradients and ``steps + 1`` evaluations of ``top`` candidates a state, of as many
    pairs at a time as scoring takes.

    The defaults are those of policy-agnostic RL (Mark et al., 2024, https://arxiv.org/abs/2412.06685), where 32 samples
    of the policy are the candidates; its authors' code takes every step and keeps the best point it passed. ``rate`` is
    in units of the action squared over those of the value, so it goes with the scale of the rewards.

    Args:
        top: how many candidates of a state climb; all, where there are fewer.
        steps: 0 leaves everything as it is, bit for bit.
        rate: :math:`\alpha`.

    Raises:
        ValueError: if ``top`` is no whole number >= 1 or ``steps`` none >= 0, or ``rate`` is negative or not finite.

    Examples:
        >>> from o3f.modules import EnsembleQValue, OptimisticActor, gaussian_policy
        >>> policy, critic = gaussian_policy(3, 2), EnsembleQValue(3, 2)
        >>> actor = OptimisticActor(policy, critic, num_candidates=32, ascent=CandidateAscent(top=10, steps=10))
        >>> actor(observation=torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """

    def __init__(self, top: int = 10, steps: int = 10, rate: float = 3e-4) -> None:
        super().__init__()
        self.top = whole_number("top", top)
        self.steps = whole_number("steps", steps, least=0)
        self.rate = number("rate", rate, "[0, inf)")

    def check(self, sampler: TensorDictModuleBase, scorer: TensorDictModuleBase) -> None:
        """Check that candidates know where they may go, and that their score is the same at every call.

        Raises:
            ValueError: if the sampler has no bounds, or the scorer draws.
        """
        if not (hasattr(sampler, "low") and hasattr(sampler, "high")):
            raise ValueError(
                f"{type(sampler).__name__} has no bounds low and high, which candidates that climb must keep to: wrap"
                " it in ActionLimits(sampler), which has those of the action's spec."
            )
        if any(isinstance(part, NoiseSource) for part in scorer.modules()):
            raise ValueError(
                f"{type(scorer).__name__} draws at every call, so there is no one score to climb: take MeanScore or"
                " UpperConfidenceBound, or leave ascent= out."
            )

    def forward(self, scored: TensorDictBase, score: Score, sampler: Any, chunk_size: int = 2**10) -> TensorDictBase:
        """Replace the candidates that climbed, with their scores and values.

        Args:
            scored: states ``[*B]`` with ``"candidates"`` ``[*B, N, A]``, ``"scores"`` ``[*B, N]`` and perhaps
                ``"candidate_values"`` ``[*B, N, m]``.
            score: tells these three of other candidates in some of the states; its gradient is taken.
            sampler: the one that drew the candidates, with its bounds and limits.
            chunk_size: most (state, candidate) pairs whose gradient is taken at a time.

        Raises:
            RuntimeError: if the scores have no gradient.
            ValueError: if ``chunk_size`` is no whole number >= 1.
        """
        chunk_size = whole_number("chunk_size", chunk_size)
        candidates, scores = scored.get("candidates"), scored.get("scores")
        if not self.steps or not candidates.numel():
            return scored
        limits = next((part for part in sampler.modules() if isinstance(part, ActionLimits)), None)
        low, high = (sampler.low, sampler.high) if limits is None else limits.box
        index = _to_choose(scores, limits).topk(min(self.top, scores.shape[-1]), -1).indices
        begin = candidates.take_along_dim(index.unsqueeze(-1), -2)
        box = [bound.to(begin).expand_as(begin[..., :1, :]) for bound in (low, high)]
        found = self._climb_in_chunks(scored, [begin, *box], score, limits, chunk_size)
        rose = found["scores"] > scores.take_along_dim(index, -1)
        for name, climbed in found.items():
            old, wider, dim = scored.get(name), climbed.ndim > scores.ndim, scores.ndim - 1
            place, better = (each.unsqueeze(-1).expand_as(climbed) if wider else each for each in (index, rose))
            scored.set(name, old.scatter(dim, place, torch.where(better, climbed, old.gather(dim, place))))
        return scored

    def _climb_in_chunks(
        self, states: TensorDictBase, start: Sequence[Tensor], score: Score, limits: Any, chunk_size: int
    ) -> _Told:
        """Climb from candidates ``[*B, K, A]`` between bounds ``[*B, 1, A]``, whole states at a time."""
        *batch, count, _ = start[0].shape
        if start[0].shape[:-1].numel() <= chunk_size:
            return self._climb(states, start, score, limits)
        rows = max(1, chunk_size // count)
        split = [torch.split(each.reshape(-1, *each.shape[-2:]), rows) for each in start]
        parts = [
            self._climb(some, part, score, limits)
            for some, *part in zip(states.reshape(-1).split(rows), *split, strict=True)
        ]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return {name: each.reshape(*batch, *each.shape[1:]) for name, each in joined.items()}

    def _climb(self, states: TensorDictBase, begin: Sequence[Tensor], score: Score, limits: Any) -> _Told:
        start, low, high = begin
        here, slope = _look(states, start, score)
        for step in range(1, self.steps + 1):
            target = (here["candidates"] + self.rate * slope).clamp(low, high)
            there, slope_there = _look(states, target, score, differentiate=step < self.steps)
            rose = there["scores"] > here["scores"]
            if limits is not None and (allowed := limits.allows(states, target)) is not None:
                rose = rose & allowed
            here = {name: _where(rose, there[name], here[name]) for name in here}
            slope = _where(rose, slope_there, slope)
        return here


def _look(states: TensorDictBase, candidates: Tensor, score: Score, differentiate: bool = True) -> tuple[_Told, Tensor]:
    """What is told of candidates ``[*B, K, A]``, and its gradient ``[*B, K, A]`` (zeros where it is not wanted)."""
    # Whatever the caller has switched off: the gradient of the candidates is wanted, and of nothing else.
    with torch.inference_mode(False), torch.set_grad_enabled(differentiate):
        point = candidates.detach().clone().requires_grad_(differentiate)
        told = score(states, point)
        scores = told.get("scores")
        slope = torch.zeros_like(point)
        if differentiate:
            if not scores.requires_grad:
                raise RuntimeError(
                    "The scores have no gradient with respect to the candidates: critics and scorer must be"
                    " differentiable in the action for CandidateAscent. Leave ascent= out for those that are not."
                )
            (slope,) = torch.autograd.grad(scores.sum(), point)
    kept = {name: told.get(name).detach() for name in ("scores", "candidate_values") if name in told}
    return {"candidates": candidates, **kept}, slope


def _where(mask: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``torch.where`` of entries ``[*B, K]`` or ``[*B, K, ...]`` by a mask ``[*B, K]``."""
    return torch.where(mask if left.ndim == mask.ndim else mask.unsqueeze(-1), left, right)


def _to_choose(scores: Tensor, limits: ActionLimits | None) -> Tensor:
    """The scores ``[*B, N]``, -inf where they are NaN or of the replacement of a forbidden candidate."""
    unknown = scores.isnan()
    if limits is not None and limits.excluded is not None:
        unknown = unknown | limits.excluded
    return scores.masked_fill(unknown, -torch.inf)
