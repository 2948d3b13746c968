"""compile=true takes the same steps: losses, gradients, Adam, targets, and what is drawn, in one graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from o3f.algorithms import compiled_step
from o3f.algorithms.awac import AWACConfig, AWACLearner
from o3f.algorithms.bc import BCConfig, BCLearner
from o3f.algorithms.cql import CQLConfig, CQLLearner
from o3f.algorithms.guarded_adam import GuardedAdam, minimise
from o3f.algorithms.iql import IQLConfig, IQLLearner
from o3f.algorithms.lapo import LAPOConfig, LAPOLearner
from o3f.algorithms.learner import Learner
from o3f.algorithms.sac import SACConfig, SACLearner
from o3f.errors import ConfigError
from o3f.modules.noise_source import NoiseSource

SIZES = {"hidden_sizes": (8, 8)}
DRAWS = {"actor_dropout": 0.2, "aggregation": "subset", "actor_decay_steps": 6, "layer_norm": True, "normalise": True}
KINDS: dict[str, tuple[type[Learner], type, dict[str, Any]]] = {
    "iql": (IQLLearner, IQLConfig, SIZES),
    "iql, all that draws": (IQLLearner, IQLConfig, {**SIZES, **DRAWS}),
    "bc": (BCLearner, BCConfig, SIZES),
    "awac": (AWACLearner, AWACConfig, {**SIZES, "actor_hidden_sizes": (8,)}),
    "cql": (CQLLearner, CQLConfig, {**SIZES, "lagrange": "weighted_gap", "num_random": 3, "calibrate": True}),
    "sac": (SACLearner, SACConfig, {**SIZES, "aggregation": "subset", "num_critics": 3}),
    "lapo": (LAPOLearner, LAPOConfig, SIZES),
}
QUICK = ("sac",)  # to trace a step takes seconds; the others are slow tests

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside torch.compile


def make(kind: str, *, compile: bool) -> Learner:
    learner, config, options = KINDS[kind]
    torch.manual_seed(0)
    made: Learner = learner(3, 2, config(**options, compile=compile))  # type: ignore[call-arg]
    made.prepare(torch.cat([make_batch(seed) for seed in range(4)]))
    return made


def make_batch(seed: int, reward: float | None = None) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator)
    done = torch.rand(8, 1, generator=generator) < 0.2
    following = {"observation": draw(8, 3), "reward": draw(8, 1), "done": done, "terminated": done.clone()}
    batch = TensorDict({"observation": draw(8, 3), "action": draw(8, 2).tanh(), "next": following}, [8])
    batch["return_to_go"] = following["reward"].where(done.logical_not(), -torch.inf)
    if reward is not None:
        batch["next", "reward"][0] = reward
    return batch


def train(learner: Learner, rewards: list[float | None]) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    batches = [make_batch(seed, reward) for seed, reward in enumerate(rewards)]
    return [learner.update([first, second]) for first, second in zip(batches[::2], batches[1::2], strict=True)]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """float64, and one graph without the C++ that a compiler makes of it: seconds instead of minutes."""
    torch.compiler.reset()
    real = torch.compile

    def traced(step: Any, *, dynamic: bool | None = None, **_: Any) -> Any:
        return real(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", traced)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
@pytest.mark.usefixtures("traced")
def test_traced_steps_equal_eager_ones(kind: str) -> None:
    rewards: list[float | None] = [None, None, None, float("nan"), float("inf"), None, None, None]
    plain, compiled = make(kind, compile=False), make(kind, compile=True)
    told, told_compiled = train(plain, rewards), train(compiled, rewards)
    for name in told[-1]:
        for one, other in zip(told, told_compiled, strict=True):
            torch.testing.assert_close(other[name], one[name], rtol=1e-11, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict(), rtol=1e-11, atol=1e-12)
    assert sum(float(optimiser.left_out) for optimiser in compiled.optimisers.values()) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_what_is_resumed_goes_on_with_the_same_bits() -> None:
    whole, first, second = (make("sac", compile=True) for _ in range(3))
    torch.manual_seed(1)
    for seed in range(4):
        whole.update([make_batch(seed)])
    torch.manual_seed(1)
    for seed in range(2):
        first.update([make_batch(seed)])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in range(2, 4):
        second.update([make_batch(seed)])
    for one, other in zip(whole.loss.parameters(), second.loss.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_further_terms_and_values_count() -> None:
    results = []
    for compile in (False, True):
        learner = make("iql", compile=compile)
        learner.next_value = lambda batch: batch["observation"].sum(-1)
        learner.update([make_batch(0)])
        learner.actor_term = lambda batch, policy=learner.policy: policy.get_dist(batch).mean.square().mean()
        learner.update([make_batch(1)])
        results.append(learner.loss.state_dict())
    torch.testing.assert_close(results[1], results[0], rtol=1e-11, atol=1e-12)


@pytest.mark.slow
def test_compiled_to_machine_code_it_is_equal_too() -> None:
    torch.compiler.reset()
    plain, compiled = make("iql", compile=False), make("iql", compile=True)
    told, told_compiled = train(plain, [None] * 6), train(compiled, [None] * 6)
    torch.testing.assert_close(told_compiled, told, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict(), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("traced")
def test_a_learning_rate_that_changes_compiles_nothing_anew() -> None:
    """IQL's decays at every update; the graph was made twice for that."""
    weights = {}
    torch._dynamo.utils.counters.clear()
    for traced in (False, True):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        adam = GuardedAdam([weight], lr=0.1, weight_decay=0.1)

        def step(inputs: torch.Tensor, weight: torch.Tensor = weight, adam: GuardedAdam = adam) -> dict[str, Any]:
            loss = (weight * inputs).square().sum()
            minimise(loss, adam)
            return {"loss": loss.detach()}

        take = compiled_step.CompiledStep(step, {"only": adam}) if traced else step
        for rate in (0.1, 0.05, 0.01, 0.2):
            adam.param_groups[0]["lr"] = rate
            take(torch.tensor([1.0, 3.0]))
        weights[traced] = weight.detach()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(weights[True], weights[False], rtol=1e-12, atol=0)


@pytest.mark.usefixtures("traced")
def test_a_step_that_draws_takes_batches_of_several_sizes() -> None:
    """The second size made torch trace a symbolic one, for which LAPO's step could not draw."""
    source = NoiseSource()

    def step(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"noisy": inputs + source.normal(inputs.shape, like=inputs)}

    drawn = []
    for take in (step, compiled_step.CompiledStep(step, {})):
        torch.manual_seed(0)
        drawn.append([take(torch.ones(size, 2))["noisy"] for size in (4, 6, 4)])
    torch.testing.assert_close(drawn[1], drawn[0], rtol=0, atol=0)


def test_another_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_step, "can_compile_steps", lambda: False)
    with pytest.raises(ConfigError, match="compile=true needs a torch whose compiler follows gradients"):
        make("bc", compile=True)
