"""The policy of soft actor-critic and CQL: a Gaussian squashed by a tanh."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor, TanhNormal

from o3f.modules.arguments import check_switches, layer_sizes, log_std_range
from o3f.modules.gaussian_actor import gaussian_actor
from o3f.modules.mlp import Init, mlp
from o3f.modules.normalisation import Normaliser

LOG_STD_BOUNDS = (-5.0, 2.0)


class TanhGaussian(nn.Module):
    """Mean and standard deviation of the Gaussian before the tanh: ``[*B, O] -> ([*B, A], [*B, A])``.

    Both come from one perceptron: the first half of its outputs is ``loc``, the exponential of the second
    half, clipped to ``log_std_bounds``, is ``scale``.

    Args:
        sizes: widths from observation to action.
        init: see :func:`~o3f.modules.mlp.initialise_`.
        layer_norm: normalise before every ReLU.
        log_std_bounds: range of the logarithm of the standard deviation.
        normaliser: of observations, before the first layer.
        device: where the parameters live.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        init: Init = "default",
        layer_norm: bool = False,
        log_std_bounds: tuple[float, float] = LOG_STD_BOUNDS,
        normaliser: Normaliser | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        widths = [*sizes[:-1], 2 * sizes[-1]]
        self.network = mlp(widths, init=init, layer_norm=layer_norm, normaliser=normaliser, device=device)
        self.log_std_bounds = log_std_range(log_std_bounds)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the location and the scale, both ``[*B, A]``."""
        loc, log_std = self.network(observation).chunk(2, -1)
        return loc, log_std.clamp(*self.log_std_bounds).exp()


def tanh_gaussian_policy(
    observation_dim: int,
    action_dim: int,
    hidden_sizes: Sequence[int] = (256, 256),
    *,
    init: Init = "default",
    layer_norm: bool = False,
    log_std_bounds: tuple[float, float] = LOG_STD_BOUNDS,
    normalise: bool = False,
    in_key: NestedKey = "observation",
    action_key: NestedKey = "action",
    device: torch.device | str | None = None,
) -> ProbabilisticActor:
    """Build the policy ``tanh(u)``, ``u ~ N(loc(s), scale(s)²)``, of soft actor-critic.

    Reads ``in_key`` ``[*B, O]``, writes ``loc``, ``scale`` and ``action_key``, all ``[*B, A]``. The action is
    a sample under ``ExplorationType.RANDOM`` or none, and ``tanh(loc)`` under ``DETERMINISTIC``. The density
    is that of the squashed variable.

    Args:
        observation_dim: O.
        action_dim: A.
        hidden_sizes: widths of the hidden layers, the default is soft actor-critic's.
        init: ``"default"`` (torch's) or ``"orthogonal"``.
        layer_norm: normalise before every ReLU.
        log_std_bounds: range of the logarithm of the standard deviation. The authors clip to [-20, 2].
        normalise: put a :class:`~o3f.modules.Normaliser` (the identity until it is fitted) before the first layer.
        in_key: the observation's entry.
        action_key: the action's entry.
        device: where the parameters live.

    Raises:
        ValueError: if ``init`` is unknown, or a size is no whole number of at least 1.

    Examples:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> policy = tanh_gaussian_policy(observation_dim=3, action_dim=2)
        >>> policy(TensorDict({"observation": torch.zeros(4, 3)}, [4]))["action"].shape
        torch.Size([4, 2])
    """
    sizes = layer_sizes(observation_dim, hidden_sizes, action_dim)
    check_switches(normalise=normalise)
    network = TanhGaussian(
        sizes,
        init=init,
        layer_norm=layer_norm,
        log_std_bounds=log_std_bounds,
        normaliser=Normaliser(observation_dim, [in_key], device) if normalise else None,
        device=device,
    )
    return gaussian_actor(network, action_dim, TanhNormal, in_key=in_key, action_key=action_key, device=device)
