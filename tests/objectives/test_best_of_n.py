"""The two options that change the objective: what they compute, and that they are off unless asked for."""

import copy
from math import nan

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.data import Bounded
from torchrl.modules import MLP, ProbabilisticActor

from o3f.algorithms import make_learner
from o3f.modules import EnsembleQValue, OptimisticActor, gaussian_policy, latent_policy, tanh_gaussian_policy
from o3f.objectives import BestOfNValue, DistillationLoss

SIZES = {"hidden_sizes": (8,)}


def batch(rows: int = 6) -> TensorDict:
    torch.manual_seed(1)
    flags = {key: torch.zeros(rows, 1, dtype=torch.bool) for key in ("done", "terminated", "truncated")}
    following = {"observation": torch.randn(rows, 3), "reward": torch.randn(rows, 1), **flags}
    return TensorDict(
        {"observation": torch.randn(rows, 3), "action": torch.rand(rows, 2) * 2 - 1, "next": following}, [rows]
    )


def test_the_value_is_the_target_critics_minimum_at_the_online_critics_choice():
    torch.manual_seed(0)
    policy, critic, target = gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, 3, (8,)), EnsembleQValue(3, 2, 3, (8,))
    rows = batch()
    value = BestOfNValue(OptimisticActor(policy, critic, 7, 0.3, generator=torch.Generator().manual_seed(4)), target)

    torch.manual_seed(9)
    found = value(rows)

    again = OptimisticActor(policy, critic, 7, 0.3, generator=torch.Generator().manual_seed(4), return_candidates=True)
    torch.manual_seed(9)
    told = again(rows["next"].select("observation"))
    for row in range(6):
        inputs = [torch.cat([rows["next", "observation"][row], c]) for c in told["candidates"][row]]
        scores = [critic.values(x).mean().item() for x in inputs]
        best = inputs[max(range(7), key=scores.__getitem__)]
        assert found[row].item() == pytest.approx(target.values(best).min().item(), abs=1e-5)


def test_distillation_is_the_likelihood_of_the_chosen_action():
    policy, critic = gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, 3, (8,))
    rows = batch()
    actor = OptimisticActor(policy, critic, 7, 0.3, generator=torch.Generator().manual_seed(4))
    again = copy.deepcopy(actor)
    torch.manual_seed(9)
    loss = DistillationLoss(policy, actor, weight=0.5)(rows)
    torch.manual_seed(9)
    chosen = again(rows.select("observation"))["action"].clamp(-0.99, 0.99)
    loc, scale = (policy.get_dist(rows).base_dist.loc, policy.get_dist(rows).base_dist.scale)
    log_prob = -0.5 * ((chosen - loc) / scale) ** 2 - scale.log() - 0.918939
    assert loss.item() == pytest.approx(-0.5 * log_prob.sum(-1).mean().item(), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None for p in policy.parameters())
    assert all(p.grad is None for p in critic.parameters())
    for name, wrong in [("weight", -1.0), ("weight", nan), ("margin", -1.0), ("margin", 2.0), ("margin", nan)]:
        with pytest.raises(ValueError, match=f"{name} must be a number in "):
            DistillationLoss(policy, actor, **{name: wrong})


def test_distillation_refuses_a_density_that_is_not_of_the_whole_action():
    # A Normal says a number for each component: their mean is the likelihood over the number of components.
    network = TensorDictModule(MLP(3, 4, num_cells=[8]), ["observation"], ["both"])
    halves = TensorDictModule(lambda both: (both[..., :2], both[..., 2:].exp()), ["both"], ["loc", "scale"])
    policy = ProbabilisticActor(
        TensorDictSequential(network, halves),
        in_keys=["loc", "scale"],
        distribution_class=torch.distributions.Normal,
        spec=Bounded(-1.0, 1.0, (2,)),
    )
    actor = OptimisticActor(policy, EnsembleQValue(3, 2, 3, (8,)), 7, 0.3)
    with pytest.raises(ValueError, match=r"log-probability has shape \[6, 2\].*as of an Independent distribution"):
        DistillationLoss(policy, actor)(batch())


def test_distillation_into_a_deterministic_policy():
    network = torch.nn.Linear(3, 2)
    policy = TensorDictModule(network, ["observation"], ["action"])
    rows = batch()
    actor = OptimisticActor(policy, EnsembleQValue(3, 2, 3, (8,)), 7, 0.3, spec=Bounded(-1.0, 1.0, (2,)))
    generator = torch.get_rng_state()
    loss = DistillationLoss(policy, actor)(rows)
    torch.set_rng_state(generator)
    chosen = actor(rows.select("observation"))["action"]
    expected = (network(rows["observation"]) - chosen).square().sum(-1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["iql"])
def test_learners_use_them_only_when_asked(name: str):
    rows = batch(16)

    def trained(change) -> tuple:
        torch.manual_seed(3)
        learner = make_learner(name, 3, 2, SIZES)
        change(learner)
        torch.manual_seed(5)
        learner.update([rows.clone()])
        return learner.policy.state_dict(), learner.critic.state_dict()

    def value(learner):
        learner.next_value = lambda td: torch.full(td.batch_size, 50.0)

    def term(learner):
        learner.actor_term = lambda td: 1e3 * learner.policy.get_dist(td).log_prob(td["action"]).mean()

    def same(left, right) -> bool:
        return all(torch.equal(left[key], right[key]) for key in left)

    plain, with_value, with_term = trained(lambda learner: None), trained(value), trained(term)
    assert same(plain[0], with_value[0])
    assert not same(plain[1], with_value[1])
    assert same(plain[1], with_term[1])
    assert not same(plain[0], with_term[0])


def test_a_saturated_latent_policy_still_has_a_gradient():
    torch.manual_seed(0)
    policy, critic = latent_policy(3, 2, hidden_sizes=(8,)), EnsembleQValue(3, 2, 3, (8,))
    policy.decoder.module.action_normaliser.loc.fill_(3.0)  # far beyond the bounds
    loss = DistillationLoss(policy, OptimisticActor(policy, critic, 7, 0.3))(batch())
    loss.backward()
    assert loss.item() > 2
    assert max(p.grad.abs().max() for p in policy.actor.parameters()) > 1e-3


def test_a_tanh_policy_is_not_asked_for_the_bounds():
    policy, critic = tanh_gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, 3, (8,))
    loss = DistillationLoss(policy, OptimisticActor(policy, critic, 50, 5.0))(batch())
    assert loss.item() < 30
