"""From a trained actor to the arrays of a :class:`~o3f.collection.behaviours.GaussianMLP`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.collection.behaviours.gaussian_mlp import GaussianMLP
from o3f.modules.gaussian_policy import TanhMeanGaussian
from o3f.modules.tanh_gaussian_policy import LOG_STD_BOUNDS

Array = npt.NDArray[Any]


def gaussian_mlp_from_actor(actor: TensorDictModuleBase) -> GaussianMLP:
    """Copy the weights of an actor; dropout is left out, as in evaluation.

    The result is compared with the actor on random observations, so a wrong export cannot pass.

    Args:
        actor: from :func:`o3f.modules.gaussian_policy`, or the policy of a SAC learner.

    Raises:
        ValueError: if the actor is of another kind, or has layers other than Linear, ReLU and Dropout.
    """
    if not hasattr(actor, "get_dist"):
        raise ValueError(
            f"Only gaussian_policy and SAC actors can be exported, found a {type(actor).__name__}. A run's policy"
            " of any kind can collect by itself: task.behaviour.kind=run task.behaviour.path=RUN_FOLDER."
        )
    gaussians = [module for module in actor.modules() if isinstance(module, TanhMeanGaussian)]
    *hidden, head = _linears(gaussians[0].mean if gaussians else actor)
    weight, bias = _array(head.weight.T), _array(head.bias)
    arrays = {"activation": np.asarray("relu"), "squash": np.asarray(not gaussians)}
    for index, layer in enumerate(hidden):
        arrays |= {f"W{index}": _array(layer.weight.T), f"b{index}": _array(layer.bias)}
    if gaussians:
        arrays |= {"W_mean": weight, "b_mean": bias, "squash_mean": np.asarray(True)}
        arrays |= {"log_std": _array(gaussians[0].bounded_log_std())}
        arrays |= {"log_std_bounds": np.asarray(gaussians[0].log_std_bounds)}
    else:
        half = len(bias) // 2
        arrays |= {"W_mean": weight[:, :half], "b_mean": bias[:half]}
        arrays |= {"W_log_std": weight[:, half:], "b_log_std": bias[half:]}
        arrays |= {"log_std_bounds": np.asarray(LOG_STD_BOUNDS)}
    policy = GaussianMLP(arrays)
    _compare(policy, actor)
    return policy


def _linears(network: nn.Module) -> list[nn.Linear]:
    layers = [layer for layer in network.modules() if not list(layer.children())]
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    others = [layer for layer in layers if list(layer.parameters()) and not isinstance(layer, nn.Linear)]
    if not linears or others:
        found = sorted({type(layer).__name__ for layer in others})
        raise ValueError(f"Only Linear layers with ReLU between them can be exported, found {', '.join(found)}.")
    return linears


def _compare(policy: GaussianMLP, actor: TensorDictModuleBase) -> None:
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(64, policy.observation_dim, generator=generator)
    device = next(actor.parameters()).device
    step = TensorDict({actor.in_keys[0]: observations}, [64], device=device)
    training = actor.training
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        actor.eval()(step)
    actor.train(training)
    mean, std = policy.distribution(observations.numpy())
    expected = [_array(step["loc"]), _array(step["scale"]), _array(step[actor.out_keys[-1]])]
    found = [mean, np.broadcast_to(std, mean.shape), policy.mode(observations.numpy())]
    if not all(np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(found, expected, strict=True)):
        raise ValueError("Only gaussian_policy and SAC actors can be exported; this one acts differently.")


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
