"""What networks say of a batch, as tensors.

A TensorDictModule reads and writes a TensorDict, which on a CPU takes longer than the arithmetic of a small
network's head. A loss wants the numbers alone, so where a network is known to do nothing else than to call a
module on tensors, the module is called; any other network is used through its TensorDict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor
from torchrl.modules import ProbabilisticActor

from o3f.modules.ensemble import EnsembleQValue, join_inputs
from o3f.modules.tensor_module import TensorModule

Entries: TypeAlias = TensorDictBase | Mapping[NestedKey, Tensor]


def outputs(network: Any, tensordict: Entries) -> tuple[Tensor, ...]:
    """What ``network`` would write, in the order of its ``out_keys``; ``tensordict`` stays as it is.

    Args:
        network: a TensorDictModule of any kind.
        tensordict: a batch ``[*B]``, or a mapping with tensors of the same batch shape.
    """
    if not _is_plain(network):
        written = network(_select_inputs(network, tensordict))
        return tuple(written.get(key) for key in network.out_keys)
    result: Any = network.module(*(tensordict[key] for key in network.in_keys))
    return result if isinstance(result, tuple) else (result,)


def output(network: Any, tensordict: Entries, key: NestedKey) -> Tensor:
    """The entry ``key`` of what ``network`` would write."""
    if key not in network.out_keys:
        raise KeyError(
            f"{key!r} is wanted of a network that writes {network.out_keys}: set_keys, or rename its output."
        )
    value: Tensor = outputs(network, tensordict)[network.out_keys.index(key)]
    return value


def replace_entry(network: Any, tensordict: TensorDictBase, key: NestedKey, value: Tensor) -> dict[NestedKey, Tensor]:
    """The inputs of ``network``, with ``value`` under ``key`` instead of the batch's own.

    A value of shape ``[*B, K, ...]`` makes ``[*B, K]`` the batch shape of all inputs.
    """
    inputs = {name: tensordict[name] for name in network.in_keys if name != key}
    for name, entry in inputs.items():
        if value.ndim > entry.ndim:
            inputs[name] = entry.unsqueeze(-2).expand(*value.shape[:-1], -1)
    return {**inputs, key: value}


def critic_values(network: Any, tensordict: Entries, key: NestedKey, members: Tensor | None = None) -> Tensor:
    """What the critics of an ensemble say, ``[*B, m]``, or those among ``members`` ``[k]`` alone, ``[*B, k]``.

    Args:
        network: an :class:`~o3f.modules.EnsembleQValue`, which leaves out the others, or another ensemble.
        tensordict: as in :func:`outputs`.
        key: the entry the ensemble writes.
        members: indices.
    """
    if takes_tensors(network):
        of_members: Tensor = network.values(join_inputs(tensordict, network.in_keys), members)
        return of_members
    values: Tensor = network(_select_inputs(network, tensordict)).get(key)
    return values if members is None else values.index_select(-1, members)


def takes_tensors(critic: Any) -> bool:
    """Whether critics are an ensemble whose :meth:`~o3f.modules.EnsembleQValue.values` say all that a call would."""
    return type(critic) is EnsembleQValue and not _hooked(critic)


def distribution(actor: Any, tensordict: Entries) -> Any:
    """The distribution of a probabilistic policy's actions."""
    if (parts := _parts(actor)) is None:
        return actor.get_dist(_select_inputs(actor, tensordict))
    network, last = parts
    written = dict(zip(network.out_keys, outputs(network, tensordict), strict=True))
    return last.get_dist(written)


def sample_action(actor: Any, tensordict: TensorDictBase, key: NestedKey) -> tuple[Any, Tensor]:
    """The distribution of a probabilistic policy's actions and what it acts, from one evaluation of its network.

    Args:
        actor: the policy.
        tensordict: a batch ``[*B]``.
        key: the action's entry; without gradients.
    """
    if (parts := _parts(actor)) is None:
        selected = _select_inputs(actor, tensordict)
        return actor.get_dist(selected), actor(selected.copy()).get(key).detach()
    network, last = parts
    written = dict(zip(network.out_keys, outputs(network, tensordict), strict=True))
    constant = TensorDict({name: value.detach() for name, value in written.items()}, tensordict.batch_size)
    action: Tensor = last(constant).get(key)
    return last.get_dist(written), action


