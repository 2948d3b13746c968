"""Losses of a policy and critics (AWAC, soft actor-critic, CQL), built alike for their tests."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torchrl.objectives import SoftUpdate

from o3f.modules import EnsembleQValue, gaussian_policy, tanh_gaussian_policy
from o3f.objectives import AWACLoss, CQLLoss, SACLoss
from o3f.objectives.actor_critic import ActorCriticLoss
from tests.support.iql_cases import ACTION_DIM, OBSERVATION_DIM

HIDDEN = (8, 8)
KINDS = ("awac", "sac", "cql", "lagrange")
NETWORKS = {"actor": "actor_network", "qvalue": "qvalue_network", "alpha": "log_alpha", "lagrange": "log_multiplier"}


def make_loss(kind: str, num_critics: int = 2, *, nested: bool = False, **kwargs: Any) -> ActorCriticLoss:
    """A loss whose targets differ from its critics."""
    torch.manual_seed(0)
    observation, action, value = (
        (("obs", "x"), ("agent", "act"), ("agent", "q"))
        if nested
        else (
            "observation",
            "action",
            "state_action_value",
        )
    )
    critic = EnsembleQValue(
        OBSERVATION_DIM, ACTION_DIM, num_critics, HIDDEN, in_keys=[observation, action], out_key=value
    )
    build = gaussian_policy if kind == "awac" else tanh_gaussian_policy
    policy = build(OBSERVATION_DIM, ACTION_DIM, HIDDEN, in_key=observation, action_key=action)
    loss = loss_of(kind, policy, critic, **kwargs)
    with torch.no_grad():
        for target in loss.target_qvalue_network_params.values(True, True):
            target.mul_(0.9)
    return loss


def loss_of(kind: str, policy: Any, critic: Any, **kwargs: Any) -> ActorCriticLoss:
    types: dict[str, type[ActorCriticLoss]] = {"awac": AWACLoss, "sac": SACLoss, "cql": CQLLoss, "lagrange": CQLLoss}
    if kind == "lagrange":
        kwargs = {"lagrange": "weighted_gap", **kwargs}
    loss = types[kind](policy, critic, **kwargs)
    SoftUpdate(loss, tau=0.005)
    return loss


def losses_of(kind: str) -> list[str]:
    """The part of each loss's name after ``loss_``."""
    return {"awac": ["actor", "qvalue"], "lagrange": list(NETWORKS)}.get(kind, ["actor", "qvalue", "alpha"])


def evaluate(loss: Any, batch: TensorDict, seed: int = 5) -> dict[str, Any]:
    """All outputs, with the same draws whenever the seed is the same."""
    torch.manual_seed(seed)
    return dict(loss(batch))


def nested_batch(batch: TensorDict) -> TensorDict:
    following = batch["next"]
    entries = {
        ("obs", "x"): batch["observation"],
        ("agent", "act"): batch["action"],
        ("next", "obs", "x"): following["observation"],
        ("next", "agent", "gain"): following["reward"],
        ("next", "flags", "over"): following["done"],
        ("next", "flags", "dead"): following["terminated"],
    }
    return TensorDict(entries, batch.batch_size)
