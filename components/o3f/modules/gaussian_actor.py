"""From a network that says mean and spread to a policy with TorchRL's interface."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import NestedKey
from torch import nn
from torchrl.data import Bounded, Composite
from torchrl.modules import ProbabilisticActor

from o3f.modules.tensor_module import TensorModule


def gaussian_actor(
    network: nn.Module,
    action_dim: int,
    distribution: type[Any],
    *,
    in_key: NestedKey,
    action_key: NestedKey,
    device: torch.device | str | None,
    **options: Any,
) -> ProbabilisticActor:
    """Build a policy of actions in [-1, 1].

    Args:
        network: from observations ``[*B, O]`` to ``loc`` and ``scale``, both ``[*B, A]``.
        action_dim: A.
        distribution: class of the actions' distribution, of ``loc`` and ``scale``.
        in_key: the observation's entry.
        action_key: the action's entry.
        device: of the bounds.
        **options: further arguments of TorchRL's ``ProbabilisticActor``.

    Raises:
        ValueError: if the action would be written over what it is made of.
    """
    if action_key in ("loc", "scale", in_key):
        raise ValueError(f"action_key is {action_key!r}, which the policy reads or computes on the way: give another.")
    bounds = Bounded(low=-1.0, high=1.0, shape=torch.Size((action_dim,)), device=device)
    return ProbabilisticActor(
        TensorModule(network, in_keys=[in_key], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        out_keys=[action_key],
        spec=Composite({action_key: bounds}),
        distribution_class=distribution,
        **options,
    )