def call_policy(policy: Any, tensordict: TensorDictBase, key: NestedKey) -> Tensor:
    """The action of a policy of any kind; all that the policy writes is in ``tensordict`` then."""
    if (parts := _parts(policy)) is None:
        action: Tensor = policy(tensordict).get(key)
        return action
    network, last = parts
    for name, value in zip(network.out_keys, outputs(network, tensordict), strict=True):
        tensordict.set(name, value)
    written: Tensor = last(tensordict).get(key)
    return written


def _parts(actor: Any) -> tuple[Any, Any] | None:
    """A policy's network and what makes actions of its outputs, where it is no more than these two."""
    if type(actor) not in (ProbabilisticActor, ProbabilisticTensorDictSequential) or _hooked(actor):
        return None
    parts = list(actor.module)
    plain = len(parts) == 2 and _is_plain(parts[0]) and isinstance(parts[1], ProbabilisticTensorDictModule)
    return (parts[0], parts[1]) if plain else None


def _is_plain(network: Any) -> bool:
    """Whether a call of the network is a call of its module on the tensors of its ``in_keys``, and no more."""
    # The exact class: a subclass may do anything in its call. Hooks would be left out without a word.
    exact = type(network) in (TensorDictModule, TensorModule) and network.inplace is True
    return exact and not (network._kwargs or network.method or network.method_kwargs or _hooked(network))


def _hooked(network: Any) -> bool:
    return bool(network._forward_hooks or network._forward_pre_hooks)


def _select_inputs(network: Any, tensordict: Entries) -> TensorDictBase:
    """The network's inputs in a TensorDict of its own."""
    if isinstance(tensordict, TensorDictBase):
        return tensordict.select(*network.in_keys)
    inputs = {key: tensordict[key] for key in network.in_keys}
    return TensorDict(inputs, next(iter(inputs.values())).shape[:-1])


def candidate_values(
    critic: Any,
    states: TensorDictBase,
    candidates: Tensor,
    *,
    action_key: NestedKey,
    value_key: NestedKey,
    chunk_size: int,
) -> Tensor:
    """Evaluate ``critic`` on every (state, candidate) pair, at most ``chunk_size`` pairs at a time.

    Args:
        critic: reads ``states`` and ``action_key``, writes ``value_key`` ``[..., m]``.
        states: what the critic reads beside the action, of batch shape ``[*B]``.
        candidates: actions ``[*B, N, A]``.
        action_key: the action's entry.
        value_key: the values' entry.
        chunk_size: most pairs in one call.

    Returns:
        The values ``[*B, N, m]``.
    """

    def values(part: TensorDictBase, actions: Tensor) -> Tensor:
        if takes_tensors(critic):
            return critic_values(critic, replace_entry(critic, part, action_key, actions), value_key)
        inputs = part.unsqueeze(-1).expand(actions.shape[:-1]).set(action_key, actions)
        written: Tensor = critic(inputs).get(value_key)
        return written

    *batch, count, size = candidates.shape
    if candidates.shape[:-1].numel() <= chunk_size:
        return values(states, candidates)
    # Whole states together where they fit into a chunk, else the candidates of one state in several chunks.
    rows, columns = max(1, chunk_size // count), min(count, chunk_size)
    chunks = [
        torch.cat([values(part, actions) for actions in torch.split(some, columns, dim=1)], dim=1)
        for part, some in zip(
            states.reshape(-1).split(rows),
            torch.split(candidates.reshape(-1, count, size), rows),
            strict=True,
        )
    ]
    joined = torch.cat(chunks)
    return joined.reshape(*batch, count, joined.shape[-1])
