"""Networks evaluated on tensors say what they say through a TensorDict."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import ProbabilisticActor, TanhNormal

from o3f.modules import gaussian_policy, tanh_gaussian_policy
from o3f.modules.calls import sample_action


def composite_policy() -> ProbabilisticActor:
    """A policy of three modules, which must be called as a whole."""
    first = TensorDictModule(torch.nn.Linear(3, 4), in_keys=["observation"], out_keys=["hidden"])
    second = TensorDictModule(lambda hidden: hidden.exp().chunk(2, -1), in_keys=["hidden"], out_keys=["loc", "scale"])
    network = TensorDictSequential(first, second)
    return ProbabilisticActor(network, in_keys=["loc", "scale"], distribution_class=TanhNormal)


@pytest.mark.parametrize("policy", [gaussian_policy(3, 2), tanh_gaussian_policy(3, 2), composite_policy()])
@pytest.mark.parametrize("kind", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
def test_distribution_and_action_of_one_evaluation(policy: ProbabilisticActor, kind: ExplorationType) -> None:
    batch = TensorDict({"observation": 3 * torch.randn(5, 3)}, [5])
    with set_exploration_type(kind):
        torch.manual_seed(1)
        acted = policy(batch.clone())["action"]
        torch.manual_seed(1)
        distribution, action = sample_action(policy, batch, "action")
    assert torch.equal(action, acted)  # clipped, where the policy clips
    assert not action.requires_grad
    assert batch.keys() == {"observation"}
    inside = acted.detach().clamp(-0.9, 0.9)
    log_prob = distribution.log_prob(inside)
    expected = policy.get_dist(batch).log_prob(inside)
    torch.testing.assert_close(log_prob, expected)
    found = torch.autograd.grad(log_prob.sum(), list(policy.parameters()))
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), list(policy.parameters())))
