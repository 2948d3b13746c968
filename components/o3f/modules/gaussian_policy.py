"""The policy and value networks of IQL; the policy of AWAC is a variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from tensordict import NestedKey
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType
from torchrl.modules import IndependentNormal, ProbabilisticActor

from o3f.modules.arguments import check_switches, layer_sizes, log_std_range
from o3f.modules.gaussian_actor import gaussian_actor
from o3f.modules.mlp import Init, mlp
from o3f.modules.normalisation import Normaliser
from o3f.modules.tensor_module import TensorModule

LogStdRule = Literal["clip", "sigmoid"]


class TanhMeanGaussian(nn.Module):
    """Mean and standard deviation of an un-squashed Gaussian: ``[*B, O] -> ([*B, A], [*B, A])``.

    ``loc = tanh(mlp(observation))`` and ``scale = exp(clip(log_std, *log_std_bounds))``, where ``log_std``
    ``[A]`` is a parameter that does not depend on the observation and starts at 0. With
    ``log_std_rule="sigmoid"`` the logarithm is ``low + (high - low) * sigmoid(log_std)`` instead, which starts
    in the middle of the bounds and has a gradient everywhere.

    Args:
        sizes: widths from observation to action.
        squash_mean: False leaves out the tanh around the mean.
        dropout: dropout probability of the hidden layers.
        init: see :func:`~o3f.modules.mlp.initialise_`.
        log_std_bounds: range of the logarithm of the standard deviation.
        log_std_rule: how the parameter is kept within it.
        normaliser: of observations, before the first layer.
        device: where the parameters live.

    Raises:
        ValueError: if ``init`` or ``log_std_rule`` is unknown, or ``log_std_bounds`` are not two ascending numbers.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        squash_mean: bool = True,
        dropout: float = 0.0,
        init: Init = "orthogonal",
        log_std_bounds: tuple[float, float] = (-5.0, 2.0),
        log_std_rule: LogStdRule = "clip",
        normaliser: Normaliser | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if log_std_rule not in get_args(LogStdRule):
            raise ValueError(f"log_std_rule must be one of {get_args(LogStdRule)}, got {log_std_rule!r}.")
        self.mean = mlp(sizes, init=init, dropout=dropout, normaliser=normaliser, device=device)
        self.log_std = nn.Parameter(torch.zeros(sizes[-1], device=device))
        self.squash_mean = squash_mean
        self.log_std_bounds = log_std_range(log_std_bounds)
        self.log_std_rule: LogStdRule = log_std_rule

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the spread back to that of the start; the layers draw their weights themselves."""
        self.log_std.zero_()

    def bounded_log_std(self) -> Tensor:
        """Return the logarithm of the standard deviation, ``[A]``."""
        low, high = self.log_std_bounds
        if self.log_std_rule == "sigmoid":
            return low + (high - low) * self.log_std.sigmoid()
        return self.log_std.clamp(low, high)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the location and the scale, both ``[*B, A]``."""
        loc = self.mean(observation)
        loc = torch.tanh(loc) if self.squash_mean else loc
        scale = self.bounded_log_std().exp()
        return loc, scale.expand_as(loc)


def gaussian_policy(
    observation_dim: int,
    action_dim: int,
    hidden_sizes: Sequence[int] = (256, 256),
    *,
    squash_mean: bool = True,
    dropout: float = 0.0,
    init: Init = "orthogonal",
    log_std_bounds: tuple[float, float] = (-5.0, 2.0),
    log_std_rule: LogStdRule = "clip",
    normalise: bool = False,
    in_key: NestedKey = "observation",
    action_key: NestedKey = "action",
    device: torch.device | str | None = None,
) -> ProbabilisticActor:
    """Build IQL's policy: a Gaussian around a tanh mean, its standard deviation the same in every state.

    Reads ``in_key`` ``[*B, O]``, writes ``loc``, ``scale`` and ``action_key``, all ``[*B, A]``. The action is
    a sample, clipped to [-1, 1], under ``ExplorationType.RANDOM`` or none, and the mean under
    ``DETERMINISTIC``. The density is not squashed and ignores the clipping, as in the original:
    ``policy.get_dist(td).log_prob(action) = sum_i log N(action_i; loc_i, scale_i)``.

    Args:
        observation_dim: O.
        action_dim: A.
        hidden_sizes: widths of the hidden layers, the default is IQL's.
        squash_mean: False leaves out the tanh around the mean, which is then clipped only where it acts.
        dropout: dropout probability of the hidden layers (IQL: 0, and 0.1 on kitchen and adroit).
        init: ``"orthogonal"`` (IQL's own) or ``"default"``.
        log_std_bounds: range of the logarithm of the standard deviation (IQL's).
        log_std_rule: ``"clip"`` (IQL's) or ``"sigmoid"`` (AWAC's in d3rlpy, with bounds of -6 and 0), see
            :class:`TanhMeanGaussian`.
        normalise: put a :class:`~o3f.modules.Normaliser` (the identity until it is fitted) before the first layer.
        in_key: the observation's entry.
        action_key: the action's entry.
        device: where the parameters live.

    Raises:
        ValueError: if ``init`` or ``log_std_rule`` is unknown, a size is no whole number of at least 1, or ``dropout``
            is not in [0, 1).

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> policy = gaussian_policy(observation_dim=3, action_dim=2)
        >>> policy(TensorDict({"observation": torch.zeros(4, 3)}, [4]))["action"].shape
        torch.Size([4, 2])
    """
    sizes = layer_sizes(observation_dim, hidden_sizes, action_dim)
    check_switches(squash_mean=squash_mean, normalise=normalise)
    network = TanhMeanGaussian(
        sizes,
        squash_mean=squash_mean,
        dropout=dropout,
        init=init,
        log_std_bounds=log_std_bounds,
        log_std_rule=log_std_rule,
        normaliser=Normaliser(observation_dim, [in_key], device) if normalise else None,
        device=device,
    )
    return gaussian_actor(
        network,
        action_dim,
        IndependentNormal,
        in_key=in_key,
        action_key=action_key,
        device=device,
        safe=True,
        default_interaction_type=ExplorationType.RANDOM,
    )


def value_network(
    observation_dim: int,
    hidden_sizes: Sequence[int] = (256, 256),
    *,
    init: Init = "orthogonal",
    layer_norm: bool = False,
    normalise: bool = False,
    in_key: NestedKey = "observation",
    out_key: NestedKey = "state_value",
    device: torch.device | str | None = None,
) -> TensorDictModule:
    """Build a state-value network: reads ``in_key`` ``[*B, O]``, writes ``out_key`` ``[*B, 1]``.

    Args:
        observation_dim: O.
        hidden_sizes: widths of the hidden layers, the default is IQL's.
        init: ``"orthogonal"`` (IQL's own) or ``"default"``.
        layer_norm: normalise before every ReLU.
        normalise: put a :class:`~o3f.modules.Normaliser` (the identity until it is fitted) before the first layer.
        in_key: the observation's entry.
        out_key: the value's entry.
        device: where the parameters live.
    """
    check_switches(normalise=normalise)
    sizes = layer_sizes(observation_dim, hidden_sizes, 1)
    normaliser = Normaliser(observation_dim, [in_key], device) if normalise else None
    network = mlp(sizes, init=init, layer_norm=layer_norm, normaliser=normaliser, device=device)
    return TensorModule(network, in_keys=[in_key], out_keys=[out_key])
