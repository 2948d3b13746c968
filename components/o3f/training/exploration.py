"""Ways of acting online, by name: from a policy, its critics and a config to the actor a collector calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.data import TensorSpec

from o3f.errors import ConfigError, check_keys, require, require_range
from o3f.modules import (
    CandidateAscent,
    GaussianCandidates,
    GaussianNoiseActor,
    LatentCandidates,
    LatentPolicy,
    MixedCandidates,
    OptimisticActor,
    RandomRank,
    Softmax,
    Thompson,
    UpperConfidenceBound,
    matched_sigma,
)
from o3f.modules.action_limits import ActionLimits, Veto
from o3f.training.schedules import Schedule

Options = dict[str, Any]
Module: TypeAlias = TensorDictModuleBase
#: From a policy, critics, the checked options and the action's spec to an actor.
Make: TypeAlias = Callable[[Module, Module, Options, TensorSpec], Module]

#: Vetoes by name. A configuration names one, it never imports code: put yours here before you call a recipe's main.
VETOES: dict[str, Veto] = {}

#: The options of a kind of exploration that has candidates; each may be missing, which is null.
LIMITS = ("max_displacement", "max_change", "veto")


def make_actor(policy: Module, critic: Module, exploration: Mapping[Any, Any], spec: TensorSpec) -> Module:
    """Build the actor that collects data.

    Every kind is the plain policy under a deterministic exploration type, draws from torch's global stream
    and shares the parameters of ``policy`` and ``critic``, so that it always acts with the newest ones.

    Args:
        policy: writes ``action`` ``[*B, A]`` in [-1, 1].
        critic: writes ``state_action_value`` ``[*B, m]``.
        exploration: ``kind`` and all its options, as in ``conf/exploration``:
            ``optimistic`` and ``ucb`` (omega), ``ascent`` (omega, refine_top, refine_steps, refine_rate),
            ``thompson`` (per) and ``softmax`` (temperature), all five with candidates, num_candidates, sigma, centre,
            include_base and clip_margin;
            ``random_rank`` (num_candidates, sigma, centre, per); these six with the limits for hardware
            :data:`~o3f.training.exploration.LIMITS`, which may be missing; ``noise`` (sigma, centre),
            ``matched_noise`` (num_candidates, sigma, centre), ``policy``. ``sigma`` is a number or a list with one
            for each action dimension (``matched_noise``: a number).
        spec: bounds of the action.

    Raises:
        ConfigError: an option that the kind does not have (the message has the nearest names), one that is
            missing, or a value out of its range.
    """
    options = {str(key): value for key, value in exploration.items()}
    kind = options.pop("kind", None)
    check_keys([kind], KINDS, "exploration.kind")
    make, known = KINDS[str(kind)]
    where = f"exploration={kind}"
    check_keys(options, known, where)
    missing = [name for name in known if name not in options and name not in LIMITS]
    require(not missing, f"{where}: no value for {', '.join(missing)}.")
    action_dim = int(spec.shape[-1])
    _check_numbers(options, action_dim)
    options["limits"] = check_limits(options, action_dim)
    try:
        return make(policy, critic, options, spec)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def coefficients(actor: Module) -> dict[str, Tensor]:
    """The actor's ``sigma``, ``omega`` and ``temperature``, those it has, which a schedule may change in place."""
    parts = [getattr(actor, name) for name in ("sampler", "scorer", "selector") if hasattr(actor, name)]
    buffers = {name.rpartition(".")[2]: tensor for part in parts for name, tensor in part.named_buffers()}
    return {name: buffers[name] for name in ("sigma", "omega", "temperature") if name in buffers}


def move_to(actor: Module, schedule: Mapping[str, Any] | None, step: int) -> None:
    """Set an actor's coefficients to what a run's ``schedule`` had made of them after ``step`` online steps.

    Args:
        actor: as the run's ``exploration`` says, which is what they began with.
        schedule: ``kind``, ``steps`` and ``to.exploration``; None for a run without one.
        step: of the checkpoint.
    """
    to = dict((schedule or {}).get("to", {}).get("exploration") or {})
    if schedule is not None and to and schedule["kind"] != "same":
        Schedule(schedule["kind"], to, schedule["steps"], coefficients(actor)).step(step)


def _check_numbers(options: Options, action_dim: int) -> None:
    if "sigma" in options:
        sigma = options["sigma"] = _plain(options["sigma"])
        sigmas = sigma if isinstance(sigma, list) else [sigma]
        for value in sigmas:
            require_range({"exploration": {"sigma": value}}, "exploration.sigma", "[0, inf)")
        fits = not isinstance(sigma, list) or len(sigma) == action_dim or options.get("candidates") == "latent"
        require(fits, f"exploration.sigma: found {len(sigmas)} numbers for {action_dim} action dimensions.")
    for name, interval in _INTERVALS.items():
        if name in options:
            whole = name in ("num_candidates", "refine_top", "refine_steps")
            require_range({"exploration": options}, f"exploration.{name}", interval, integer=whole)


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else list(value)


def _gaussian(policy: Module, options: Options) -> Module:
    if options["centre"] == "sample_per_candidate" and not hasattr(policy, "get_dist"):
        raise ValueError("centre=sample_per_candidate needs a policy that can be sampled; this one is deterministic.")
    return GaussianCandidates(**options)


def _mixed(policy: Module, options: Options) -> Module:
    if options["centre"] != "sample" or options["include_base"]:
        raise ValueError(
            "candidates=mixed has a sample of the policy as its centre and among the candidates:"
            " leave centre=sample and include_base=false."
        )
    if not hasattr(policy, "get_dist"):
        raise ValueError("candidates=mixed needs a policy that can be sampled; this algorithm's is deterministic.")
    return MixedCandidates(**{name: options[name] for name in ("num_candidates", "sigma", "clip_margin")})


