"""Will O3F help? States are set again exactly, and critics known to be right, wrong or random are told apart."""

from __future__ import annotations

import copy
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

import tests.support.toy_envs  # noqa: F401  (registers toy/*)
from o3f.data import RewardRule
from o3f.envs import EnvConfig, make_gym_env
from o3f.errors import ConfigError
from o3f.evaluation.diagnosis.judge import Judged, Settings, action_noise, judge_states
from o3f.evaluation.diagnosis.report import advice, figures_of, rank_correlation
from o3f.evaluation.diagnosis.states import Simulator, State, check_restores, mujoco_data, visited_states
from o3f.evaluation.playing import isolated
from o3f.modules import gaussian_policy
from o3f.training import build
from o3f.training.load import load_run
from recipes import diagnose
from tests.support.recipe_runs import TINY, make_dataset, run, settings

CHEETAH = EnvConfig("HalfCheetah-v5")
ANT_MAZE = EnvConfig(
    "AntMaze_UMaze-v5",
    kwargs={"continuing_task": False},
    frame_skip=2,
    action_scale=0.2,
    max_episode_steps=700,
    goal_radius=0.5,
)
SETTINGS: dict[str, Any] = {
    "states": 6,
    "every": 30,
    "candidates": 10,
    "sigma": 0.3,
    "centre": "sample",
    "horizon": 4,
    "discount": 0.9,
    "rule": RewardRule(2.0, -1.0),
    "bootstrap": False,
    "seed": 5,
}


def make_policy(size: int = 17, actions: int = 6) -> Any:
    torch.manual_seed(0)
    return gaussian_policy(size, actions, (16,))


class KnowsTheReturn(nn.Module):
    """Two critics around ``sign`` times the true return: plays each action from the state, set by qpos and qvel."""

    def __init__(self, policy: Any, config: EnvConfig, options: dict[str, Any], sign: float = 1.0) -> None:
        super().__init__()
        self.played = [policy]  # no submodule
        self.options, self.sign = options, sign
        self.zero = nn.Parameter(torch.zeros(()))
        self.env = make_gym_env(config, seed=0)
        self.env.reset()
        with isolated(policy, options["seed"]):
            counts = {"count": options["states"], "every": options["every"], "seed": options["seed"]}
            states = list(visited_states(policy, config, **counts))
        self.known = {each.observation.tobytes(): each for each in states}

    def mean_action(self, observation: Any) -> Any:
        with torch.no_grad():
            rows = TensorDict({"observation": torch.from_numpy(observation)[None]}, [1])
            return self.played[0].get_dist(rows).mean[0].numpy()

    def return_of(self, state: State, action: Any) -> float:
        raw: Any = self.env.unwrapped
        raw.set_state(state.physics.qpos, state.physics.qvel)
        total = 0.0
        for step in range(self.options["horizon"]):
            observation, reward, *_ = self.env.step(action)
            total += self.options["discount"] ** step * (2.0 * float(reward) - 1.0)
            action = self.mean_action(observation)
        return total

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        rows = zip(observation.numpy(), action.numpy(), strict=True)
        returns = [self.return_of(self.known[seen.tobytes()], done) for seen, done in rows]
        values = self.sign * torch.tensor(returns)[:, None]
        return torch.cat([values - 1.0, values + 1.0], -1)


def critic_of(network: nn.Module) -> TensorDictModule:
    return TensorDictModule(network, ["observation", "action"], ["state_action_value"])


