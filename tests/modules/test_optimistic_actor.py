"""OptimisticActor: moves as the closed forms say, equals its special cases, keeps TorchRL's contract."""

import copy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch.utils._python_dispatch import TorchDispatchMode
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, ValueOperator

from o3f.modules import (
    Argmax,
    CandidateAscent,
    EnsembleQValue,
    GaussianCandidates,
    GaussianNoiseActor,
    MeanScore,
    OptimisticActor,
    RandomRank,
    UpperConfidenceBound,
    gaussian_policy,
)

MAX_OF_100, SQUARED_MAX_OF_100 = 2.50759, 6.47243  # E[max], E[max^2] of 100 standard normal numbers
DETERMINISTIC, RANDOM = ExplorationType.DETERMINISTIC, ExplorationType.RANDOM


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def observations(*batch: int) -> TensorDict:
    return TensorDict({"observation": torch.randn(*batch, 3)}, batch)


def zero_policy(dim: int) -> TensorDictModule:
    policy = TensorDictModule(lambda x: torch.zeros(*x.shape[:-1], dim), ["observation"], ["action"])
    policy.spec = Bounded(-9.0, 9.0, (dim,))
    return policy


def critic_of(function) -> TensorDictModule:
    return TensorDictModule(lambda a: function(a).unsqueeze(-1), ["action"], ["state_action_value"])


def networks(**kwargs) -> tuple:
    return gaussian_policy(3, 2, (16,), **kwargs), EnsembleQValue(3, 2, hidden_sizes=(16,))


class Forbidden(TensorDictModuleBase):
    """A critic that must not be called."""

    def __init__(self):
        super().__init__()
        self.in_keys, self.out_keys = ["observation", "action"], ["state_action_value"]

    def forward(self, tensordict):
        raise AssertionError


# --- how far it moves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scorer", [None, "random direction"])
def test_displacement_on_a_linear_critic(scorer):
    """The largest of 100 normal numbers along the slope, plain noise across it; random_rank moves alike."""
    repeats, dim, sigma = 20_000, 4, 0.2
    slope = torch.tensor([3.0, 0.0, 0.0, 0.0])
    actor = OptimisticActor(
        zero_policy(dim),
        critic_of(lambda a: a @ slope),
        scorer=RandomRank(generator=seeded(1)) if scorer else None,
        sampler=GaussianCandidates(100, sigma, low=-9, high=9, generator=seeded()),
    )
    moved = actor(observations(repeats))["action"]
    squares = moved.square().sum(-1)
    error = 4 * squares.std().item() / repeats**0.5
    assert squares.mean().item() == pytest.approx(sigma**2 * (SQUARED_MAX_OF_100 + dim - 1), abs=error)
    if scorer:
        assert (moved.mean(0).abs() < 4 * moved.std(0) / repeats**0.5).all()
        return
    along, across = moved[:, 0], moved[:, 1:]
    assert along.mean().item() == pytest.approx(sigma * MAX_OF_100, abs=4 * sigma * 0.43 / repeats**0.5)
    assert (across.mean(0).abs() < 4 * sigma / repeats**0.5).all()
    assert across.std(0).tolist() == pytest.approx([sigma] * 3, rel=4 / (2 * repeats) ** 0.5)


@pytest.mark.parametrize(("dim", "expected"), [(2, 0.02), (3, 0.1036), (6, 0.781)])
def test_displacement_on_a_quadratic_peak_at_the_action(dim, expected):
    repeats, sigma = 20_000, 0.2
    actor = OptimisticActor(
        zero_policy(dim),
        critic_of(lambda a: -a.square().sum(-1)),
        sampler=GaussianCandidates(100, sigma, low=-9, high=9, generator=seeded()),
    )
    squares = actor(observations(repeats))["action"].square().sum(-1) / sigma**2
    error = 4 * squares.std().item() / repeats**0.5
    assert squares.mean().item() == pytest.approx(expected, abs=error + 0.002)
    assert squares.min() > 0  # the peak itself is no candidate


