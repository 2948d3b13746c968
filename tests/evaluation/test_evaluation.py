"""Evaluation: raw returns, the same episodes every time, and nothing of the training touched."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.envs.utils import ExplorationType, exploration_type

import tests.support.toy_envs  # noqa: F401  (registers toy/*)
from o3f.collection.behaviours import gaussian_mlp_from_actor
from o3f.envs import EnvConfig, episode_seed, make_env, make_gym_env
from o3f.errors import ActionError, EvaluationError
from o3f.evaluation.episodes import evaluate, normalised_score
from o3f.evaluation.playing import own_env, play
from o3f.evaluation.video import record_video
from o3f.modules import EnsembleQValue, OptimisticActor, RandomRank, gaussian_policy

COUNTER = EnvConfig("toy/Counter-v0", kwargs={"end": 4})


def acting(function: Callable[[Tensor], Tensor]) -> TensorDictModule:
    """A policy from a function of the observation."""
    return TensorDictModule(function, in_keys=["observation"], out_keys=["action"])


STILL = acting(lambda observation: torch.zeros_like(observation[..., :1]))


class Watcher(TensorDictModuleBase):
    """Keeps what it is shown; its action is the negative of the first observation's noise."""

    in_keys, out_keys = ["observation"], ["action"]

    def __init__(self) -> None:
        super().__init__()
        self.observations: list[Tensor] = []
        self.is_init: list[list[bool]] = []

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.observations.append(tensordict["observation"].clone())
        self.is_init.append(tensordict["is_init"].flatten().tolist())
        return tensordict.set("action", torch.zeros(*tensordict.batch_size, 1))


def test_returns_lengths_and_successes_by_hand() -> None:
    result = evaluate(STILL, COUNTER, episodes=3, seed=0)
    assert result.returns.tolist() == [10.0] * 3
    assert result.lengths.tolist() == [4] * 3
    assert result.successes is None
    walk = EnvConfig("toy/Walk-v0", kwargs={"goal": 1.0}, goal_radius=0.1)
    forward = acting(lambda observation: torch.full_like(observation[..., :1], 0.5))
    with pytest.warns(RuntimeWarning, match="The 2 episodes of this evaluation began with the same observation"):
        reached = evaluate(forward, walk, episodes=2, seed=0)
    chance = acting(lambda observation: torch.rand_like(observation[..., :1]))
    assert len(set(evaluate(chance, walk, episodes=4, seed=0).lengths.tolist())) > 1  # begin alike: no warning
    assert (reached.returns.tolist(), reached.lengths.tolist()) == ([1.0, 1.0], [2, 2])
    assert reached.successes is not None
    assert reached.successes.tolist() == [True, True]
    missed = evaluate(STILL, walk, episodes=1, seed=0)
    assert (missed.returns.tolist(), missed.lengths.tolist()) == ([0.0], [20])
    assert missed.successes is not None
    assert missed.successes.tolist() == [False]


def test_play_tells_each_step_with_what_was_seen_before_it() -> None:
    watcher, env = Watcher(), own_env(COUNTER)
    steps = list(play(watcher, env, env.reset(seed=3)[0]))
    assert [step.reward for step in steps] == [1.0, 2.0, 3.0, 4.0]
    assert [step.terminated for step in steps] == [False, False, False, True]
    assert [step.observation[0] for step in steps] == [0.0, 1.0, 2.0, 3.0]  # steps taken, before each
    assert [shown[0, 0].item() for shown in watcher.observations] == [0.0, 1.0, 2.0, 3.0]
    assert watcher.is_init == [[True], [False], [False], [False]]
    broken = own_env(EnvConfig("toy/Counter-v0", kwargs={"end": 4, "nan_at": 3}))
    episode = play(watcher, broken, broken.reset(seed=3)[0])
    with pytest.raises(EvaluationError, match="at step 2 of an episode"):
        list(episode)


def test_hopper_returns_are_those_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    policy = gaussian_policy(11, 3, (8,))
    config = EnvConfig("Hopper-v5")
    network = gaussian_mlp_from_actor(policy)
    result = evaluate(policy, config, episodes=3, seed=7, max_parallel=2)
    for episode in range(3):
        env = make_gym_env(config, seed=7, first_episode=episode)
        observation, _ = env.reset()
        total, done = 0.0, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(network.mode(observation))
            total, done = total + float(reward), terminated or truncated
        assert result.returns[episode] == pytest.approx(total, rel=1e-3)
    assert len(set(result.returns)) == 3


def test_episode_k_starts_from_its_own_seed_and_finished_rows_are_parked() -> None:
    watcher = Watcher()
    evaluate(watcher, COUNTER, episodes=3, seed=5, max_parallel=2)
    starts = [np.float32(np.random.default_rng(episode_seed(5, k)).random()) for k in range(3)]
    np.testing.assert_array_equal(watcher.observations[0][:, 1].numpy(), starts[:2])
    np.testing.assert_array_equal(watcher.observations[4][0, 1].numpy(), starts[2])
    assert {tuple(each.shape) for each in watcher.observations} == {(2, 2)}
    assert watcher.is_init[:2] == [[True, True], [False, False]]
    assert watcher.is_init[4][0]
    assert len(watcher.observations) == 8


def test_number_of_parallel_environments_changes_nothing() -> None:
    torch.manual_seed(1)
    policy = gaussian_policy(11, 3, (8,))
    results = [evaluate(policy, EnvConfig("Hopper-v5"), episodes=4, seed=3, max_parallel=n).lengths for n in (1, 4)]
    np.testing.assert_array_equal(*results)