def figures(critic: Any, policy: Any, config: EnvConfig = CHEETAH, **changes: Any) -> dict[str, Any]:
    options = {**SETTINGS, **changes}
    return figures_of(list(judge_states(policy, critic, config, Settings(**options))), options["sigma"])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_critics_that_know_the_return_and_critics_that_say_the_opposite(sign: float) -> None:
    policy = make_policy()
    # Enough states for three standard errors whatever the processor's rounding makes of these chaotic rollouts.
    settings = {**SETTINGS, "states": 12}
    found = figures(critic_of(KnowsTheReturn(policy, CHEETAH, settings, sign)), policy, **settings)
    assert found["rank_correlation"] == pytest.approx(sign, abs=0.02)
    assert found["rank_correlation_error"] < 0.02
    assert sign * found["gain"] > 3 * found["gain_error"] > 0
    assert found["gain"] <= found["gain_of_the_best"] + 1e-9
    assert (found["gain"] == pytest.approx(found["gain_of_the_best"])) == (sign > 0)
    assert sign * found["gain_over_a_random_one"] > 3 * found["gain_over_a_random_one_error"] > 0
    assert found["gain_over_a_random_one"] + found["gain_of_a_random_one"] == pytest.approx(found["gain"])
    assert found["relative_gain"] == pytest.approx(found["gain"] / found["spread"])
    assert found["disagreement"] == pytest.approx(1.0, abs=1e-4)
    assert found["disagreement_on_ranks"] < 1e-4
    assert advice(found).startswith("O3F should help" if sign > 0 else "O3F should hurt")


