"""Nodes of TorchRL's Hydra tree, made of the signatures of what they build.

A field is an argument, with its default. Those without one are MISSING, so that Hydra names them; networks of losses,
which may come from elsewhere in a configuration, are None.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import field, make_dataclass
from typing import Any

from omegaconf import MISSING
from torchrl.trainers import Trainer
from torchrl.trainers.algorithms.configs.common import ConfigBase
from torchrl.trainers.algorithms.configs.data import ReplayBufferBaseConfig
from torchrl.trainers.algorithms.configs.envs_libs import EnvLibsConfig
from torchrl.trainers.algorithms.configs.modules import NetworkConfig
from torchrl.trainers.algorithms.configs.objectives import LossConfig
from torchrl.trainers.algorithms.configs.trainers import TrainerConfig

from o3f import data, modules
from o3f.algorithms import make_learner
from o3f.envs import EnvConfig
from o3f.training.torchrl import make
from o3f.training.torchrl.trainer import make_trainer

Arguments = dict[str, inspect.Parameter]

_PLAIN = (bool, int, float, str)


def arguments(target: Callable[..., Any]) -> Arguments:
    """Return the arguments of a class or function, with those of our base class in the place of ``**kwargs``."""
    found = {name: one for name, one in inspect.signature(target).parameters.items() if one.kind != one.VAR_POSITIONAL}
    rest = [name for name, parameter in found.items() if parameter.kind is parameter.VAR_KEYWORD]
    if not rest:
        return found
    del found[rest[0]]
    base = inspect.unwrap(target)
    above = base.__mro__[1] if isinstance(base, type) else object
    return arguments(above) | found if above.__module__.startswith("o3f") else found


def node(
    target: Callable[..., Any],
    base: type[Any],
    *,
    build: str | None = None,
    partial: bool = False,
    also: Callable[..., Any] | None = None,
    without: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> type[Any]:
    """Make the configuration of ``target``.

    Args:
        target: what it builds.
        base: TorchRL's class of such nodes.
        build: dotted name of what Hydra calls; the target's own by default.
        partial: build a function that still lacks arguments, as TorchRL's target updaters are.
        also: takes the target's ``**kwargs``: its arguments come first.
        without: arguments that YAML does not give.
        defaults: other ones than in the signature, and fields that are no arguments of it.
    """
    found = {**(arguments(also) if also else {}), **arguments(target)}
    given: dict[str, Any] = {name: parameter.default for name, parameter in found.items() if name not in without}
    given |= defaults or {}
    hints = {name: parameter.annotation for name, parameter in found.items()}
    fields = [(name, _type(hints.get(name), default), _field(default)) for name, default in given.items()]
    fields += [("_partial_", bool, field(default=True))] if partial else []
    fields += [("_convert_", str, field(default="all"))]  # lists reach the target as lists, not as OmegaConf's
    fields += [("_target_", str, field(default=build or f"{target.__module__}.{target.__qualname__}"))]
    name = "".join(part.capitalize() for part in target.__name__.split("_")) + "Config"
    namespace = {"__doc__": f":obj:`~{target.__module__}.{target.__qualname__}`.", "__post_init__": lambda self: None}
    return make_dataclass(name, fields, bases=(base,), namespace=namespace)


def _field(default: Any) -> Any:
    """A dataclass's field; a default that could be changed is made anew each time."""
    if default is inspect.Parameter.empty:
        return field(default=MISSING)
    if repr(default) == "<factory>" or isinstance(default, dict):
        return field(default_factory=dict)
    return field(default=default)