def test_including_the_base_action_never_lowers_the_score():
    actor = OptimisticActor(
        zero_policy(2),
        critic_of(lambda a: -a.square().sum(-1)),
        sampler=GaussianCandidates(100, 0.2, include_base=True),
    )
    assert not actor(observations(50))["action"].any()


def test_a_disagreement_bonus_moves_towards_the_actions_critics_disagree_on():
    """Critics +x and -x: mean 0, standard deviation |x|. Positive omega goes out, negative stays."""
    critic = TensorDictModule(lambda a: torch.cat([a, -a], -1), ["action"], ["state_action_value"])
    far = OptimisticActor(zero_policy(1), critic, 100, 0.2, 1.0)(observations(2000))["action"].abs()
    near = OptimisticActor(zero_policy(1), critic, 100, 0.2, -1.0)(observations(2000))["action"].abs()
    assert far.mean() > 0.4
    assert near.mean() < 0.01


# --- special cases ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
def test_sigma_zero_is_the_policy_bit_for_bit(batch):
    policy, critic = networks()
    actor = OptimisticActor(policy, critic, num_candidates=7, sigma=0.0, generator=seeded())
    td = observations(*batch)
    torch.manual_seed(1)
    expected = policy(td.clone())["action"]
    torch.manual_seed(1)
    assert torch.equal(actor(td.clone())["action"], expected)


def test_one_candidate_is_gaussian_noise_bit_for_bit_from_the_global_stream_too():
    policy, critic = networks()
    td = observations(5)
    actions = []
    for actor in (OptimisticActor(policy, critic, 1, 0.3), GaussianNoiseActor(policy, 0.3)):
        torch.manual_seed(1)
        actions.append(actor(td.clone())["action"])
    assert torch.equal(*actions)


def test_the_action_is_the_candidate_of_the_highest_score():
    policy, critic = networks()
    actor = OptimisticActor(policy, critic, num_candidates=9, sigma=0.3, omega=0.7, return_candidates=True)
    td = actor(observations(4))
    pairs = TensorDict(
        {"observation": td["observation"].unsqueeze(1).expand(4, 9, 3), "action": td["candidates"]}, [4, 9]
    )
    values = critic(pairs)["state_action_value"]
    torch.testing.assert_close(td["candidate_values"], values)
    scores = values.mean(-1) + 0.7 * values.std(-1, correction=0)
    torch.testing.assert_close(td["scores"], scores)
    assert torch.equal(td["action"], td["candidates"][torch.arange(4), scores.argmax(-1)])
    assert td["candidates"].abs().max() <= 1


# --- keys, batches, bounds --------------------------------------------------------------------------------


def test_nested_keys_and_only_the_action_is_written():
    key = ("agent", "act")
    policy = gaussian_policy(3, 2, (16,), in_key=("agent", "obs"), action_key=key)
    critic = EnsembleQValue(3, 2, hidden_sizes=(16,), in_keys=[("agent", "obs"), key], out_key=("x", "q"))
    actor = OptimisticActor(policy, critic, 4, action_key=key)
    assert (actor.in_keys, actor.out_keys) == ([("agent", "obs")], [key])
    td = TensorDict({"agent": {"obs": torch.randn(4, 3)}, "other": torch.ones(4)}, [4])
    actor(td)
    assert set(td.keys(True, True)) == {("agent", "obs"), key, "other"}
    with set_exploration_type(DETERMINISTIC):
        actor(td)
    assert set(td.keys(True, True)) == {("agent", "obs"), key, "other"}