class Arbitrary(nn.Module):
    """Two critics that say one thing and another of neighbouring actions, whatever these do."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(6, 2, generator=torch.Generator().manual_seed(3)))

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return torch.sin(1e4 * action @ self.weights)


def test_critics_that_know_nothing() -> None:
    found = figures(critic_of(Arbitrary()), make_policy(), states=40, candidates=12, every=5, horizon=2)
    assert abs(found["rank_correlation"]) < 0.15
    assert abs(found["rank_correlation"]) < 2.5 * found["rank_correlation_error"]
    assert abs(found["gain"] - found["gain_of_a_random_one"]) < 3 * found["gain_error"]
    assert found["disagreement_on_ranks"] == pytest.approx(1.0, abs=0.3)
    assert advice(found).startswith("No sign")


@pytest.mark.parametrize(
    "config",
    [CHEETAH, ANT_MAZE, *map(EnvConfig, ("Hopper-v5", "Ant-v5", "Reacher-v5", "Pusher-v5"))],
    ids=lambda c: c.id,
)
def test_a_rollout_from_a_saved_state_is_the_original_continuation(config: EnvConfig) -> None:
    """Bit for bit, in an environment that has been elsewhere before; also what the environment computes beside."""
    check_restores(config, seed=3)
    original, other = Simulator(config), Simulator(config)
    rng = np.random.default_rng(0)
    (size,) = original.env.action_space.shape or (0,)
    actions = rng.uniform(-1, 1, (25, size)).astype(np.float32)
    original.env.reset(seed=8)
    for action in actions[:10]:
        original.step(action)
    observation = original.step(actions[10])[0]
    state = State(8, copy.copy(mujoco_data(original.env)), observation, actions[11])
    expected = [original.step(action) for action in actions[11:]]
    for seed in (1, 2):
        other.env.reset(seed=seed)
        other.step(actions[seed])
        other.restore(state)
        for wanted, action in zip(expected, actions[11:], strict=True):
            found = other.step(action)
            np.testing.assert_array_equal(found[0], wanted[0])
            assert found[1:] == wanted[1:]


def test_the_states_are_those_of_the_policys_episodes() -> None:
    policy, config = make_policy(10, 2), EnvConfig("Reacher-v5")  # episodes of 50 steps
    with isolated(policy, 1):
        states = list(visited_states(policy, config, count=5, every=20, seed=1))
    with isolated(policy, 1):
        every = list(visited_states(policy, config, count=100, every=1, seed=1))
    first = next(i for i, each in enumerate(every) if np.array_equal(each.observation, states[0].observation))
    assert first < 20
    for number, state in enumerate(states):
        np.testing.assert_array_equal(state.observation, every[first + 20 * number].observation)
        np.testing.assert_array_equal(state.action, every[first + 20 * number].action)
    assert [each.seed for each in every[:50]] == [every[0].seed] * 50 != [every[50].seed] * 50
    assert states[0].physics is not states[1].physics


def test_the_return_is_the_discounted_sum_and_the_value_after_it() -> None:
    """Against rollouts one by one; time limits end none, the end of the task does, also in the middle of a skip."""
    policy, free = make_policy(11, 3), EnvConfig("Hopper-v5", frame_skip=2)
    config, critic = replace(free, max_episode_steps=6), critic_of(ActionItself())
    changes: dict[str, Any] = {"states": 3, "every": 4, "candidates": 3, "sigma": 0.5}
    ends = []
    for bootstrap, horizon in itertools.product((False, True), (8, 20, 40)):
        options = Settings(**{**SETTINGS, **changes, "bootstrap": bootstrap, "horizon": horizon})
        judged = list(judge_states(policy, critic, config, options))
        with isolated(policy, options.seed):
            states = list(visited_states(policy, config, count=3, every=4, seed=options.seed))
        for state, each in zip(states, judged, strict=True):
            expected = [return_of(policy, free, state, action, options) for action in each.values]
            np.testing.assert_allclose(each.returns, [value for value, _ in expected], rtol=1e-5)
            ends.append({ended for _, ended in expected})
    assert {True, False} in ends
    assert {True} in ends
    assert {False} in ends


def return_of(policy: Any, config: EnvConfig, state: State, action: Any, options: Settings) -> tuple[float, bool]:
    simulator = Simulator(config)
    simulator.restore(state)
    total = 0.0
    for step in range(options.horizon):
        observation, reward, terminated = simulator.step(action)
        total += 0.9**step * (2.0 * reward - 1.0)
        if terminated:
            return total, True
        with torch.no_grad():
            rows = TensorDict({"observation": torch.from_numpy(observation)[None]}, [1])
            action = policy.get_dist(rows).mean[0].numpy()
    return total + (0.9**options.horizon * action.mean() if options.bootstrap else 0.0), False


def test_the_policys_own_action_is_the_sample_or_the_mean() -> None:
    policy = make_policy()
    critic = critic_of(ActionItself())
    values = {
        centre: np.stack(
            [e.values for e in judge_states(policy, critic, CHEETAH, Settings(**{**SETTINGS, "centre": centre}))]
        )
        for centre in ("sample", "mean")
    }
    with isolated(policy, SETTINGS["seed"]):
        states = list(visited_states(policy, CHEETAH, count=6, every=30, seed=SETTINGS["seed"]))
    rows = TensorDict({"observation": torch.from_numpy(np.stack([each.observation for each in states]))}, [6])
    means = policy.get_dist(rows).mean.detach().numpy()
    np.testing.assert_allclose(values["sample"][:, 0], [each.action for each in states])
    np.testing.assert_allclose(values["mean"][:, 0], means, atol=1e-5)  # one row or six: other rounding
    offsets = values["mean"][:, 1:] - values["mean"][:, :1]
    assert offsets[np.abs(values["mean"][:, 1:]) < 1].std() == pytest.approx(0.3, rel=0.2)


class ActionItself(nn.Module):
    """As many critics as components, each of which says one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return action


def test_the_training_stream_is_untouched() -> None:
    policy = make_policy()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    figures(critic_of(Arbitrary()), policy, states=2, horizon=1)
    assert torch.equal(torch.rand(3), expected)