def _latent(policy: Module, options: Options) -> Module:
    if options["centre"] != "sample":
        raise ValueError("candidates=latent has the policy's own latent as its centre: leave centre=sample.")
    if not isinstance(policy, LatentPolicy):
        raise ValueError("candidates=latent needs a policy that decodes latents: algorithm=lapo.")
    actor: Any = policy.actor.module
    size, sigma = actor.network[-1].out_features, options["sigma"]
    if isinstance(sigma, list) and len(sigma) != size:
        raise ValueError(
            f"sigma has {len(sigma)} numbers; with candidates=latent it needs one, or {size}: the latent's."
        )
    taken = {name: value for name, value in options.items() if name != "centre"}
    return LatentCandidates(policy.decoder, max_latent=actor.max_latent, **taken)


_SAMPLERS: dict[str, Callable[[Module, Options], Module]] = {
    "gaussian": _gaussian,
    "latent": _latent,
    "mixed": _mixed,
}


def choosing(part: str, kind: Callable[[Any], Module], option: str) -> Make:
    """How an actor that chooses among candidates is made: ``part`` of it is of this kind, and takes the option."""

    def make(policy: Module, critic: Module, options: Options, spec: TensorSpec) -> Module:
        candidates = options.get("candidates", "gaussian")
        check_keys([candidates], _SAMPLERS, "exploration.candidates")
        sampler = _SAMPLERS[candidates](policy, {name: options[name] for name in _SAMPLING if name in options})
        parts: dict[str, Any] = {part: kind(options[option])}
        if "refine_top" in options:
            parts["ascent"] = CandidateAscent(*(options[name] for name in _REFINING))
        parts |= with_limits(options["limits"], sampler, parts.get("selector"))
        return OptimisticActor(policy, critic, spec=spec, **parts)

    return make


def _noise(policy: Module, critic: Module, options: Options, spec: TensorSpec) -> Module:
    return GaussianNoiseActor(policy, options["sigma"], centre=options["centre"], spec=spec)


def _matched_noise(policy: Module, critic: Module, options: Options, spec: TensorSpec) -> Module:
    sigma = options["sigma"]
    require(
        not isinstance(sigma, list),
        f"exploration=matched_noise moves all action dimensions alike: sigma must be one number, found {sigma}.",
    )
    sigma = matched_sigma(float(sigma), options["num_candidates"], int(spec.shape[-1]))
    return GaussianNoiseActor(policy, sigma, centre=options["centre"], spec=spec)


def _policy(policy: Module, critic: Module, options: Options, spec: TensorSpec) -> Module:
    return policy


def check_limits(options: Mapping[str, Any], action_dim: int) -> dict[str, Any]:
    """Return the limits among ``options`` that are set, as arguments of :class:`~o3f.modules.ActionLimits`.

    Raises:
        ConfigError: a number below 0, not one per action dimension, or a veto that is not in :data:`VETOES`.
    """
    limits = {name: options[name] for name in LIMITS if options.get(name) is not None}
    for name in ("max_displacement", "max_change"):
        if name in limits:
            given = limits[name]
            numbers = [given] if isinstance(given, int | float | str) else list(given)
            for number in numbers:
                require_range({"exploration": {name: number}}, f"exploration.{name}", "[0, inf)")
            require(
                len(numbers) in (1, action_dim),
                f"exploration.{name}: found {len(numbers)} numbers for {action_dim} action dimensions.",
            )
            limits[name] = numbers[0] if len(numbers) == 1 else numbers
    if "veto" in limits:
        check_keys([limits["veto"]], VETOES, "exploration.veto")
        limits["veto"] = VETOES[limits["veto"]]
    return limits


def with_limits(
    limits: Mapping[str, Any], sampler: TensorDictModuleBase, selector: TensorDictModuleBase | None = None
) -> dict[str, Any]:
    """Return ``sampler`` and ``selector`` as arguments of :class:`~o3f.modules.OptimisticActor`, within the limits."""
    if not limits:
        return {"sampler": sampler, "selector": selector}
    within = ActionLimits(sampler, **limits)
    return {"sampler": within, "selector": within.choice(selector)}


_STEP = ("num_candidates", "sigma", "centre")
_SAMPLING = (*_STEP, "include_base", "clip_margin")
_REFINING = ("refine_top", "refine_steps", "refine_rate")
_CANDIDATES = ("candidates", *_SAMPLING, *LIMITS)
_INTERVALS = {
    **{name: "[1, inf)" for name in ("num_candidates", "refine_top")},
    **{name: "[0, inf)" for name in ("refine_steps", "refine_rate", "temperature", "clip_margin")},
    "omega": "(-inf, inf)",
}
_OPTIMISTIC = choosing("scorer", UpperConfidenceBound, "omega")

#: How each kind is made, and its options.
KINDS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "optimistic": (_OPTIMISTIC, (*_CANDIDATES, "omega")),
    "ucb": (_OPTIMISTIC, (*_CANDIDATES, "omega")),
    "ascent": (_OPTIMISTIC, (*_CANDIDATES, "omega", *_REFINING)),
    "thompson": (choosing("scorer", Thompson, "per"), (*_CANDIDATES, "per")),
    "softmax": (choosing("selector", Softmax, "temperature"), (*_CANDIDATES, "temperature")),
    "random_rank": (choosing("scorer", RandomRank, "per"), (*_STEP, "per", *LIMITS)),
    "noise": (_noise, ("sigma", "centre")),
    "matched_noise": (_matched_noise, _STEP),
    "policy": (_policy, ()),
}
