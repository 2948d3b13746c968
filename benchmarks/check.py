"""The plain learners do what ours do: equal weights, batches and draws give equal parameters after some steps."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from o3f.algorithms import Learner

from .data import BATCH, transitions
from .ours import learner_for, rows_of
from .plain import PlainAWAC, PlainCQL, PlainIQL, PlainLAPO

#: lapo_block has no plain twin: it is compared with the full step.
CHECKED = ("iql2", "iql5", "awac", "cql", "lapo_full")
TOLERANCE = 1e-5


def difference(workload: str, steps: int = 5) -> float:
    """The largest difference of any parameter, targets included.

    Both draw their random numbers from torch's global stream, in the same order, seeded alike before each step.
    """
    torch.manual_seed(0)
    rows = rows_of(transitions(2_000))
    ours = learner_for(workload)
    ours.prepare(rows)
    plain = twin(workload, ours, rows)
    for step in range(steps):
        batch = rows[torch.randint(len(rows), (BATCH,))]
        torch.manual_seed(step)
        ours.update([batch])
        torch.manual_seed(step)
        plain.update(plain_batch(batch, ours, normalise=workload == "lapo_full"))
    pairs = zip(parameters_of(ours), parameters_of_plain(plain), strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


def twin(workload: str, ours: Learner, rows: TensorDictBase) -> Any:
    """The plain learner with the weights of ours."""
    if workload == "lapo_full":
        reward = rows["next", "reward"]
        plain: Any = PlainLAPO(100 * float(reward.min()), 100 * float(reward.max()))
    else:
        kinds = {"iql2": lambda: PlainIQL(2), "iql5": lambda: PlainIQL(5), "awac": PlainAWAC, "cql": PlainCQL}
        plain = kinds[workload]()
    with torch.no_grad():
        for target, source in zip(parameters_of_plain(plain), parameters_of(ours), strict=True):
            target.copy_(source)
    return plain


def plain_batch(batch: TensorDictBase, ours: Learner, *, normalise: bool) -> Any:
    """The columns of a batch; z-scores where ours makes these inside its networks."""
    s, a, next_s = batch["observation"], batch["action"], batch["next", "observation"]
    if normalise:
        decoder: Any = ours.loss.decoder_network.module
        s, next_s = decoder.observation_normaliser(s), decoder.observation_normaliser(next_s)
        a = decoder.action_normaliser(a)
    return s, a, batch["next", "reward"][:, 0], next_s, (~batch["next", "terminated"][:, 0]).float()


NETWORKS = ("actor", "value", "encoder", "decoder", "target_actor", "target_decoder")


def parameters_of(learner: Learner) -> list[Tensor]:
    """Ours, in the layout of torch's Linear."""
    found: list[Tensor] = []
    for name in NETWORKS:
        network = learner.loss.__dict__.get(f"{name}_network")
        if network is not None:
            found += linear(network)
            found += [p for key, p in network.named_parameters() if name == "actor" and key.endswith("log_std")]
    for ensemble in (learner.loss.qvalue_network, learner.loss.target_qvalue_network):
        for member in range(ensemble.num_critics):
            for weight, bias in zip(ensemble.weights, ensemble.biases, strict=True):
                found += [weight[member].T, bias[member, 0]]
    return found + ([learner.loss.log_alpha] if hasattr(learner.loss, "log_alpha") else [])


def parameters_of_plain(plain: Any) -> list[Tensor]:
    """The same of a plain learner."""
    names = ["policy" if hasattr(plain, "policy") else "actor", "log_std", *NETWORKS[1:]]
    found: list[Tensor] = []
    for name in names:
        part = getattr(plain, name, None)
        found += [] if part is None else [part] if isinstance(part, Tensor) else linear(part)
    for network in (*plain.critics, *plain.targets):
        found += linear(network)
    return found + ([plain.log_alpha] if hasattr(plain, "log_alpha") else [])


def linear(network: nn.Module) -> list[Tensor]:
    """Weights and biases of a network's linear layers, in order."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