def test_critic_and_policy_may_read_different_observations():
    policy = gaussian_policy(3, 2, (16,))
    critic = EnsembleQValue(5, 2, hidden_sizes=(16,), in_keys=["privileged", "action"])
    actor = OptimisticActor(policy, critic, 4)
    assert actor.in_keys == ["observation", "privileged"]
    assert actor(observations(4).set("privileged", torch.randn(4, 5)))["action"].shape == (4, 2)


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 20, 10_000])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_scores_row_by_row_and_chunk_by_chunk_are_the_same(batch, chunk_size):
    policy, critic = networks()
    td, candidates = observations(*batch), torch.rand(*batch, 7, 2)
    pairs = []
    hook = critic.register_forward_hook(lambda critic, args, out: pairs.append(out.batch_size.numel()))
    scores = OptimisticActor(policy, critic, omega=0.5, chunk_size=chunk_size).score(td, candidates)
    hook.remove()
    assert max(pairs) <= chunk_size
    assert sum(pairs) == scores.numel()
    assert scores.shape == (*batch, 7)
    if 0 in batch:
        return
    whole = OptimisticActor(policy, critic, omega=0.5)
    rows = [whole.score(row, near) for row, near in zip(td.reshape(-1), candidates.reshape(-1, 7, 2), strict=True)]
    torch.testing.assert_close(scores, torch.stack(rows).reshape(*batch, 7))


@pytest.mark.parametrize("centre", ["sample", "mean", "sample_per_candidate"])
@pytest.mark.parametrize("ascent", [None, CandidateAscent(top=5, steps=2, rate=0.1)])
@pytest.mark.parametrize("stacked", [True, False])
def test_a_batch_that_does_not_say_its_shape_acts_as_one_that_does(centre, ascent, stacked):
    policy, critic = networks()
    if not stacked:  # read through a TensorDict, which must have the batch's shape then
        critic = EnsembleQValue.from_modules([ValueOperator(MLP(5, 1, num_cells=[8]), ["observation", "action"])])
    td = observations(20)

    def act(given) -> torch.Tensor:
        torch.manual_seed(0)
        sampler = GaussianCandidates(100, 0.1, centre=centre)  # more pairs than one chunk takes
        actor = OptimisticActor(policy, critic, sampler=sampler, ascent=ascent)
        return given(actor)

    expected = act(lambda actor: actor(td.clone())["action"])
    assert torch.equal(act(lambda actor: actor(observation=td["observation"])), expected)
    assert torch.equal(act(lambda actor: actor(TensorDict(td.to_dict(), []))["action"]), expected)


def test_candidates_keep_to_the_bounds_of_the_spec():
    policy, critic = zero_policy(2), EnsembleQValue(3, 2)
    leaf = Bounded(torch.tensor([-0.25, -1.0]), torch.tensor([0.25, 0.5]), (2,))
    for spec in (leaf, Composite({"action": leaf}), leaf.expand(6, 2)):
        actor = OptimisticActor(policy, critic, 50, 5.0, spec=spec, return_candidates=True)
        assert isinstance(actor.spec, Composite)
        candidates = actor(observations(6))["candidates"].flatten(0, 1)
        assert candidates.amin(0).tolist() == [-0.25, -1.0]
        assert candidates.amax(0).tolist() == [0.25, 0.5]
    assert OptimisticActor(policy, critic).spec["action"].space.high.tolist() == [9.0, 9.0]  # the policy's own
    del policy.spec
    with pytest.warns(UserWarning, match="bounds of 'action' are not known: .* -1 and 1 are assumed"):
        assert OptimisticActor(policy, critic).spec is None


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.untyped_storage().nbytes() // 4 >= out.numel():
            self.numel = max(self.numel, out.numel())
        return out


def test_scoring_keeps_to_its_memory_bound():
    """A layer of a chunk holds chunk_size * m * width numbers, here 500 * 5 * 64."""
    policy, critic = gaussian_policy(3, 2, (64,)), EnsembleQValue(3, 2, hidden_sizes=(64, 64))
    actor = OptimisticActor(policy, critic, num_candidates=100, chunk_size=500)
    td, candidates = observations(64), torch.rand(64, 100, 2)
    with LargestTensor() as largest, torch.no_grad():
        actor.score(td, candidates)
    assert largest.numel == 500 * 5 * 64
    actor.chunk_size = 10**6
    with LargestTensor() as largest, torch.no_grad():
        actor.score(td, candidates)
    assert largest.numel == 512 * 5 * 64  # the layers themselves go through blocks of 512 rows


# --- when it explores -------------------------------------------------------------------------------------


