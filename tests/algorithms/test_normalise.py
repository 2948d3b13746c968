"""``normalise``: z-scores inside the networks are z-scores taken beforehand, for every algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f import export
from o3f.adapters import load_agent, save_agent
from o3f.algorithms import Agent, IQLConfig, IQLLearner, Learner, make_learner
from o3f.errors import ConfigError
from o3f.modules import EnsembleQValue, Normaliser, OptimisticActor, gaussian_policy
from o3f.training.load import load_run
from tests.support import recipe_runs
from tests.support.learners import NAMES

OPTIONS: dict[str, dict[str, Any]] = {
    "awac": {"actor_hidden_sizes": (8, 8)},
    "cql": {"lagrange": "weighted_excess", "num_random": 2},
    "sac": {"actor_layer_norm": True},
    "lapo": {"value_clamp": "none"},
}
ROWS = 64


@pytest.fixture(autouse=True)
def _double_precision(request: pytest.FixtureRequest) -> Iterator[None]:
    if "place" in request.fixturenames:  # runs of recipes, as they are
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def rows(*, whitened_actions: bool) -> TensorDict:
    """Observations of very different sizes; actions whose z-scores are themselves, where asked for."""
    generator = torch.Generator().manual_seed(3)

    def observations() -> torch.Tensor:
        return torch.randn(ROWS, 3, generator=generator) * torch.tensor([9.0, 0.04, 1.5]) + torch.tensor([5.0, 1, -2])

    if whitened_actions:  # zero mean; a standard deviation of 1 - 1e-6, to which the normaliser adds 1e-6
        signs = torch.stack([torch.arange(ROWS) % 2, torch.arange(ROWS) // 2 % 2], -1) * 2.0 - 1.0
        actions = signs * (1.0 - 1e-6)
    else:
        actions = torch.rand(ROWS, 2, generator=generator) * torch.tensor([0.2, 0.9]) - torch.tensor([0.6, 0.1])
    following = {"observation": observations(), "reward": torch.randn(ROWS, 1, generator=generator)}
    ends = {key: torch.rand(ROWS, 1, generator=generator) > 0.8 for key in ("done", "terminated", "truncated")}
    return TensorDict({"observation": observations(), "action": actions, "next": {**following, **ends}}, [ROWS])


def scored(data: TensorDict) -> TensorDict:
    """The same rows with z-scored observations, by the definition."""
    mean = data["observation"].mean(0)
    std = ((data["observation"] - mean) ** 2).mean(0).sqrt() + 1e-6
    result = data.clone()
    for part in (result, result["next"]):
        part["observation"] = (part["observation"] - mean) / std
    return result


def make(name: str, *, normalise: bool) -> Learner:
    torch.manual_seed(0)
    return make_learner(name, 3, 2, {"hidden_sizes": (8, 8), "normalise": normalise, **OPTIONS.get(name, {})})


def train(learner: Learner, data: TensorDict, updates: int = 4) -> list[dict[str, torch.Tensor]]:
    learner.prepare(data)
    torch.manual_seed(1)  # what the losses draw
    return [learner.update([data[step::updates].clone()]) for step in range(updates)]


@pytest.mark.parametrize("name", NAMES)
def test_updates_on_raw_rows_equal_plain_ones_on_rows_scored_beforehand(name: str) -> None:
    data = rows(whitened_actions=True)
    inside, plain = make(name, normalise=True), make(name, normalise=False)
    metrics, expected = train(inside, data), train(plain, scored(data))
    torch.testing.assert_close(metrics, expected, rtol=1e-6, atol=1e-6)
    ours, theirs = list(inside.loss.parameters()), list(plain.loss.parameters())
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        acted = [learner.policy(TensorDict({"observation": given["observation"]}, [ROWS]))["action"]
                 for learner, given in ((inside, data), (plain, scored(data)))]  # fmt: skip
    torch.testing.assert_close(*acted, rtol=1e-6, atol=1e-6)
    if name != "lapo":  # whose networks always have one
        assert not any(isinstance(part, Normaliser) for part in plain.loss.modules())
    untrained = make(name, normalise=True)
    assert not torch.allclose(next(untrained.policy.parameters()), next(inside.policy.parameters()))


def test_critics_see_scores_of_the_actions_too() -> None:
    """IQL's critics are asked about the rows alone, so that these can be scored beforehand: all but the policy's."""
    data = rows(whitened_actions=False)
    loc, scale = data["action"].mean(0), data["action"].std(0, correction=0) + 1e-6
    beforehand = scored(data).set("scored_action", (data["action"] - loc) / scale)
    inside = make("iql", normalise=True)
    torch.manual_seed(0)
    policy = gaussian_policy(3, 2, (8, 8))
    critic = EnsembleQValue(3, 2, 5, (8, 8), in_keys=["observation", "scored_action"])
    plain = IQLLearner(3, 2, IQLConfig(hidden_sizes=(8, 8)), agent=Agent(policy, critic))
    for name in ("actor_network", "qvalue_network", "value_network"):  # the same initial weights
        pair = (getattr(learner.loss, name).parameters() for learner in (plain, inside))
        for ours, theirs in zip(*pair, strict=True):
            ours.data.copy_(theirs.data)
    plain.loss.update_targets(1.0)
    inside.loss.update_targets(1.0)
    torch.testing.assert_close(train(inside, data), train(plain, beforehand), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(list(inside.loss.parameters()), list(plain.loss.parameters()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_acting_stays_in_units_of_the_action(name: str) -> None:
    """Scores are the networks' own: a candidate is the policy's action plus sigma times a draw, as without."""
    learner = make(name, normalise=True)
    learner.prepare(rows(whitened_actions=False))
    assert learner.policy.spec["action"].low.tolist() == [-1.0, -1.0]
    policy: Any = learner.policy
    actor = OptimisticActor(policy, learner.critic, num_candidates=500, sigma=0.1, return_candidates=True)
    observation = torch.tensor([[5.0, 1.0, -2.0]])  # the mean of the rows
    with torch.random.fork_rng():
        td = actor(TensorDict({"observation": observation}, [1]))
    moved = td["candidates"][0] - td["candidates"][0].mean(0)
    inner = td["candidates"][0].abs().amax(0) < 1  # a component that was not clipped
    assert inner.any()
    torch.testing.assert_close(moved.std(0)[inner], torch.full((int(inner.sum()),), 0.1), rtol=0.15, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_statistics_travel_with_the_state(name: str) -> None:
    learner = make(name, normalise=True)
    learner.prepare(rows(whitened_actions=False))
    other = make(name, normalise=True)
    other.load_state_dict(learner.state_dict())
    for network in ("policy", "critic", "target_critic"):
        found, expected = (
            [part for part in getattr(each, network).modules() if isinstance(part, Normaliser)]
            for each in (other, learner)
        )
        assert expected, network
        for ours, theirs in zip(found, expected, strict=True):
            assert not torch.equal(theirs.loc, torch.zeros_like(theirs.loc))
            assert torch.equal(ours.loc, theirs.loc)
            assert torch.equal(ours.scale, theirs.scale)


def test_fresh_targets_of_sac_have_the_scores_of_the_agent_it_starts_from() -> None:
    data = rows(whitened_actions=False)
    cql, sac = make("cql", normalise=True), make("sac", normalise=True)
    cql = make_learner("cql", 3, 2, {"hidden_sizes": (8, 8), "normalise": True, "actor_layer_norm": True})
    cql.prepare(data)
    drawn = [weight.clone() for weight in sac.target_critic.weights]
    sac.start_from(cql.state_dict(), copy_targets=False, copy_optimisers=False)
    assert torch.equal(sac.target_critic.normaliser.loc, cql.critic.normaliser.loc)
    assert torch.equal(sac.critic.weights[0], cql.critic.weights[0])
    assert all(torch.equal(own, before) for own, before in zip(sac.target_critic.weights, drawn, strict=True))
    with pytest.raises(ConfigError, match="normalise"):
        make("sac", normalise=False).start_from(cql.state_dict(), copy_targets=True, copy_optimisers=False)


def test_a_component_that_never_changes_keeps_its_size() -> None:
    normaliser = Normaliser(2, ["x"])
    normaliser.fit(torch.tensor([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]]))
    scores = normaliser(torch.tensor([0.35, 3.0]))
    torch.testing.assert_close(scores, torch.tensor([0.25, 0.0]))


@pytest.mark.parametrize("name", ["iql", pytest.param("sac", marks=pytest.mark.slow)])  # a policy of either kind
def test_a_run_resumes_and_its_agent_travels(name: str, place: Path) -> None:
    overrides = [*recipe_runs.SHORT, f"algorithm={name}", "algorithm.normalise=true"]
    whole = recipe_runs.run("finetune", *overrides)
    from o3f.runs.folder import RunFolder  # the class whose saves are counted

    recipe_runs.run_stopped(RunFolder, "save", 3, *overrides, "runs=again")
    resumed = recipe_runs.run("finetune", *overrides, "runs=again")
    recipe_runs.assert_same_run(whole, resumed)

    _, learner = load_run(whole)
    fitted = [part for part in learner.policy.modules() if isinstance(part, Normaliser)]
    assert len(fitted) == 1
    assert not torch.equal(fitted[0].scale, torch.ones_like(fitted[0].scale))
    td = TensorDict({"observation": torch.randn(20, 10) * 3, "action": torch.rand(20, 2)}, [20])
    value = getattr(learner.loss, "value_network", None)
    save_agent("agent.safetensors", Agent(learner.policy, learner.critic, value))
    loaded = load_agent("agent.safetensors")
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        expected = learner.policy(td.clone())["action"]
        assert torch.equal(loaded.policy(td.clone())["action"], expected)
        assert torch.equal(loaded.critic(td.clone())["state_action_value"], learner.critic(td)["state_action_value"])
        torch.testing.assert_close(export.plain_policy(learner.policy)(td["observation"]), expected)
    started = recipe_runs.run("finetune", *overrides, "pretrained=agent.safetensors", "name=own")
    theirs = recipe_runs.part(started, "learner")["loss"]
    kept = next(key for key in theirs if key.startswith("actor_network_params") and key.endswith(".loc"))
    assert torch.equal(theirs[kept], fitted[0].loc)


@pytest.mark.parametrize("name", ["iql", "sac"])
def test_from_scratch_there_is_nothing_to_measure(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*recipe_runs.TINY, "dataset=none", f"algorithm={name}", "algorithm.normalise=true"]
    assert recipe_runs.command("finetune", *overrides) == 2
    assert "give algorithm.normalise=false" in capsys.readouterr().err
    assert not Path("runs").exists()
