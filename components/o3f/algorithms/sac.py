"""Soft actor-critic (Haarnoja et al., 2018, https://arxiv.org/abs/1812.05905), for policies from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.optim import Adam
from torchrl.data import Bounded
from torchrl.modules import ProbabilisticActor, TanhNormal
from torchrl.objectives import SoftUpdate

from o3f.algorithms.learner import Learner, minimise
from o3f.modules import EnsembleQValue, mlp
from o3f.objectives.sac import EnsembleSACLoss
from o3f.options import require_range

LOG_STD_BOUNDS = (-5.0, 2.0)


@dataclass(frozen=True)
class SACConfig:
    """Hyper-parameters; the defaults are the paper's.

    Args:
        hidden_sizes: widths of the hidden layers of every network.
        num_critics: m; the target is their minimum.
        discount: γ.
        tau: Polyak rate of the target critics.
        learning_rate: of Adam, for networks and temperature.
        target_entropy: of the policy, in nats; None is the paper's -A. Higher values keep actions noisy and
            off their bounds, which suits a policy that is to collect a dataset.

    Raises:
        ConfigError: for a value out of its range.
    """

    hidden_sizes: Sequence[int] = (256, 256)
    num_critics: int = 2
    discount: float = 0.99
    tau: float = 0.005
    learning_rate: float = 3e-4
    target_entropy: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers' ranges."""
        values = vars(self)
        require_range(values, "num_critics", "[1, inf)", integer=True)
        require_range(values, "discount", "[0, 1]")
        require_range(values, "tau", "(0, 1]")
        require_range(values, "learning_rate", "(0, inf)")


class _StateDependentGaussian(nn.Module):
    """Mean and standard deviation of the Gaussian before the tanh: ``[*B, O] -> ([*B, A], [*B, A])``."""

    def __init__(self, sizes: Sequence[int], device: torch.device | str | None) -> None:
        super().__init__()
        self.network = mlp([*sizes[:-1], 2 * sizes[-1]], init="default", device=device)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_std = self.network(observation).chunk(2, -1)
        return loc, log_std.clamp(*LOG_STD_BOUNDS).exp()


def _tanh_gaussian_policy(sizes: Sequence[int], device: torch.device | str | None) -> ProbabilisticActor:
    network = TensorDictModule(
        _StateDependentGaussian(sizes, device), in_keys=["observation"], out_keys=["loc", "scale"]
    )
    return ProbabilisticActor(
        network,
        in_keys=["loc", "scale"],
        out_keys=["action"],
        spec=Bounded(low=-1.0, high=1.0, shape=torch.Size(sizes[-1:]), device=device),
        distribution_class=TanhNormal,
    )


class SACLearner(Learner):
    """Trains a tanh-Gaussian policy, m critics and the temperature by TorchRL's SAC loss.

    Each update is one joint step on the three losses, then a Polyak step of the target critics. The standard
    deviation of the policy depends on the observation, its logarithm is clipped to [-5, 2]. Layers start as
    torch's default, the temperature at 1. Randomness is torch's global stream.

    Args:
        observation_dim: O.
        action_dim: A.
        config: hyper-parameters.
        device: of all networks.
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        config: SACConfig | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        config = config or SACConfig()
        sizes = tuple(config.hidden_sizes)
        self.policy = _tanh_gaussian_policy([observation_dim, *sizes, action_dim], device)
        self.critic = EnsembleQValue(
            observation_dim, action_dim, config.num_critics, sizes, init="default", device=device
        )
        entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy
        self.loss = EnsembleSACLoss(self.policy, self.critic, loss_function="l2", target_entropy=entropy)
        self.loss.make_value_estimator(gamma=config.discount)
        self.target_updater = SoftUpdate(self.loss, tau=config.tau)
        self.optimisers = {"all": Adam(self.loss.parameters(), lr=config.learning_rate, fused=True)}

    def update(self, batches: Sequence[TensorDictBase]) -> dict[str, Tensor]:
        """Take one gradient step per batch ``[B]``; return figures of the last one as 0-d tensors."""
        figures: dict[str, Tensor] = {}
        for batch in batches:
            output = self.loss(batch)
            minimise(output["loss_qvalue"] + output["loss_actor"] + output["loss_alpha"], self.optimisers["all"])
            self.target_updater.step()
            self.updates += 1
            figures = {
                "loss/critic": output["loss_qvalue"].detach(),
                "loss/actor": output["loss_actor"].detach(),
                "loss/temperature": output["loss_alpha"].detach(),
                "temperature": output["alpha"],
                "entropy": output["entropy"],
            }
        return figures