def test_explores_exactly_when_torchrl_does():
    policy, critic = networks()
    actor = OptimisticActor(policy, critic, sigma=0.3)
    td = observations(4)
    for kind in (DETERMINISTIC, ExplorationType.MEAN, ExplorationType.MODE):
        with set_exploration_type(kind):
            assert torch.equal(actor(td.clone())["action"], policy(td.clone())["action"])
    torch.manual_seed(0)
    sample = policy(td.clone())["action"]
    for kind in (RANDOM, None):
        with set_exploration_type(kind):
            torch.manual_seed(0)
            assert not torch.equal(actor(td.clone())["action"], sample)
    torch.manual_seed(0)
    assert not torch.equal(actor(td.clone())["action"], sample)


def test_optimistic_evaluation_selects_around_the_deterministic_action():
    policy, critic = networks()
    td = observations(4)
    actor = OptimisticActor(policy, critic, sigma=0.01, optimistic_eval=True, return_candidates=True)
    with set_exploration_type(DETERMINISTIC):
        mean = policy(td.clone())["action"]
        out = actor(td.clone())
    assert not torch.equal(out["action"], mean)
    assert (out["candidates"] - mean.unsqueeze(1)).abs().max() < 0.07


@pytest.mark.parametrize("centre", ["sample", "mean", "sample_per_candidate"])
def test_centres(centre):
    policy, critic = networks()
    td = observations(4)
    sampler = GaussianCandidates(6, 0.0, centre=centre)
    actor = OptimisticActor(policy, critic, sampler=sampler, return_candidates=True)
    distinct = [len(set(row.tolist())) for row in actor(td.clone())["candidates"][..., 0]]
    assert all(n > 1 for n in distinct) if centre == "sample_per_candidate" else distinct == [1] * 4
    with set_exploration_type(DETERMINISTIC):
        mean = policy(td.clone())["action"]
    if centre == "mean":
        assert torch.equal(actor(td.clone())["action"], mean)
    actor.optimistic_eval = True
    with set_exploration_type(DETERMINISTIC):
        assert torch.equal(actor(td.clone())["action"], mean)


def test_a_sample_per_candidate_comes_from_the_policys_distribution():
    policy, critic = networks()
    sampler = GaussianCandidates(50_000, 0.0, centre="sample_per_candidate", low=-9, high=9)
    wide = Bounded(-9.0, 9.0, (2,))
    actor = OptimisticActor(policy, critic, sampler=sampler, spec=wide, return_candidates=True)
    td = observations()
    candidates = actor(td)["candidates"]
    assert (candidates.mean(0) - policy.get_dist(td).mean).abs().max() < 4 / 50_000**0.5
    plain = TensorDictModule(lambda x: x[..., :2], ["observation"], ["action"])
    with pytest.raises(ValueError, match="get_dist"):
        OptimisticActor(plain, critic, sampler=sampler)(td)


# --- what it leaves alone ---------------------------------------------------------------------------------


def test_selection_leaves_networks_modes_and_gradients_unchanged():
    policy, critic = networks(dropout=0.5)
    critic.eval()
    actor = OptimisticActor(policy, critic, generator=seeded())
    modes = {name: module.training for name, module in actor.named_modules()}
    state = copy.deepcopy({**policy.state_dict(), **critic.state_dict()})
    out = actor(observations(4))
    assert not out["action"].requires_grad
    assert all(parameter.grad is None for parameter in actor.parameters())
    assert {name: module.training for name, module in actor.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in (policy.state_dict() | critic.state_dict()).items())


def test_dropout_is_off_while_acting():
    policy = gaussian_policy(3, 2, (16,), dropout=0.5)
    layers = [MLP(5, 1, num_cells=[16], dropout=0.5) for _ in range(3)]
    critic = EnsembleQValue.from_modules([ValueOperator(net, in_keys=["observation", "action"]) for net in layers])
    sampler = GaussianCandidates(5, 0.0, centre="mean")
    actor = OptimisticActor(policy, critic, sampler=sampler, return_candidates=True)
    td = observations(4)
    one, two = actor(td.clone()), actor(td.clone())
    assert torch.equal(one["action"], two["action"])
    assert torch.equal(one["scores"], two["scores"])
    with set_exploration_type(DETERMINISTIC):
        assert torch.equal(actor(td.clone())["action"], one["action"])


