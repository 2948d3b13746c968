"""Losses, actors and buffers given what does not fit, numbered as in docs/reliability.md."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import Tensor
from torchrl.objectives import SoftUpdate

from o3f.algorithms import make_learner
from o3f.data import RewardRule, make_buffer, to_env_actions
from o3f.data.actions import to_agent_actions
from o3f.envs import EnvConfig
from o3f.evaluation.episodes import evaluate
from o3f.evaluation.intervals import sign_flip_test
from o3f.modules import (
    CandidateAscent,
    EnsembleQValue,
    GaussianCandidates,
    MixedCandidates,
    NoiseSource,
    Normaliser,
    OptimisticActor,
    Softmax,
    UpperConfidenceBound,
    gaussian_policy,
    latent_encoder,
    matched_sigma,
    tanh_gaussian_policy,
    value_network,
)
from o3f.objectives import CQLLoss, IQLLoss
from o3f.objectives.base import BoundLoss
from tests.faults.test_losses import HIDDEN, LOSSES, critic
from tests.support import toy_envs
from tests.support.iql_cases import make_batch
from tests.support.rows import make_rows

UNEVEN = gymnasium.spaces.Box(-0.7, 0.1, (2,), np.float32)
IMPOSSIBLE = {
    "iql": {"expectile": 2.0, "temperature": -1.0},
    "awac": {"lam": 0.0},
    "sac": {"target_entropy": math.nan},
    "cql": {"conservative_weight": -1.0, "lagrange_threshold": math.inf},
    "lapo": {"min_weight": 1.5, "advantage_weight": -0.1, "kl_weight": math.nan},
}
PAIRS = [(name, coefficient) for name, values in IMPOSSIBLE.items() for coefficient in values]


def made(name: str) -> Any:
    loss = LOSSES[name]()
    SoftUpdate(loss, tau=0.5)
    return loss


def fill(loss: BoundLoss, name: str, value: float) -> None:
    getattr(loss, name).fill_(value)


def load(loss: BoundLoss, name: str, value: float) -> None:
    loss.load_state_dict({**loss.state_dict(), name: torch.tensor(value)})


@pytest.mark.parametrize(("name", "coefficient"), PAIRS)
@pytest.mark.parametrize("write", [setattr, fill, load])
def test_f92_a_coefficient_cannot_become_impossible(
    name: str, coefficient: str, write: Callable[[BoundLoss, str, float], None]
) -> None:
    loss, batch = made(name), make_batch(4)
    before = getattr(loss, coefficient).item()

    def use() -> None:
        write(loss, coefficient, IMPOSSIBLE[name][coefficient])
        loss(batch.clone())

    for _ in range(2):  # it does not pass the second time either
        with pytest.raises(ValueError, match=f"{coefficient} must be a number in"):
            use()
    getattr(loss, coefficient).fill_(before)
    loss(batch.clone())


@pytest.mark.parametrize("value", [0.9, np.float32(0.9), torch.tensor(0.9)])
def test_f92_a_coefficient_is_set_in_place_from_any_number(value: Any) -> None:
    loss = made("iql")
    buffer = loss.expectile
    loss.expectile = value
    assert loss.expectile is buffer
    assert buffer.item() == pytest.approx(0.9)
    for bad in ("high", None, [0.1, 0.2], torch.zeros(2), True):
        with pytest.raises(ValueError, match="expectile must be a number in"):
            loss.expectile = bad


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda actor: actor.sampler.sigma.fill_(-1.0), "sigma must be finite and not negative"),
        (lambda actor: actor.sampler.sigma.fill_(math.inf), "sigma must be finite and not negative"),
        (lambda actor: actor.sampler.low.fill_(2.0), "No action lies between"),
        (lambda actor: actor.scorer.omega.fill_(math.nan), "omega must be a number"),
        (lambda actor: actor.selector.temperature.fill_(-1.0), "temperature must be a number"),
    ],
)
def test_f92_settings_of_an_actor_cannot_become_impossible(change: Callable[[OptimisticActor], Any], said: str) -> None:
    parts: dict[str, Any] = {"scorer": UpperConfidenceBound(0.5), "selector": Softmax(0.1)}
    actor = OptimisticActor(gaussian_policy(3, 2, HIDDEN), critic(), 5, **parts)
    actor(observation=torch.zeros(4, 3))
    change(actor)
    for each in (actor, copy.deepcopy(actor)):
        with pytest.raises(ValueError, match=said):
            each(observation=torch.zeros(4, 3))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("key", ["observation", "action", ("next", "reward"), ("next", "terminated")])
def test_f93_a_missing_entry_is_named_with_what_there_is(name: str, key: NestedKey) -> None:
    batch = make_batch(4)
    del batch[key]
    with pytest.raises(KeyError, match=key if isinstance(key, str) else key[-1]) as caught:
        made(name)(batch)
    assert "done" in str(caught.value) or "next" in str(caught.value)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("key", ["reward", "terminated"])
@pytest.mark.parametrize("reshape", [lambda v: v.squeeze(-1), lambda v: v.expand(-1, 4), lambda v: v.unsqueeze(-1)])
def test_f93_an_entry_of_another_shape_is_named(name: str, key: str, reshape: Callable[[Tensor], Tensor]) -> None:
    batch = make_batch(4)
    batch["next", key] = reshape(batch["next", key])
    with pytest.raises(ValueError, match=rf"\('next', '{key}'\) has shape .* expected \[4, 1\]"):
        made(name)(batch)


def test_f93_the_ends_of_episodes_need_no_done() -> None:
    batch, loss = make_batch(4), made("iql")
    expected = loss(batch.clone())["loss_qvalue"]
    del batch["next", "done"]
    assert loss(batch)["loss_qvalue"] == expected


def test_f93_done_is_taken_for_terminated_where_that_is_said() -> None:
    batch, loss = make_batch(8), made("iql")
    batch["next", "terminated"] = batch["next", "done"]
    expected = loss(batch.clone())["loss_qvalue"]
    del batch["next", "terminated"]
    loss.set_keys(terminated="done")
    assert loss(batch)["loss_qvalue"] == expected


def test_f93_what_is_no_batch_is_told() -> None:
    with pytest.raises(TypeError, match="IQLLoss takes a TensorDict, got dict"):
        made("iql")(make_batch(4).to_dict())
    whole = TensorDict(make_batch(4).to_dict(), [])  # nobody said that the first dimension is the batch's
    loss = made("cql")
    with pytest.raises(ValueError, match=r"batch_size \[\] and actions .* batch_size=\[4\]"):
        loss(whole)
    learner = make_learner("iql", 3, 2, {"hidden_sizes": [8]})
    with pytest.raises(TypeError, match="takes a list of batches, got one"):
        learner.update(make_batch(4))  # type: ignore[arg-type]


def test_f93_what_would_be_widened_is_refused() -> None:
    loss, batch = made("iql"), make_batch(4)
    for call in (
        lambda: loss.value_loss(batch, torch.zeros(4, 1)),
        lambda: loss.actor_loss(batch, torch.zeros(4), torch.zeros(4, 1)),
        lambda: made("lapo").vae_loss(batch, torch.zeros(4, 1)),
        lambda: made("sac").alpha_loss(batch, torch.zeros(4, 1)),
        lambda: made("cql").lagrange_loss(batch, torch.zeros(2)),
    ):
        with pytest.raises(ValueError, match="has shape"):
            call()
    narrow = IQLLoss(gaussian_policy(3, 1, HIDDEN), critic(), value_network(3, HIDDEN))
    with pytest.raises(ValueError, match=r"The policy's actions have \[1\] components"):
        narrow.actor_loss(batch)
    wide = TensorDictModule(torch.nn.Linear(3, 2), ["observation"], ["state_value"])
    with pytest.raises(ValueError, match=r"value network wrote \[4, 2\], expected \[\*B, 1\]"):
        IQLLoss(gaussian_policy(3, 2, HIDDEN), critic(), wide).value_loss(batch)
    for tau in (-1, 2.0, math.nan, "0.5"):
        with pytest.raises(ValueError, match="tau must be a number in"):
            loss.update_targets(tau)  # type: ignore[arg-type]


def actor_with(count: int = 4, **parts: Any) -> OptimisticActor:
    return OptimisticActor(gaussian_policy(3, 2, HIDDEN), critic(), count if "sampler" not in parts else None, **parts)


def test_f94_a_transposed_score_is_seen_where_its_shape_says_nothing() -> None:
    calls: list[torch.Size] = []

    def transposed(values: Tensor) -> Tensor:
        calls.append(values.shape)
        return values.mean(-1).T

    actor = actor_with(scorer=TensorDictModule(transposed, ["candidate_values"], ["scores"]))
    for size in ([], [4]):
        with pytest.raises(ValueError, match=r"The scorer wrote scores \[3, 4\], expected \[4, 3\]"):
            copy.deepcopy(actor)(TensorDict({"observation": torch.zeros(4, 3)}, size))
    sound = TensorDictModule(lambda values: values.mean(-1), ["candidate_values"], ["scores"])
    torch.manual_seed(0)
    observation, start = torch.ones(4, 3), torch.get_rng_state()
    actor = actor_with(scorer=sound, return_candidates=True)
    torch.set_rng_state(start)
    first = actor(TensorDict({"observation": observation}, [4]))
    torch.set_rng_state(start)
    second = actor(TensorDict({"observation": observation}, [4]))
    assert torch.equal(first["action"], second["action"])  # the one look drew nothing
    best = first["scores"].argmax(-1)
    assert torch.equal(first["action"], first["candidates"][torch.arange(4), best])


class NoisyScore(TensorDictModuleBase):
    """A scorer of one's own with a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.in_keys, self.out_keys = ["candidate_values"], ["scores"]
        self.noise = NoiseSource(torch.Generator().manual_seed(0))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        values = tensordict["candidate_values"].mean(-1)
        return tensordict.set("scores", values + self.noise.normal(values.shape, like=values))


