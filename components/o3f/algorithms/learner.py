"""What the recipes expect of an algorithm, and how one is built from a configuration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any, ClassVar, TypeAlias

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from o3f.algorithms.compiled_step import CompiledStep, Step
from o3f.algorithms.guarded_adam import GuardedAdam
from o3f.objectives.functional import Aggregation

BatchFunction: TypeAlias = Callable[[TensorDictBase], Tensor]


def critic_metrics(values: Tensor) -> dict[str, Tensor]:
    """What is logged of the critics' values ``[*B, m]``: their mean, and how much they disagree."""
    return {"critic/mean": values.mean(), "critic/std": values.std(-1, correction=0).mean()}


class Learner(ABC):
    """Networks, losses and optimisers of one algorithm.

    The same :meth:`update` serves offline and online training: only the batches change, never the objective.
    A subclass names its :attr:`config_type`, sets :attr:`policy`, :attr:`critic`, :attr:`loss` and
    :attr:`optimisers`, and writes :meth:`update`. ``make_learner`` builds it as
    ``Subclass(observation_dim, action_dim, config, device)``, with the user's :class:`Agent` as a fifth argument
    where there is one.
    """

    config_type: ClassVar[type[Any]]
    """The dataclass of its hyper-parameters."""

    squashed: ClassVar[bool] = False
    """Whether its policy is a Gaussian squashed by a tanh."""

    compiles_up_to: ClassVar[float] = 0
    """Rows of a batch up to which its gradient steps were measured to be faster compiled; docs/performance.md."""

    needs_value: ClassVar[bool] = False
    """Whether it has a value network, and learns critics from the dataset alone, whatever the policy."""

    accepts_agent: ClassVar[bool] = True
    """Whether it can take an :class:`Agent` of other networks than its own."""

    starts_from: ClassVar[Collection[str]] = frozenset()
    """Algorithms beside itself whose pre-trained state it can start from, by ``start_from``."""

    draws_targets: ClassVar[bool] = False
    """Whether it can begin with fresh target critics beside an agent of the user's own, by ``draw_targets``."""

    shared_keys: ClassVar[Sequence[str]] = ()
    """Hyper-parameters that it then shares with the other algorithm."""

    policy: TensorDictModuleBase
    """Writes ``action`` ``[*B, A]`` in [-1, 1] from ``observation`` ``[*B, O]``."""

    critic: TensorDictModuleBase
    """Writes ``state_action_value`` ``[*B, m]``; shares its Parameters with what is trained."""

    config: Any
    """The hyper-parameters, a dataclass."""

    loss: Any
    """The LossModule: all networks, their targets and the coefficients."""

    optimisers: dict[str, GuardedAdam]
    """By name."""

    updates: int = 0
    """Gradient steps of the critics so far."""

    next_value: BatchFunction | None = None
    """Replaces V(s') ``[B]`` in the critics' target, given the batch. None keeps the algorithm's own."""

    actor_term: BatchFunction | None = None
    """A further term of the policy's loss, given the batch. None adds nothing."""

    @property
    def entropy_weight(self) -> float | None:
        """The weight of the policy's entropy in the critics' targets; None where they have none."""
        return None

    @property
    def target_rule(self) -> tuple[Aggregation, int]:
        """How one value is made of the target critics, and how many of them a ``"subset"`` has."""
        return self.loss.aggregation, self.loss.subset_size

    @property
    def coefficients(self) -> dict[str, Tensor]:
        """The coefficients a schedule may change, in place, by name."""
        return {name: getattr(self.loss, name) for name in sorted(self.loss._schedulable_buffers)}

    @property
    def target_critic(self) -> TensorDictModuleBase:
        """The target critics, of the same form as :attr:`critic`."""
        network: TensorDictModuleBase = self.loss.target_qvalue_network
        return network

    def prepare(self, dataset: TensorDictBase) -> None:
        """Measure what the algorithm takes from the dataset's rows ``[D]``, once, before the first update.

        These are the z-scores of the networks that were built with ``normalise``.
        """
        self.loss.fit_normalisers(dataset)

    @abstractmethod
    def update(self, batches: Sequence[TensorDictBase], *, report: bool = True) -> dict[str, Tensor]:
        """Take one gradient step of the critics per batch ``[B]``.

        Args:
            batches: one or more.
            report: return 0-d tensors on the last one; without, nothing is spent on them and none is returned.
        """

    def start_from(self, state: Mapping[str, Any], *, copy_targets: bool, copy_optimisers: bool) -> None:
        """Take over the ``state_dict()`` of an algorithm in :attr:`starts_from`; one that has any writes this."""
        raise NotImplementedError

    def draw_targets(self) -> None:
        """Draw the target critics anew; one with :attr:`draws_targets` writes this."""
        raise NotImplementedError

    def _make_step(self, step: Step) -> Step:
        """Return a method that takes one gradient step, compiled where the configuration asks for it.

        ``auto`` is for recipes, which settle it before; here it asks for nothing. An :attr:`actor_term` is evaluated
        without: optimistic selection is no part of the graph.
        """
        if self.config.compile is not True:
            return step
        compiled = CompiledStep(step, self.optimisers)
        return lambda *inputs: (compiled if self.actor_term is None else step)(*inputs)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a learner of the same configuration needs to continue exactly as this one."""
        optimisers = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        return {"loss": dict(self.loss.state_dict()), "optimisers": optimisers, "updates": self.updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over such a state.

        Raises:
            ValueError: if it is none, or that of another learner.
        """
        if missing := [name for name in ("loss", "optimisers", "updates") if name not in state_dict]:
            raise ValueError(f"The state has no {missing[0]!r}, but {list(state_dict)}: expected that of a learner.")
        if (theirs := sorted(state_dict["optimisers"])) != (own := sorted(self.optimisers)):
            raise ValueError(
                f"The state is of a learner with optimisers {theirs}, and {type(self).__name__} has {own}."
            )
        self.loss.load_state_dict(state_dict["loss"])
        for name, state in deepcopy(state_dict["optimisers"]).items():  # Adam keeps the tensors it is given
            self.optimisers[name].load_state_dict(state)
        self.updates = int(state_dict["updates"])


def batch_list(batches: Sequence[TensorDictBase]) -> Sequence[TensorDictBase]:
    """Return the batches of an update.

    Raises:
        TypeError: if it is one batch, whose rows would be taken for batches.
    """
    if isinstance(batches, TensorDictBase):
        raise TypeError(f"update takes a list of batches, got one {list(batches.batch_size)}: give update([batch]).")
    return batches


def detached(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the values without their graphs, which a step has consumed."""
    return {name: value.detach() for name, value in values.items()}