def test_critics_are_not_asked_when_the_scorer_does_not_need_them():
    actor = OptimisticActor(zero_policy(2), Forbidden(), scorer=RandomRank(), return_candidates=True)
    td = actor(observations(4))
    assert actor.out_keys == ["action", "candidates", "scores"]
    assert "candidate_values" not in td
    with pytest.raises(AssertionError):
        OptimisticActor(zero_policy(2), Forbidden())(observations(4))


def test_random_rank_per_episode_reads_the_environments_flag():
    actor = OptimisticActor(zero_policy(2), Forbidden(), scorer=RandomRank("episode"))
    assert actor.in_keys == ["observation", "is_init"]
    assert actor(observations(4).set("is_init", torch.ones(4, 1, dtype=torch.bool)))["action"].shape == (4, 2)
    with pytest.raises(KeyError, match="InitTracker"):
        actor(observations(4))


def test_scores_move_with_the_critic_that_is_trained():
    policy, critic = networks()
    actor = OptimisticActor(policy, critic)
    td, candidates = observations(4), torch.rand(4, 6, 2)
    before = actor.score(td, candidates)
    optimiser = torch.optim.SGD(critic.parameters(), 0.1)
    critic(TensorDict({"observation": torch.randn(8, 3), "action": torch.rand(8, 2)}, [8]))[
        "state_action_value"
    ].square().sum().backward()
    optimiser.step()
    assert not torch.allclose(actor.score(td, candidates), before)


# --- copies, checkpoints, compilation ---------------------------------------------------------------------


def test_deepcopy_and_state_dict_continue_with_the_same_actions(tmp_path):
    policy, critic = networks()
    actor = OptimisticActor(policy, critic, sigma=0.3, generator=seeded(3))
    actor.sampler.sigma.fill_(0.1)
    actor.scorer.omega.fill_(0.5)
    actor(observations(2))
    torch.save(actor.state_dict(), tmp_path / "actor.pt")
    copied = copy.deepcopy(actor)
    restored = OptimisticActor(*networks(), sigma=0.1, omega=0.5, generator=seeded(4))
    restored.load_state_dict(torch.load(tmp_path / "actor.pt", weights_only=True))
    td, actions = observations(4), []
    for one in (actor, copied, restored):
        torch.manual_seed(0)
        actions.append(one(td.clone())["action"])
    assert torch.equal(actions[0], actions[1])
    assert torch.equal(actions[0], actions[2])


@pytest.mark.parametrize("scorer", [MeanScore(), UpperConfidenceBound(0.7)])
def test_scoring_compiles_in_one_graph_with_equal_values(scorer):
    torch.compiler.reset()
    policy, critic = networks()
    actor = OptimisticActor(policy, critic, scorer=scorer)
    compiled = torch.compile(actor.score, fullgraph=True, backend="aot_eager")
    td, candidates = observations(4), torch.rand(4, 6, 2)
    torch.testing.assert_close(compiled(td, candidates), actor.score(td, candidates))


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": GaussianCandidates(), "num_candidates": 100}, "sampler= or num_candidates="),
        ({"sampler": GaussianCandidates(), "sigma": 0.2}, "sampler= or sigma="),
        ({"sampler": GaussianCandidates(), "generator": seeded()}, "sampler= or generator="),
        ({"scorer": MeanScore(), "omega": 0.0}, "scorer= or omega="),
        ({"sampler": GaussianCandidates(out_key="near")}, "sampler must write 'candidates'"),
        ({"selector": Argmax("act")}, "selector must write 'action'"),
        ({"scorer": GaussianCandidates()}, "scorer must write 'scores'"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"chunk_size": float("nan")}, "chunk_size"),
        ({"num_candidates": 0}, "num_candidates"),
        ({"sampler": GaussianCandidates(5, low=[-0.5] * 3, high=[0.5] * 3)}, "low of GaussianCandidates must be one"),
        ({"spec": Unbounded((2,))}, "bounded vector"),
        ({"action_key": "act"}, "policy must write 'act'"),
    ],
)
def test_arguments_that_contradict_each_other(arguments, message):
    with pytest.raises(ValueError, match=message):
        OptimisticActor(zero_policy(2), EnsembleQValue(3, 2), **arguments)


