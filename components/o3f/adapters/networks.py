"""Our networks with someone else's weights; their sizes are read from these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor

from o3f.adapters.tensors import Linear, Statistics
from o3f.errors import ConfigError, require
from o3f.modules import EnsembleQValue, Normaliser, gaussian_policy, tanh_gaussian_policy, value_network
from o3f.modules.gaussian_policy import LogStdRule

#: Standard deviation given to a policy that has none: the exploration noise of TD3.
DETERMINISTIC_STD = 0.1


def gaussian(
    layers: Sequence[Linear],
    log_std: Tensor,
    *,
    bounds: tuple[float, float],
    rule: LogStdRule = "clip",
    squash_mean: bool = True,
    statistics: Statistics | None = None,
) -> ProbabilisticActor:
    """Build a :func:`~o3f.modules.gaussian_policy` with these layers of its mean and this ``log_std`` ``[A]``."""
    observation_dim, hidden, action_dim = widths(layers)
    with torch.random.fork_rng(devices=[]):  # the weights drawn are overwritten: leave the global stream alone
        policy = gaussian_policy(
            observation_dim, action_dim, hidden, squash_mean=squash_mean, log_std_bounds=bounds, log_std_rule=rule
        )
    network: Any = policy_network(policy)
    _copy(network.mean, layers)
    network.log_std.data.copy_(log_std)
    normalise(network.mean, ["observation"], statistics)
    return policy.eval()


def deterministic(layers: Sequence[Linear], statistics: Statistics | None = None) -> ProbabilisticActor:
    """Build a Gaussian around the actions of a deterministic policy, of standard deviation 0.1."""
    log_std = torch.full((layers[-1].bias.numel(),), DETERMINISTIC_STD).log()
    return gaussian(layers, log_std, bounds=(-5.0, 2.0), statistics=statistics)


def tanh_gaussian(
    layers: Sequence[Linear],
    *,
    bounds: tuple[float, float],
    statistics: Statistics | None = None,
) -> ProbabilisticActor:
    """Build a :func:`~o3f.modules.tanh_gaussian_policy`; the last layer gives means, then logarithms, ``[2 A]``."""
    observation_dim, hidden, outputs = widths(layers)
    with torch.random.fork_rng(devices=[]):
        policy = tanh_gaussian_policy(observation_dim, outputs // 2, hidden, log_std_bounds=bounds)
    network: Any = policy_network(policy)
    _copy(network.network, layers)
    normalise(network.network, ["observation"], statistics)
    return policy.eval()


def critics(
    members: Sequence[Sequence[Linear]],
    action_dim: int,
    statistics: Statistics | None = None,
    max_action: float = 1.0,
) -> EnsembleQValue:
    """Build an ensemble of these critics, in this order.

    Args:
        members: the layers of each.
        action_dim: A.
        statistics: of the observations they see.
        max_action: the action they see where the environment's bound is reached, ours is 1.

    Raises:
        ConfigError: they differ in size, or do not fit the actions.
    """
    sizes = {str(widths(layers)) for layers in members}
    require(len(sizes) == 1, f"the critics differ in size (inputs, hidden, outputs): {', '.join(sorted(sizes))}.")
    inputs, hidden, outputs = widths(members[0])
    require(
        outputs == 1 and inputs > action_dim,
        f"critics must give 1 number from observation and action, found {inputs} inputs of which {action_dim} are"
        f" the action, and {outputs} outputs.",
    )
    observation_dim = inputs - action_dim
    scaled = statistics is not None or max_action != 1.0
    ensemble: EnsembleQValue = EnsembleQValue(
        observation_dim, action_dim, len(members), hidden, normalise=scaled, generator=torch.Generator()
    )
    for member, layers in enumerate(members):
        for index, layer in enumerate(layers):
            ensemble.weights[index].data[member] = layer.weight.T
            ensemble.biases[index].data[member, 0] = layer.bias
    if ensemble.normaliser is not None:
        if statistics is not None:
            ensemble.normaliser.loc[:observation_dim] = statistics.loc
            ensemble.normaliser.scale[:observation_dim] = statistics.scale
        ensemble.normaliser.scale[observation_dim:] = 1.0 / max_action
    return ensemble


def value(layers: Sequence[Linear], statistics: Statistics | None = None) -> TensorDictModule:
    """Build a :func:`~o3f.modules.value_network` with these layers."""
    observation_dim, hidden, outputs = widths(layers)
    require(outputs == 1, f"a value network gives 1 number, found {outputs}.")
    with torch.random.fork_rng(devices=[]):
        module = value_network(observation_dim, hidden)
    network: Any = module.module
    _copy(network, layers)
    normalise(network, ["observation"], statistics)
    return module


def widths(layers: Sequence[Linear]) -> tuple[int, list[int], int]:
    """Return the number of inputs, the widths of the hidden layers, and the number of outputs."""
    outputs = [layer.weight.shape[0] for layer in layers]
    return layers[0].weight.shape[1], outputs[:-1], outputs[-1]


def join(first: Linear, second: Linear) -> Linear:
    """Return one layer that gives the outputs of both."""
    if first.weight.shape != second.weight.shape:
        raise ConfigError(
            f"the heads of mean and standard deviation differ: {list(first.weight.shape)}, {list(second.weight.shape)}."
        )
    return Linear(torch.cat([first.weight, second.weight]), torch.cat([first.bias, second.bias]))


def policy_network(policy: Any) -> nn.Module:
    """Return the network of a policy that was built here: what gives mean and standard deviation."""
    network: nn.Module = policy.module[0].module
    return network


def normalise(network: Any, keys: Sequence[str], statistics: Statistics | None) -> None:
    """Put z-scores before the first layer of a sequence."""
    if statistics is not None:
        normaliser = Normaliser(statistics.loc.numel(), list(keys))
        normaliser.loc.copy_(statistics.loc)
        normaliser.scale.copy_(statistics.scale)
        network.insert(0, normaliser)


def _copy(network: nn.Module, layers: Sequence[Linear]) -> None:
    linears = [part for part in network.modules() if isinstance(part, nn.Linear)]
    for linear, layer in zip(linears, layers, strict=True):
        linear.weight.data.copy_(layer.weight)
        linear.bias.data.copy_(layer.bias)