def test_f94_the_one_look_draws_nothing_from_a_scorers_own_generator() -> None:
    actor, expected = actor_with(scorer=NoisyScore()), torch.Generator().manual_seed(0)
    actor(TensorDict({"observation": torch.zeros(4, 3)}, [4]))
    torch.randn(4, 4, generator=expected)
    assert torch.equal(actor.scorer.noise.generator.get_state(), expected.get_state())


def test_f94_parts_that_do_not_read_or_write_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="The selector must read 'candidates'"):
        actor_with(selector=gaussian_policy(3, 2, HIDDEN))
    with pytest.raises(ValueError, match="The scorer must read 'candidates' or 'candidate_values'"):
        actor_with(scorer=TensorDictModule(lambda o: o, ["observation"], ["scores"]))
    whole = TensorDictModule(lambda candidates, _: candidates, ["candidates", "scores"], ["action"])
    with pytest.raises(ValueError, match=r"The selector wrote an action \[2, 4, 2\]"):
        actor_with(selector=whole)(observation=torch.zeros(2, 3))
    with pytest.raises(TypeError, match="ascent must be a CandidateAscent"):
        actor_with(ascent=3)
    with pytest.raises(ValueError, match=r"candidates are \[4, 2\], expected \[4, 'N', 'A'\]"):
        actor_with().score(TensorDict({"observation": torch.zeros(4, 3)}, [4]), torch.zeros(4, 2))
    few = TensorDict({"action": torch.zeros(4, 3, 2)}, [4])
    with pytest.raises(ValueError, match=r"expected \[4, 10, 'A'\]"):
        MixedCandidates(10)(few)