def _type(hint: Any, default: Any) -> Any:
    """The types that Hydra checks: plain ones, or None; everything else may be what it wants."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = tuple(_NAMES.get(kind.strip(), Any) for kind in hint.split("|")) if isinstance(hint, str) else kinds
    named = [kind for kind in kinds if kind not in (None, type(None))]
    if len(named) != 1 or named[0] not in _PLAIN:
        return Any
    return named[0] | None if len(kinds) > 1 or default is None else named[0]


_NAMES: dict[str, Any] = {kind.__name__: kind for kind in _PLAIN} | {"None": None}
_MAKE = f"{make.__name__}."


def _network(target: Any, name: str, **options: Any) -> type[Any]:
    return node(target, NetworkConfig, build=_MAKE + name, **options)


def _loss(target: Any, name: str) -> type[Any]:
    """``gamma`` is given to ``make_value_estimator``, as in TorchRL; None keeps TorchRL's 0.99."""
    networks = [each for each, parameter in arguments(target).items() if parameter.default is parameter.empty]
    return node(target, LossConfig, build=_MAKE + name, defaults={**dict.fromkeys(networks), "gamma": None})


#: What is registered: configurations by group and name.
GROUPS: dict[str, dict[str, type[Any]]] = {
    "loss": {f"o3f_{name}": _loss(getattr(make, f"{name}_loss"), f"{name}_loss") for name in make.LOSSES},
    "model": {
        "o3f_ensemble_qvalue": _network(modules.EnsembleQValue, "ensemble_qvalue"),
        "o3f_value": _network(modules.value_network, "value_network"),
        **{
            f"o3f_{name}": _network(getattr(modules, name), name)
            for name in (
                *("gaussian_policy", "tanh_gaussian_policy", "latent_policy"),
                *("latent_actor", "latent_decoder", "latent_encoder"),
            )
        },
    },
    # An actor shares its networks with a loss, and Hydra builds what is named twice twice. So these are partial:
    # instantiate(cfg.exploration)(policy=loss.actor_network, critic=loss.critic).
    "exploration": {
        "o3f_optimistic_actor": _network(
            modules.OptimisticActor, "optimistic_actor", partial=True, without=("policy", "critic")
        ),
        "o3f_noise_actor": _network(modules.GaussianNoiseActor, "noise_actor", partial=True, without=("policy",)),
    },
    "candidates": {
        "o3f_gaussian": _network(modules.GaussianCandidates, "gaussian_candidates"),
        "o3f_latent": _network(modules.LatentCandidates, "latent_candidates", partial=True, without=("decoder",)),
        "o3f_mixed": _network(
            modules.MixedCandidates,
            "mixed_candidates",
            also=modules.GaussianCandidates,
            without=("centre", "include_base"),
        ),
    },
    "ascent": {"o3f": node(modules.CandidateAscent, NetworkConfig)},
    "scorer": {
        "o3f_mean": node(modules.MeanScore, NetworkConfig),
        "o3f_random_rank": _network(modules.RandomRank, "random_rank"),
        "o3f_thompson": _network(modules.Thompson, "thompson"),
        "o3f_ucb": _network(modules.UpperConfidenceBound, "upper_confidence_bound"),
    },
    "selector": {
        "o3f_argmax": _network(modules.Argmax, "argmax"),
        "o3f_softmax": _network(modules.Softmax, "softmax"),
    },
    "env": {"o3f_gym": node(EnvConfig, EnvLibsConfig, build=_MAKE + "gym_env", defaults={"seed": 0, "device": "cpu"})},
    "replay_buffer": {
        "o3f_minari": node(make.minari_buffer, ReplayBufferBaseConfig, build=_MAKE + "minari_buffer"),
        "o3f_file": node(
            make.file_buffer,
            ReplayBufferBaseConfig,
            build=_MAKE + "file_buffer",
            also=data.load_minari,
            without=("dataset_id", "download", "root"),
        ),
    },
    "learner": {"o3f": node(make_learner, ConfigBase, without=("agent",), defaults={"config": {}})},
    "trainer": {
        "o3f": node(
            make_trainer,
            TrainerConfig,
            also=Trainer.__init__,
            without=(
                *("self", "options", "optimization_stepper", "batch_size", "num_epochs", "async_collection"),
                *("learner_backend", "learner_backend_options", "learner_poll_interval"),
            ),
            defaults={"frame_skip": 1, "optim_steps_per_batch": 1},
        )
    },
}