def optimist(generator: torch.Generator | None) -> OptimisticActor:
    torch.manual_seed(3)
    policy, critic = gaussian_policy(2, 1, (4,), dropout=0.5), EnsembleQValue(2, 1, 2, (4,))
    return OptimisticActor(policy, critic, num_candidates=5, sigma=0.3, generator=generator)


def streams(generator: torch.Generator) -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        generator.get_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index, union-attr]  # noqa: NPY002
    ]


@pytest.mark.parametrize("exploration", [ExplorationType.DETERMINISTIC, ExplorationType.RANDOM])
def test_every_random_stream_is_left_as_it_was(exploration: ExplorationType) -> None:
    generator = torch.Generator().manual_seed(11)
    actor = optimist(generator)
    actor.policy.train()
    before = streams(generator)
    evaluate(actor, COUNTER, episodes=2, seed=0, exploration=exploration)
    assert streams(generator) == before
    assert actor.policy.training
    assert exploration_type() is None
    assert torch.is_grad_enabled()


def test_streams_are_put_back_after_a_failure_too() -> None:
    generator = torch.Generator().manual_seed(11)
    before = streams(generator)
    actor = optimist(generator)
    before[0] = torch.get_rng_state().tolist()
    with pytest.raises(RuntimeError, match="step 1"):
        evaluate(actor, EnvConfig("toy/Counter-v0", kwargs={"nan_at": 2}), episodes=1, seed=0)
    assert streams(generator) == before


CHEETAH = EnvConfig("HalfCheetah-v5", max_episode_steps=20)


def cheetah_actor(generator: torch.Generator | None) -> OptimisticActor:
    torch.manual_seed(3)
    critic = EnsembleQValue(17, 6, 2, (8,))
    return OptimisticActor(gaussian_policy(17, 6, (8,)), critic, generator=generator)


@pytest.mark.parametrize("own_generator", [False, True])
def test_what_the_policy_draws_depends_on_the_evaluation_seed_alone(own_generator: bool) -> None:
    generator = torch.Generator().manual_seed(1) if own_generator else None
    actor = cheetah_actor(generator)
    options: dict[str, Any] = {"episodes": 2, "exploration": ExplorationType.RANDOM}
    first = evaluate(actor, CHEETAH, seed=0, **options).returns
    torch.randn(10, generator=generator)
    np.testing.assert_array_equal(evaluate(actor, CHEETAH, seed=0, **options).returns, first)
    assert (evaluate(actor, CHEETAH, seed=1, **options).returns != first).all()
    assert (evaluate(actor, CHEETAH, seed=0, episodes=2).returns != first).all()


def test_dropout_is_off() -> None:
    policy = gaussian_policy(17, 6, (8,), dropout=0.5)
    training = evaluate(policy.train(), CHEETAH, seed=0, episodes=1).returns
    np.testing.assert_array_equal(evaluate(policy.eval(), CHEETAH, seed=0, episodes=1).returns, training)


class Counting(nn.Module):
    """Remembers its calls in a buffer and in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.last: Tensor | None = None

    def forward(self, observation: Tensor) -> Tensor:
        self.calls += 1  # type: ignore[operator]
        self.last = observation
        return torch.zeros_like(observation[..., :1])


def test_what_the_policy_remembers_is_put_back() -> None:
    counting = Counting()
    evaluate(acting(counting), COUNTER, episodes=1, seed=0)
    assert counting.calls == 0
    assert counting.last is None


def test_training_data_are_the_same_with_and_without_evaluation() -> None:
    def collect(evaluations: int) -> Tensor:
        torch.manual_seed(3)
        policy, critic = gaussian_policy(2, 1, (4,)), EnsembleQValue(2, 1, 2, (4,))
        scorer = RandomRank("episode", generator=torch.Generator().manual_seed(5))
        actor = OptimisticActor(policy, critic, scorer=scorer, generator=torch.Generator().manual_seed(2))
        env = TransformedEnv(make_env(EnvConfig("toy/Counter-v0", kwargs={"end": 5}), seed=0), InitTracker())
        collector = Collector(env, actor, frames_per_batch=4, total_frames=12, auto_register_policy_transforms=False)
        torch.manual_seed(0)
        actions = []
        for batch in collector:
            actions.append(batch["action"].clone())
            for _ in range(evaluations):
                evaluate(actor, COUNTER, episodes=2, seed=1, exploration=ExplorationType.RANDOM)
        collector.shutdown()
        return torch.cat(actions)

    torch.testing.assert_close(collect(0), collect(2), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("policy", "kwargs", "message"),
    [
        (acting(lambda x: torch.full_like(x[..., :1], torch.nan)), {}, "episode 0 at step 0: Action .*nan"),
        (STILL, {"nan_at": 3}, "episode 0 at step 2: .*not finite"),
    ],
)
def test_nan_of_policy_or_environment_is_told_with_its_place(
    policy: nn.Module, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises((EvaluationError, ActionError), match=message):
        evaluate(policy, EnvConfig("toy/Counter-v0", kwargs=kwargs), episodes=2, seed=0)


def test_at_least_one_episode() -> None:
    with pytest.raises(ValueError, match="episodes must be a whole number of at least 1"):
        evaluate(STILL, COUNTER, episodes=0, seed=0)


def test_normalised_score_by_hand() -> None:
    returns = np.array([-280.178953, 12135.0, 5927.4105235])
    np.testing.assert_allclose(normalised_score(returns, -280.178953, 12135.0), [0.0, 100.0, 50.0])
    assert normalised_score(returns, None, None) is returns


def test_a_film_has_a_frame_per_observation(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    film = record_video(STILL, COUNTER, tmp_path / "films" / "counter.mp4", seed=0)
    assert film == tmp_path / "films" / "counter.mp4"
    assert imageio_ffmpeg.count_frames_and_secs(str(film))[0] == 5