def test_parts_that_name_no_entries():
    layer = torch.nn.Linear(3, 2)
    parts = {"policy": zero_policy(2), "critic": EnsembleQValue(3, 2)}
    for name in ("policy", "critic", "sampler", "scorer", "selector"):
        with pytest.raises(TypeError, match=f"The {name} must be a TensorDictModule, .* got Linear. Wrap it"):
            OptimisticActor(**{**parts, name: layer})
    with pytest.raises(TypeError, match="policy must be a TensorDictModule"):
        GaussianNoiseActor(layer)


def test_a_spec_of_another_width_than_the_policys_own():
    for make in (
        lambda spec: OptimisticActor(*networks(), spec=spec),
        lambda spec: GaussianNoiseActor(networks()[0], spec=spec),
    ):
        with pytest.raises(ValueError, match=r"'action' has shape \[3\], and the policy's own spec \[2\]"):
            make(Bounded(-1.0, 1.0, (3,)))
        with pytest.raises(TypeError, match="spec must be one of TorchRL's"):
            make("box")


def test_a_critic_that_ignores_the_action():
    value = TensorDictModule(torch.nn.Linear(3, 1), ["observation"], ["state_value"])
    with pytest.raises(ValueError, match="critic must read 'action'"):
        OptimisticActor(zero_policy(2), value)


@pytest.mark.parametrize("ascent", [None, CandidateAscent(2, 1)])
def test_scores_that_are_not_one_for_each_candidate(ascent):
    """As many states as candidates: only the shape of a third axis tells, or nothing at all."""
    scorer = TensorDictModule(lambda values: values.mean(-1, keepdim=True), ["candidate_values"], ["scores"])
    actor = OptimisticActor(*networks(), num_candidates=4, scorer=scorer, ascent=ascent)
    with pytest.raises(ValueError, match=r"wrote scores \[4, 4, 1\], expected \[4, 4\]"):
        actor(observations(4))


@pytest.mark.parametrize("name", ["scores", "candidates", "candidate_values"])
def test_observations_named_as_what_the_actor_says_of_candidates(name):
    policy = gaussian_policy(3, 2, (16,), in_key=name)
    with pytest.raises(ValueError, match=f"policy reads '{name}', a name that the actor gives .*RenameTransform"):
        OptimisticActor(policy, EnsembleQValue(3, 2, 2, (8,)))
    with pytest.raises(ValueError, match=f"critic reads '{name}', a name that the actor gives"):
        OptimisticActor(zero_policy(2), EnsembleQValue(3, 2, 2, (8,), in_keys=[name, "action"]))


class OnlyItsCentre(TensorDictModuleBase):
    """A sampler of a user's own: one candidate, the action it is given."""

    def __init__(self, **attributes):
        super().__init__()
        self.in_keys, self.out_keys = ["action"], ["candidates"]
        vars(self).update(attributes)

    def forward(self, tensordict):
        return tensordict.set("candidates", tensordict.get("action").unsqueeze(-2))


def test_a_sampler_of_ones_own_says_around_which_action_if_it_cares():
    policy, critic = networks()
    td = observations(50)
    with set_exploration_type(DETERMINISTIC):
        mean = policy(td.clone())["action"]
    with set_exploration_type(RANDOM):
        around_mean = OptimisticActor(policy, critic, sampler=OnlyItsCentre(centre="mean"))(td.clone())["action"]
        around_sample = OptimisticActor(policy, critic, sampler=OnlyItsCentre())(td.clone())["action"]
    torch.testing.assert_close(around_mean, mean)
    assert (around_sample - mean).abs().mean() > 0.1
