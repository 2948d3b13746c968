"""O3F's choice as it is exported: from raw observations and drawn numbers to the action executed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from o3f.errors import ConfigError
from o3f.export.interface import Interface
from o3f.export.networks import WrittenAction
from o3f.export.programs import PolicyProgram
from o3f.modules import (
    Argmax,
    EnsembleQValue,
    GaussianCandidates,
    LatentCandidates,
    MeanScore,
    OptimisticActor,
    UpperConfidenceBound,
)
from o3f.modules.action_limits import ActionLimits, LimitedChoice


class OptimisticProgram(PolicyProgram):
    """O3F's choice: of N candidates around the policy's action, the one the critics rank highest.

    What is drawn is an input, so that a program has no random state. An action is NaN where all scores are.

    Args:
        policy: of :func:`~o3f.export.plain_policy`, the one ``actor`` has.
        interface: the environment's units.
        actor: with :class:`~o3f.modules.GaussianCandidates` or :class:`~o3f.modules.LatentCandidates`, perhaps limited
            without a veto, ranked by mean (and spread) of an :class:`~o3f.modules.EnsembleQValue`.

    Raises:
        ConfigError: if the actor has other parts.
    """

    sigma: Tensor
    low: Tensor
    high: Tensor
    omega: Tensor
    max_displacement: Tensor | None

    def __init__(self, policy: nn.Module, interface: Interface, actor: OptimisticActor) -> None:
        sampler, limits = _sampler(actor)
        super().__init__(policy, interface, None if limits is None else limits.max_change)
        _check_parts(actor, sampler)
        for name in ("sigma", "low", "high"):
            self.register_buffer(name, getattr(sampler, name).detach().cpu().clone())
        self.num_candidates: int = sampler.num_candidates
        self.include_base: bool = sampler.include_base
        self.max_latent: float | None = getattr(sampler, "max_latent", None)
        self.critics: Any = deepcopy(actor.critic).cpu().eval().requires_grad_(False)
        self.samples = bool(policy.stochastic) and sampler.centre == "sample"
        if self.samples and isinstance(policy, WrittenAction):
            raise ConfigError(
                "optimistic=true: how this policy samples is not known here. Only centre=mean can be exported."
            )
        displacement = None if limits is None else limits.max_displacement
        omega = getattr(actor.scorer, "omega", torch.tensor(0.0))
        self.register_buffer("max_displacement", None if displacement is None else displacement.cpu().clone())
        self.register_buffer("omega", omega.detach().cpu().clone())

    def forward(
        self,
        observation: Tensor,
        previous: Tensor | None = None,
        noise: Tensor | None = None,
        policy_noise: Tensor | None = None,
    ) -> Tensor:
        """Return the action executed, ``[B, A]``.

        Args:
            observation: ``[B, O]``.
            previous: as in :meth:`PolicyProgram.forward`.
            noise: standard normal numbers of the candidates, ``[B, N, A]`` (``[B, N, Z]`` around a latent).
            policy_noise: standard normal numbers of the policy's own sample, ``[B, A]``.
        """
        assert noise is not None
        base = self.policy(observation, policy_noise)
        candidates = self._limit(self._candidates(observation, base, noise), base, previous)
        states = observation.unsqueeze(-2).expand(*candidates.shape[:-1], -1)
        values = self.critics.values(torch.cat([states, candidates], -1))
        scores = values.mean(-1) + self.omega * values.std(-1, correction=0)
        unknown = scores.isnan()
        best = torch.where(unknown, -torch.inf, scores).argmax(-1, keepdim=True).unsqueeze(-1)
        chosen = candidates.gather(-2, best.expand(-1, -1, candidates.shape[-1])).squeeze(-2)
        chosen = torch.where(unknown.all(-1, keepdim=True), torch.nan, chosen)
        return self.in_units(chosen)

    def inputs(self, batch: int = 2) -> dict[str, Tensor]:
        """Return zeros of the shapes of all inputs that this program needs, by name."""
        size = self.action_half.numel()
        width = size if self.max_latent is None else self.policy.actor.network[-1].out_features
        inputs = {**super().inputs(batch), "noise": torch.zeros(batch, self.num_candidates, width)}
        return {**inputs, "policy_noise": torch.zeros(batch, size)} if self.samples else inputs

    def _candidates(self, observation: Tensor, base: Tensor, noise: Tensor) -> Tensor:
        """N candidates ``[B, N, A]``, not limited yet."""
        if self.include_base:
            noise = torch.cat([torch.zeros_like(noise[:, :1]), noise[:, 1:]], 1)
        if self.max_latent is None:
            return (base.unsqueeze(-2) + self.sigma * noise).clamp(self.low, self.high)
        latent = self.policy.actor(observation).unsqueeze(-2) + self.sigma * noise
        states = observation.unsqueeze(-2).expand(*noise.shape[:-1], -1)
        decoded: Tensor = self.policy.decode(states, latent.clamp(-self.max_latent, self.max_latent))
        return decoded.clamp(self.low, self.high)

    def _limit(self, candidates: Tensor, base: Tensor, previous: Tensor | None) -> Tensor:
        if self.max_displacement is not None:
            base = base.clamp(self.low, self.high).unsqueeze(-2)
            candidates = candidates.clamp(base - self.max_displacement, base + self.max_displacement)
        return self.within(candidates, previous)


def _sampler(actor: OptimisticActor) -> tuple[Any, Any]:
    """The actor's own sampler, and the limits around it if there are any."""
    limits = actor.sampler if isinstance(actor.sampler, ActionLimits) else None
    return (actor.sampler, None) if limits is None else (limits.sampler, limits)


def _check_parts(actor: OptimisticActor, sampler: Any) -> None:
    selector = actor.selector.selector if isinstance(actor.selector, LimitedChoice) else actor.selector
    known = {
        "candidates": (sampler, (GaussianCandidates, LatentCandidates)),
        "ranking": (actor.scorer, (UpperConfidenceBound, MeanScore)),
        "choice": (selector, (Argmax,)),
        "critics": (actor.critic, (EnsembleQValue,)),
    }
    for name, (part, types) in known.items():
        if type(part) not in types:
            expected = " or ".join(each.__name__ for each in types)
            raise ConfigError(f"optimistic=true: found {type(part).__name__} as the run's {name}, expected {expected}.")
    if actor.ascent is not None:
        raise ConfigError(
            "optimistic=true: the run's candidates climb (exploration=ascent), whose gradients a program cannot take."
            " Export the policy alone, with optimistic=false."
        )
    if bool((sampler.low < -1).any() | (sampler.high > 1).any()):
        raise ConfigError(
            f"optimistic=true: found candidates from {sampler.low.tolist()} to {sampler.high.tolist()}, expected bounds"
            " within [-1, 1]: a program takes the agent's actions to the environment's units from there."
        )
    if sampler.centre == "sample_per_candidate":
        raise ConfigError("optimistic=true: found centre=sample_per_candidate, expected sample or mean.")
    if getattr(actor.sampler, "veto", None) is not None:
        raise ConfigError("optimistic=true: the run has a veto, a Python function, which a program cannot hold.")
