"""Several independent agents of one configuration, updated together by batched weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from o3f.algorithms.guarded_adam import apply_gradients
from o3f.algorithms.iql import IQLLearner
from o3f.algorithms.learner import Learner
from o3f.errors import require

Slot: TypeAlias = tuple[dict[str, Any], str]
"""Where a module keeps a tensor: one of its dictionaries, and the name in it."""


class Lanes:
    """Updates S learners at once, each with its own weights, moments, coefficients and batches.

    Weights, targets and coefficients of all learners are stacked, ``[S, ...]``, and the losses are evaluated under
    ``torch.func.vmap``: one set of kernels serves all. Each learner keeps its slices of the stacks, its own Adam
    and its count of updates, so it acts, is saved, loads a state and may be updated alone as before. Equal to S
    learners up to the rounding of batched products.

    This pays on a GPU, where a small network's kernels take about as long for one agent as for several. On a CPU
    it gains nothing: an update of S lanes takes 1.2 times as long as S updates (HalfCheetah's
    sizes, S = 1, 2, 4).

    Args:
        learners: of one configuration and one size; none of them may be in other lanes at the same time.

    Raises:
        ConfigError: for learners of another algorithm than IQL and BC, of different configurations, with hooks
            (``next_value``, ``actor_term``), compiled ones, or ones whose update draws numbers.

    Examples:
        >>> from tensordict import TensorDict
        >>> learners = [IQLLearner(observation_dim=3, action_dim=2) for _ in range(2)]
        >>> rows = TensorDict({"observation": torch.zeros(8, 3), "action": torch.zeros(8, 2)}, [8])
        >>> rows["next"] = TensorDict({"observation": torch.zeros(8, 3), "reward": torch.ones(8, 1)}, [8])
        >>> rows["next", "done"] = rows["next", "terminated"] = torch.zeros(8, 1, dtype=torch.bool)
        >>> metrics = Lanes(learners).update([[rows], [rows]])
        >>> len(metrics), learners[0].updates
        (2, 1)
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = _supported(learners)
        self._first = self.learners[0]
        self._slots = _slots(self._first)
        held = [[holder[name] for holder, name in _slots(learner)] for learner in self.learners]
        self._stacks = [_stacked(tensors) for tensors in zip(*held, strict=True)]
        self._stack_of = dict(zip(held[0], self._stacks, strict=True))
        parts: Any = self._first.loss._modules
        trained = dict(parts["qvalue_network_params"].named_parameters())
        targets = dict(parts["target_qvalue_network_params"].named_buffers())
        self._critics = [self._stack_of[parameter].detach() for parameter in trained.values()]
        self._targets = [self._stack_of[targets[name]] for name in trained]

    def update(self, batches: Sequence[Sequence[TensorDictBase]], *, report: bool = True) -> list[dict[str, Tensor]]:
        """Take one gradient step of each learner per batch of its own.

        Args:
            batches: for each learner equally many, all of one size ``[B]``.
            report: return figures of the last step; without, the dictionaries are empty.

        Returns:
            The metrics of each learner, as of its own ``update``.
        """
        figures: dict[str, Tensor] = {}
        for current in zip(*batches, strict=True):
            joined: Any = list(current)
            figures = self._step(torch.stack(joined))
        if not (report and figures):
            return [{} for _ in self.learners]
        return [
            learner._metrics({name: figure[lane] for name, figure in figures.items()})
            for lane, learner in enumerate(self.learners)
        ]

    def _step(self, batch: Any) -> dict[str, Tensor]:
        """One step of all lanes on their batches ``[S, B]``, in the order of :class:`IQLLearner`."""
        first = self._first
        target_q, loss_value, figures = self._of_each(first._value_losses, batch)
        self._minimise(loss_value, "value")
        loss_actor, loss_critic, rest = self._of_each(
            lambda batch, target_q: first._rest_losses(batch, target_q, None), batch, target_q
        )
        for learner in self.learners:
            learner._set_actor_rate()
        self._minimise(loss_actor + loss_critic, "rest")
        torch._foreach_lerp_(self._targets, self._critics, first.config.tau)  # pyright: ignore[reportPrivateImportUsage]
        for learner in self.learners:
            learner.updates += 1
        losses = {"loss/value": loss_value, "loss/actor": loss_actor, "loss/critic": loss_critic}
        return {**losses, **figures, **rest}

    def _of_each(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """What ``function`` of the first learner returns with the tensors and the inputs of each lane."""

        def lane(tensors: Sequence[Tensor], *inputs: Any) -> Any:
            with _holding(self._slots, tensors):
                return function(*inputs)

        return torch.func.vmap(lane)(self._stacks, *inputs)

    def _minimise(self, losses: Tensor, name: str) -> None:
        """Take one step on the losses ``[S]``, each learner by its own optimiser."""
        parameters = [self._stack_of[parameter] for parameter in self._first.optimisers[name].parameters]
        gradients = [gradient.unbind() for gradient in torch.autograd.grad(losses.sum(), parameters)]
        for learner, own in zip(self.learners, zip(*gradients, strict=True), strict=True):
            apply_gradients(own, learner.optimisers[name])


def _supported(learners: Sequence[Learner]) -> list[IQLLearner]:
    supported = [learner for learner in learners if isinstance(learner, IQLLearner)]
    found = ", ".join(sorted({type(learner).__name__ for learner in learners})) or "none"
    require(
        0 < len(learners) == len(supported),
        f"lanes are for one or more agents of algorithm=iql or bc, found {found}. Run others one by one: num_lanes=1.",
    )
    require(len({id(learner) for learner in learners}) == len(learners), "lanes take each agent once.")
    config = supported[0].config
    require(
        all(learner.config == config for learner in supported),
        "lanes need agents of one configuration; run other ones in processes of their own.",
    )
    require(
        config.actor_dropout == 0 and config.aggregation != "subset" and not config.compile,
        "lanes need updates that draw nothing and are not compiled: actor_dropout=0, aggregation=min or mean,"
        " compile=false; or run the agents one by one: num_lanes=1.",
    )
    require(
        all(learner.next_value is None and learner.actor_term is None for learner in supported),
        "lanes cannot change the objective: online.distil_weight=0 online.target_candidates=0, or num_lanes=1.",
    )
    return supported


def _slots(learner: IQLLearner) -> list[Slot]:
    """Everything an update reads or changes: weights, targets and coefficients, always in the same order."""
    loss = learner.loss
    networks: tuple[nn.Module, ...] = (
        loss.actor_network,
        loss.qvalue_network,
        loss.target_qvalue_network,
        loss.value_network,
    )
    parts = [part for network in networks for part in network.modules()]
    # Targets are kept in the module's own dictionary: they are registered elsewhere.
    holders = [holder for part in parts for holder in (part._parameters, part._buffers, vars(part))]
    holders.append(loss._buffers)
    return [(holder, name) for holder in holders for name, value in holder.items() if isinstance(value, Tensor)]


@contextmanager
def _holding(slots: Sequence[Slot], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Let modules hold other tensors for a while."""
    before = [holder[name] for holder, name in slots]
    try:
        for (holder, name), tensor in zip(slots, tensors, strict=True):
            holder[name] = tensor
        yield
    finally:
        for (holder, name), tensor in zip(slots, before, strict=True):
            holder[name] = tensor


@torch.no_grad()
def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of S learners as one, of which each becomes a slice."""
    stack = torch.stack(list(tensors)).requires_grad_(tensors[0].requires_grad)
    for lane, tensor in enumerate(tensors):
        tensor.data = stack.detach()[lane]
    return stack
