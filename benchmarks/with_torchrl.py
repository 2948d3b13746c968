"""Contender ``torchrl``: its IQLLoss, replay buffer, SoftUpdate and grouped Adams, as its IQL script joins them.

Its policy has a mean and a scale a state, a distribution of its own kind (TanhNormal), and its losses step jointly;
the sizes of the networks are those of the others. It has no AWAC or LAPO, and its CQLLoss is another algorithm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from tensordict.nn.distributions import NormalParamExtractor
from torchrl.data import Bounded, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import IQLLoss, SoftUpdate, group_optimizers

from .data import ACTION_DIM, BATCH, DISCOUNT, OBSERVATION_DIM, TAU, transitions

Cases = dict[str, Callable[[], int]]
WIDTHS, RATE = [256, 256], 3e-4


def rows() -> TensorDict:
    """The transitions under TorchRL's keys."""
    columns = {name: torch.as_tensor(column) for name, column in transitions().items()}
    following = {name: columns[name] for name in ("reward", "terminated")}
    following["observation"] = columns["next_observation"]
    following["done"] = columns["terminated"] | columns["truncated"]
    entries: Any = {"observation": columns["observation"], "action": columns["action"], "next": following}
    return TensorDict(entries, [len(columns["action"])])


def network(inputs: int, outputs: int) -> Any:
    """A perceptron."""
    return MLP(in_features=inputs, out_features=outputs, num_cells=WIDTHS, activation_class=torch.nn.ReLU)


def make_loss(num_critics: int) -> Any:
    """The loss with all its networks."""
    layers = torch.nn.Sequential(network(OBSERVATION_DIM, 2 * ACTION_DIM), NormalParamExtractor())
    actor = ProbabilisticActor(
        module=TensorDictModule(layers, in_keys=["observation"], out_keys=["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=Bounded(-1.0, 1.0, torch.Size((ACTION_DIM,))),
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -torch.ones(ACTION_DIM), "high": torch.ones(ACTION_DIM), "tanh_loc": False},
    )
    loss = IQLLoss(
        actor,
        ValueOperator(network(OBSERVATION_DIM + ACTION_DIM, 1), in_keys=["observation", "action"]),
        value_network=ValueOperator(network(OBSERVATION_DIM, 1), in_keys=["observation"]),
        num_qvalue_nets=num_critics,
        loss_function="l2",
        temperature=3.0,
        expectile=0.7,
    )
    loss.make_value_estimator(gamma=DISCOUNT)
    return loss


def learning(num_critics: int) -> Cases:
    """Sample and update."""
    buffer: Any = TensorDictReplayBuffer(storage=LazyTensorStorage(100_000), batch_size=BATCH)
    buffer.extend(rows())
    loss = make_loss(num_critics)
    targets = SoftUpdate(loss, tau=TAU)
    parts = ("actor_network_params", "qvalue_network_params", "value_network_params")
    adams = [torch.optim.Adam(list(getattr(loss, part).flatten_keys().values()), lr=RATE) for part in parts]
    optimiser = group_optimizers(*adams)

    def step() -> int:
        optimiser.zero_grad(set_to_none=True)
        losses = loss(buffer.sample())
        (losses["loss_actor"] + losses["loss_value"] + losses["loss_qvalue"]).backward()
        optimiser.step()
        targets.step()
        losses.detach()
        return 1

    return {"update": step}


WORKLOADS: dict[str, Callable[[], Cases]] = {"iql2": lambda: learning(2), "iql5": lambda: learning(5)}