def test_figures_by_hand() -> None:
    """Two states of three candidates; the own action comes first, with returns 1 and 2."""
    first = Judged(
        np.array([[9.0, 9], [1, 3], [2, 4], [3, 5]]),
        np.array([1.0, 2, 4, 3]),
        np.array([[True, True], [False, False], [False, False]]),
    )
    second = Judged(
        np.array([[9.0, 9], [6, 0], [2, 2], [1, 1]]),
        np.array([2.0, 5, 5, 5]),
        np.array([[True, False], [False, True], [False, False]]),
    )
    found = figures_of([first, second], sigma=0.2, noise=0.05)
    assert found["rank_correlation"] == pytest.approx(0.5)  # of the first state: the second's returns are equal
    assert found["rank_correlation_error"] is None
    assert found["states_compared"] == 1
    assert found["gain"] == pytest.approx(2.5)  # 3 - 1 and 5 - 2
    assert found["gain_error"] == pytest.approx(0.5)
    assert found["gain_of_a_random_one"] == pytest.approx(2.5)  # 3 - 1 and 5 - 2
    assert found["gain_over_a_random_one"] == pytest.approx(0.0)
    assert found["gain_of_the_best"] == pytest.approx(3.0)
    assert found["spread"] == pytest.approx(np.sqrt(2 / 3) / 2)
    assert found["relative_gain"] == pytest.approx(2.5 / found["spread"])
    assert found["clipped"] == pytest.approx(3 / 6)
    assert found["clipped_components"] == pytest.approx(4 / 12)
    assert found["disagreement"] == pytest.approx((1 + 1 + 1 + 3 + 0 + 0) / 6)
    assert found["disagreement_on_ranks"] == pytest.approx((0 + 2 + 1 + 1) / 6 / (np.sqrt(2 / 3) * 2) * 2)
    assert found["sigma_by_noise"] == pytest.approx(4.0)


def test_rank_correlation() -> None:
    ranks = np.array([1.0, 2, 3, 4])
    assert rank_correlation(ranks, np.exp(ranks)) == pytest.approx(1.0)
    assert rank_correlation(ranks, -(ranks**3)) == pytest.approx(-1.0)
    assert rank_correlation(ranks, np.array([0.0, 0, 1, 1])) == pytest.approx(0.8944, abs=1e-4)
    assert np.isnan(rank_correlation(ranks, np.ones(4)))


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, "O3F should help: the action .* gains 1 ± 0.4 over the policy's own, .* correlates by 0.30 ± 0.10 with"),
        ({"gain_error": 0.6}, "O3F may help"),
        ({"rank_correlation": 0.15}, "O3F may help"),
        ({"gain_error": 0.6, "rank_correlation": 0.15}, "No sign that O3F helps"),
        ({"gain": -1.0}, "No sign that O3F helps"),
        ({"gain": -1.0, "rank_correlation": 0.15}, "O3F may hurt"),
        ({"gain": -1.0, "rank_correlation": -0.3}, "O3F should hurt"),
        ({"rank_correlation": None}, "No answer: in nearly every state all candidates had the same return"),
        ({"sigma_by_noise": 3.5}, "O3F should help: .*; sigma is 3.5 times the data's own action noise: try a"),
        ({"clipped_components": 0.8}, "O3F should help: .*; 80 % of the candidates' components are clipped: try a"),
    ],
)
def test_advice_follows_from_the_thresholds(changes: dict[str, Any], start: str) -> None:
    plain = {"gain": 1.0, "gain_error": 0.4, "rank_correlation": 0.3, "rank_correlation_error": 0.1}
    sentence = advice({**plain, "sigma_by_noise": 1.0, "clipped_components": 0.1, **changes})
    assert re.match(start, sentence)
    assert sentence.endswith(".")