def test_f94_a_sampler_without_bounds_is_held_to_those_of_the_spec() -> None:
    far = TensorDictModule(lambda action: action.unsqueeze(-2).expand(-1, 5, -1) * 0 + 7.0, ["action"], ["candidates"])
    action = actor_with(sampler=far)(observation=torch.zeros(3, 3))
    assert torch.equal(action, torch.ones(3, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoiseSource(0),  # type: ignore[arg-type]
        lambda: OptimisticActor(gaussian_policy(3, 2), critic(), generator=3),  # type: ignore[arg-type]
        lambda: make_buffer(make_rows(4), generator=3),  # type: ignore[arg-type]
        lambda: EnsembleQValue(3, 2, 2, layer_norm="no"),  # type: ignore[arg-type]
        lambda: GaussianCandidates(5, include_base="no"),  # type: ignore[arg-type]
        lambda: GaussianCandidates(5, sigma="wide"),  # type: ignore[arg-type]
        lambda: make_learner("iql", 3, 2, {"compile": "yes"}),
        lambda: make_learner("lapo", 3, 2, {"normalise": 3}),
        lambda: make_learner("iql", 3, 2, {}).load_state_dict({}),
        lambda: EnsembleQValue(3, 2, 2, in_keys="observation"),
        lambda: gaussian_policy(3, 2, log_std_bounds=(2.0, -5.0)),
        lambda: tanh_gaussian_policy(3, 2, log_std_bounds=(math.nan, 2.0)),
        lambda: gaussian_policy(3, 2, action_key="loc"),
        lambda: latent_encoder(0, 2, 4),
        lambda: Normaliser(1, ["observation"]).fit(torch.tensor([[1.0], [math.nan]])),
        lambda: CandidateAscent(rate="fast"),  # type: ignore[arg-type]
        lambda: matched_sigma(math.nan, 10, 2),
        lambda: CQLLoss(tanh_gaussian_policy(3, 2), critic(), conservative_weight=None),  # type: ignore[arg-type]
        lambda: IQLLoss(gaussian_policy(3, 2), critic(), value_network(3), expectile="high"),  # type: ignore[arg-type]
    ],
)
def test_f95_arguments_of_another_kind_are_named(make: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert len(str(caught.value)) > 30
    assert "o3f" in caught.traceback[-1].path.parts  # words of ours, not of a library


@pytest.mark.parametrize("size", [math.nan, 0, -1, 2.5, "9", None])
def test_f95_a_chunk_is_a_number_of_pairs(size: Any) -> None:
    actor = actor_with(ascent=CandidateAscent(2, 1), return_candidates=True)
    scored = actor(TensorDict({"observation": torch.zeros(2, 3)}, [2]))
    assert actor.ascent is not None
    with pytest.raises(ValueError, match="chunk_size must be a whole number of at least 1"):
        actor.ascent(scored, actor._score_copy, actor.sampler, size)


def test_f95_rows_that_would_be_widened_are_refused() -> None:
    rows = make_rows(6)
    for key, value in {
        "action": torch.zeros(6),
        ("next", "observation"): torch.zeros(6, 1),
        ("next", "reward"): torch.zeros(6),
    }.items():
        with pytest.raises(ValueError, match="of the rows is"):
            make_buffer(rows.clone().set(key, value))
    assert torch.equal(make_buffer(rows)[:]["next", "reward"], rows["next", "reward"])
    with pytest.raises(ValueError, match="The dataset has no rows"):
        make_buffer(rows[:0])


@pytest.mark.parametrize("scale", [0.0, -1.0, 2.0, math.nan, "x"])
def test_f95_actions_are_rescaled_by_a_share_of_the_bounds(scale: Any) -> None:
    for convert in (to_env_actions, to_agent_actions):
        with pytest.raises(ValueError, match="action_scale must be a number in"):
            convert(np.zeros(UNEVEN.shape), UNEVEN, scale)
        with pytest.raises(ValueError, match="The actions are"):
            convert(np.zeros((4, 9)), UNEVEN)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_f95_an_action_of_another_shape_is_not_played(shape: tuple[int, ...]) -> None:
    """The environment reads one component, and would play the first of two, or of a batch of numbers."""
    policy = TensorDictModule(lambda o: torch.zeros(len(o), *shape), ["observation"], ["action"])
    config = EnvConfig("toy/Counter-v0", kwargs={"end": 3})
    assert toy_envs
    with pytest.raises(ValueError, match="action"):
        evaluate(policy, config, episodes=2, seed=0)
    sound = TensorDictModule(lambda o: torch.zeros(len(o), 1), ["observation"], ["action"])
    assert evaluate(sound, config, episodes=2, seed=0).returns.tolist() == [6.0, 6.0]


def test_f95_a_p_value_of_what_is_not_finite_is_none() -> None:
    assert math.isnan(sign_flip_test([math.nan, 1.0]))
    assert sign_flip_test([1.0, 2.0, 3.0]) == 0.25
    assert RewardRule(2.0)(3.0) == 6.0
