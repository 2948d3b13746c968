"""O3F's way to act: several candidates around the policy's action, the critics choose among them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from torch import Tensor
from torchrl.data import TensorSpec

from o3f.modules.acting import (
    action_bounds,
    base_action,
    centre_of,
    evaluating,
    exploring,
    settle_bounds,
    spec_of,
)
from o3f.modules.actor_parts import check_parts, refuse_both
from o3f.modules.arguments import check_module, check_switches, whole_number
from o3f.modules.ascent import CandidateAscent
from o3f.modules.calls import candidate_values
from o3f.modules.candidates import GaussianCandidates
from o3f.modules.keys import key_list
from o3f.modules.scorers import UpperConfidenceBound
from o3f.modules.selectors import Argmax, check_scores


class OptimisticActor(TensorDictModuleBase):
    r"""Explore by executing, of N candidates around the policy's action, the one the critics rank highest.

    .. math::
        a \sim \pi(s), \quad c_i = \mathrm{clip}(a + \sigma \epsilon_i), \quad
        i^* = \mathrm{argmax}_i \; \mathrm{mean}_j Q_j(s, c_i) + \omega \, \mathrm{std}_j Q_j(s, c_i)

    with N = ``num_candidates``, sigma = ``sigma``, omega = ``omega``, and the population standard deviation
    over the critics. Training is not concerned: the action executed, ``c_{i*}``, goes to the replay buffer
    and the policy is updated as it was offline.

    The actor explores when TorchRL does (``ExplorationType.RANDOM``, or none set) and is the plain ``policy``
    otherwise. It reads what its parts read and writes the action alone, for any key names and batch shape.
    Policy and critics are evaluated in evaluation mode, whatever their mode is.

    Its ``state_dict()`` holds the networks and the generators. Settings (``sigma``, ``omega``, bounds, limits) are
    buffers that move with it and that schedules change, but whoever builds the actor gives them: loading a state
    leaves them as they are.

    The three parts can be replaced: ``sampler`` (action to candidates ``[*B, N, A]``), ``scorer`` (values
    ``[*B, N, m]`` to scores ``[*B, N]``) and ``selector`` (scores to action ``[*B, A]``). Before the selector the best
    candidates can take some steps up their score (``ascent``). Scoring takes at most ``chunk_size`` (state, candidate)
    pairs at a time, so beyond inputs and values it needs about ``chunk_size * (O + A + 2 * m * width)`` numbers: about
    11 MB for five critics of width 256 by default, which a CPU's cache holds; on a GPU larger chunks are faster.

    Args:
        policy: module that writes ``action_key`` ``[*B, A]``.
        critic: module that reads ``action_key`` and writes values ``[*B, m]`` as its last output, for
            example :class:`~o3f.modules.EnsembleQValue`.
        num_candidates: N, by default 100 (the paper's).
        sigma: spread of the candidates, by default 0.2 (the paper's for locomotion; elsewhere it uses 0.05).
        omega: weight of the critics' disagreement, by default 0.0 (the paper's).
        sampler: replaces :class:`~o3f.modules.GaussianCandidates`. Bounds it was given (``low``, ``high``) hold; one
            made without bounds takes those of the spec. Its ``centre``, if it has one, says around which action of the
            policy candidates lie (with ``"sample_per_candidate"``, ``num_candidates`` how many); else around a sample.
        scorer: replaces :class:`~o3f.modules.UpperConfidenceBound`.
        selector: replaces :class:`~o3f.modules.Argmax`.
        ascent: moves the best candidates up their score before the selector chooses; None (the paper) leaves them.
        spec: the action's spec, whose bounds clip the candidates. By default the policy's own, its attribute ``spec``
            (a leaf or a composite, as a ``ProbabilisticActor`` has it).
        generator: source of the candidates' noise, see :class:`~o3f.modules.NoiseSource`. The policy's own
            sample always comes from torch's global stream.
        return_candidates: also write ``"candidates"``, ``"candidate_values"`` (if the scorer reads them) and
            ``"scores"`` when exploring.
        optimistic_eval: select among candidates under every exploration type, around the policy's
            deterministic action where TorchRL does not explore.
        chunk_size: most (state, candidate) pairs that the critics see in one call.
        action_key: the action's entry, for policy and critic.

    Raises:
        ValueError: if a part and an argument that belongs to it are both given, a part does not write what
            the next one reads, ``ascent`` does not go with sampler or scorer, ``spec`` is not bounded, the sampler's
            bounds are wider than the spec's, policy or critic read an entry of the name of one that is written of
            candidates, or an argument is out of its range. At the call, if there is not one score for each candidate.
        TypeError: if a part is no TensorDictModule.

    Warns:
        UserWarning: if neither spec nor policy nor sampler has bounds: then -1 and 1 are assumed.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from o3f.modules import EnsembleQValue, gaussian_policy
        >>> policy, critic = gaussian_policy(3, 2), EnsembleQValue(3, 2)
        >>> actor = OptimisticActor(policy, critic, num_candidates=10, sigma=0.1)
        >>> actor(TensorDict({"observation": torch.zeros(4, 3)}, [4]))["action"].shape
        torch.Size([4, 2])
    """

    _low: Tensor | None
    _high: Tensor | None

    def __init__(
        self,
        policy: TensorDictModuleBase,
        critic: TensorDictModuleBase,
        num_candidates: int | None = None,
        sigma: float | Sequence[float] | Tensor | None = None,
        omega: float | None = None,
        *,
        sampler: TensorDictModuleBase | None = None,
        scorer: TensorDictModuleBase | None = None,
        selector: TensorDictModuleBase | None = None,
        ascent: CandidateAscent | None = None,
        spec: TensorSpec | None = None,
        generator: torch.Generator | None = None,
        return_candidates: bool = False,
        optimistic_eval: bool = False,
        chunk_size: int = 2**10,
        action_key: NestedKey = "action",
    ) -> None:
        super().__init__()
        refuse_both("sampler", sampler, num_candidates=num_candidates, sigma=sigma, generator=generator)
        refuse_both("scorer", scorer, omega=omega)
        check_module("policy", policy)
        check_module("critic", critic)
        for name, part in {"sampler": sampler, "scorer": scorer, "selector": selector}.items():
            if part is not None:
                check_module(name, part)
        (self.action_key,) = key_list([action_key])
        self.spec = spec_of(policy, spec, self.action_key)
        if sampler is None:
            sampler = GaussianCandidates(
                100 if num_candidates is None else num_candidates,
                0.2 if sigma is None else sigma,
                generator=generator,
                action_key=action_key,
            )
        settle_bounds(sampler, self.spec, self.action_key)
        self.policy = policy
        self.critic = critic
        self.sampler = sampler
        self.scorer = UpperConfidenceBound(omega or 0.0) if scorer is None else scorer
        self.selector = Argmax(action_key) if selector is None else selector
        if ascent is not None:
            if not isinstance(ascent, CandidateAscent):
                raise TypeError(f"ascent must be a CandidateAscent or None, got {type(ascent).__name__}.")
            ascent.check(sampler, self.scorer)
        self.ascent = ascent
        check_switches(return_candidates=return_candidates, optimistic_eval=optimistic_eval)
        self.return_candidates = return_candidates
        self.optimistic_eval = optimistic_eval
        self.chunk_size = whole_number("chunk_size", chunk_size)
        self._clip_to_spec()
        choosing = {"sampler": sampler, "scorer": self.scorer, "selector": self.selector}
        check_parts({"policy": policy, "critic": critic, **choosing}, self.action_key)
        self._set_keys()
        self._probed = False

    def _clip_to_spec(self) -> None:
        """Hold a sampler that knows of no bounds to those of the spec, as the others hold themselves."""
        own = hasattr(self.sampler, "low") and hasattr(self.sampler, "high")
        bounds = None if own else action_bounds(self.spec, self.action_key)
        for name in ("low", "high"):
            bound = None if bounds is None else bounds[name].clone()
            self.register_buffer(f"_{name}", bound, persistent=False)

    def _set_keys(self) -> None:
        self._asks_critic = "candidate_values" in self.scorer.in_keys
        diagnostics = ["candidates", *(["candidate_values"] if self._asks_critic else []), "scores"]
        parts = (self.critic, self.sampler, self.scorer, self.selector)
        # A sampler may read what the policy writes beside the action (a latent, for example).
        inner = {*self.policy.out_keys, *diagnostics}
        needed = [key for part in parts for key in part.in_keys if key not in inner]
        self.in_keys = key_list([*self.policy.in_keys, *needed])
        self.out_keys = key_list([self.action_key, *(diagnostics if self.return_candidates else [])])

    @dispatch(auto_batch_size=False)
    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action, and the candidates with what was said of them if asked for."""
        private = tensordict.select(*self.in_keys, strict=False)
        with evaluating(self):
            active = self.optimistic_eval or exploring()
            chosen = self._explore(private) if active else self.policy(private)
        for key in self.out_keys:
            if key in chosen:
                tensordict.set(key, chosen.get(key))
        return tensordict

    def _explore(self, private: TensorDictBase) -> TensorDictBase:
        action = base_action(self.policy, private, self.sampler, self.action_key)
        each = centre_of(self.sampler) == "sample_per_candidate"
        if private.batch_size != (batch := action.shape[: -2 if each else -1]):
            private.batch_size = batch  # entries given by name, or of a TensorDict that does not say its shape
        candidates = self.sampler(private.set(self.action_key, action)).get("candidates")
        if candidates.shape[-1:] != action.shape[-1:]:
            raise ValueError(f"The sampler wrote {list(candidates.shape)} around actions {list(action.shape)}.")
        if self._low is not None:
            candidates = candidates.clamp(self._low, self._high)
        scored = self._score(private, candidates)
        if self.ascent is not None:
            scored = self.ascent(scored, self._score_copy, self.sampler, self.chunk_size)
        chosen: TensorDictBase = self.selector(scored)
        if (found := chosen.get(self.action_key).shape) != (*candidates.shape[:-2], candidates.shape[-1]):
            raise ValueError(
                f"The selector wrote an action {list(found)}, expected one of the candidates {list(candidates.shape)}"
                " for each state."
            )
        return chosen

    def score(self, tensordict: TensorDictBase, candidates: Tensor) -> Tensor:
        """Score given candidates in given states, without drawing or choosing; can be compiled.

        Args:
            tensordict: the states, entries ``in_keys`` of batch shape ``[*B]``.
            candidates: actions ``[*B, N, A]``.

        Returns:
            The scores ``[*B, N]``.

        Raises:
            ValueError: if there are not candidates of each state.
        """
        if candidates.shape[:-2] != tensordict.batch_size or candidates.ndim < 2:
            raise ValueError(
                f"The candidates are {list(candidates.shape)}, expected {[*tensordict.batch_size, 'N', 'A']}: those of"
                " each state of the batch."
            )
        scores: Tensor = self._score(tensordict.select(*self.in_keys, strict=False), candidates).get("scores")
        return scores

    def _score(self, private: TensorDictBase, candidates: Tensor) -> TensorDictBase:
        private.set("candidates", candidates)
        if self._asks_critic:
            values = candidate_values(
                self.critic,
                private.select(*(key for key in self.critic.in_keys if key != self.action_key)),
                candidates,
                action_key=self.action_key,
                value_key=self.critic.out_keys[-1],
                chunk_size=self.chunk_size,
            )
            private.set("candidate_values", values)
        before = private.copy() if self._ambiguous(candidates) else None
        scored: TensorDictBase = self.scorer(private)
        check_scores(candidates, scored.get("scores"))
        if before is not None:
            self._probe(before, candidates)
        return scored

    def _ambiguous(self, candidates: Tensor) -> bool:
        """Whether scores ``[N, B]`` of a scorer from elsewhere would pass for ``[B, N]``, and nobody looked yet."""
        count = candidates.shape[-2]
        foreign = not type(self.scorer).__module__.startswith("o3f.") and not torch.compiler.is_compiling()
        return foreign and not self._probed and candidates.shape[:-2] == (count,) and count > 1

    def _probe(self, private: TensorDictBase, candidates: Tensor) -> None:
        """Score one candidate fewer, once, so that the two differ; nothing is drawn or remembered for that."""
        fewer: Any = private.set("candidates", candidates[:, :-1])
        fewer.batch_size = torch.Size()  # scores of another shape are to be seen, not refused as they are written
        if self._asks_critic:
            fewer.set("candidate_values", private.get("candidate_values")[:, :-1])
        self._probed = True
        try:
            with torch.random.fork_rng([candidates.device] if candidates.is_cuda else []):
                scores = copy.deepcopy(self.scorer)(fewer).get("scores")  # it may have a generator, or a state
        except Exception:  # it knows one number of candidates only, so nothing is learned from another
            return
        check_scores(candidates[:, :-1], scores)

    def _score_copy(self, states: TensorDictBase, candidates: Tensor) -> TensorDictBase:
        return self._score(states.copy(), candidates)