def test_action_noise_is_the_distance_to_the_mean_action() -> None:
    policy = make_policy(3, 2)
    rows = TensorDict({"observation": torch.randn(2000, 3)}, [2000])
    rows["action"] = policy.get_dist(rows).mean.detach() + torch.tensor([0.3, 0.4]) * torch.randn(2000, 2)
    assert action_noise(policy, rows, 1500, seed=0) == pytest.approx(np.sqrt((0.09 + 0.16) / 2), rel=0.05)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EnvConfig("toy/Counter-v0"), "toy/Counter-v0 cannot be set to a state: expected a MuJoCo .* found Counter"),
        (EnvConfig("FrankaKitchen-v1", observation_keys=["observation"]), "FrankaKitchen-v1 .* so it draws noise or"),
    ],
)
def test_environments_that_cannot_be_set_to_a_state_are_refused(config: EnvConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_restores(config, seed=0)


class Remembering(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Pays once an episode, in its twelfth step: no state of MuJoCo says whether it has paid."""

    def reset(self, **options: Any) -> Any:
        self.steps = 0
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        self.steps += 1
        observation, reward, *rest = self.env.step(action)
        return observation, float(reward) + (self.steps == 12), *rest


def test_an_environment_that_remembers_something_beside_its_state_is_refused_later() -> None:
    """Its first steps say nothing of that; each visited state is compared with what the episode then did."""
    gymnasium.register(
        "toy/Remembering-v0", lambda **_: Remembering(gymnasium.make("Reacher-v5")), max_episode_steps=50
    )
    config = EnvConfig("toy/Remembering-v0")
    check_restores(config, seed=0)
    states = visited_states(make_policy(10, 2), config, count=20, every=1, seed=0)
    met = [next(states) for _ in range(12)]  # before the twelfth step
    assert len({state.seed for state in met}) == 1
    with pytest.raises(ConfigError, match="remembers something beside"):
        next(states)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "datasets"))
        make_dataset()
        return run("finetune", *TINY, f"runs={folder}/runs", "exploration.sigma=[0.3,0.4]", "exploration.centre=mean")


SMALL = ["states=3", "every=20", "candidates=4", "horizon=3"]


def test_the_report_of_a_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(trained.parents[3] / "datasets"))
    diagnose.main(settings("diagnose", f"run={trained}", *SMALL))
    report = json.loads((trained / "diagnose.json").read_text())
    told = capsys.readouterr().out
    assert report["advice"] in told
    assert report["advice"] == advice(report["figures"])
    assert report["settings"]["states"] == 3
    found = report["figures"]
    assert found["sigma"] == pytest.approx(np.sqrt((0.09 + 0.16) / 2))
    assert f"{found['gain']:.3g} ± {found['gain_error']:.2g}" in told
    config, learner = load_run(trained)
    rows = build.buffer(config)[0][:]
    assert found["data_noise"] == pytest.approx(action_noise(learner.policy, rows, 300, 0), rel=1e-4)
    options = {**SETTINGS, "sigma": [0.3, 0.4], "states": 3, "every": 20, "candidates": 4, "horizon": 3}
    options |= {"discount": config.algorithm.discount, "rule": RewardRule(0.5, -1.0), "seed": 3000}
    judged = list(judge_states(learner.policy, learner.critic, build.env_config(config), Settings(**options)))
    assert found["gain"] == pytest.approx(figures_of(judged, 1.0)["gain"])


def test_without_the_dataset_the_noise_is_left_out(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(trained / "nowhere"))
    diagnose.main(settings("diagnose", f"run={trained}", *SMALL, "data_rows=0", "reward=raw", "sigma=0.1"))
    report = json.loads((trained / "diagnose.json").read_text())
    assert (report["figures"]["data_noise"], report["figures"]["sigma"]) == (None, 0.1)
    with pytest.raises(FileNotFoundError, match="me/reacher-v0"):
        diagnose.main(settings("diagnose", f"run={trained}", *SMALL))


@pytest.mark.parametrize("key", ["states", "every", "candidates", "sigma", "horizon", "data_rows", "seed", "threads"])
@pytest.mark.parametrize("value", ["wide", True, float("nan"), float("inf"), -1])
def test_numbers_have_their_ranges(key: str, value: Any) -> None:
    config = settings("diagnose", "run=nowhere")
    config[key] = value
    with pytest.raises(ConfigError, match=f"{key} must be"):
        diagnose.main(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("centre=middle", "centre: 'middle' is not known"),
        ("reward=scaled", "reward: 'scaled' is not known"),
        ("bootstrap=maybe", "bootstrap must be true or false"),
        ("states=1", "states must be"),
        ("threads=1", "nowhere is not a run folder"),
    ],
)
def test_mistakes_name_themselves(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        diagnose.main(settings("diagnose", "run=nowhere", override))
    with pytest.raises(ConfigError, match="leave reward=rule"):
        diagnose.main(settings("diagnose", "run=nowhere", "reward=raw", "bootstrap=true"))
