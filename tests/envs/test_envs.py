"""The environment an agent meets: units, layout, seeds, clear errors."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from torchrl.collectors import Collector
from torchrl.data import Bounded
from torchrl.envs.utils import check_env_specs

import tests.support.toy_envs  # noqa: F401  (registers toy/*)
from o3f.data import RewardRule, observation_layout
from o3f.envs import EnvConfig, episode_seed, make_env, make_gym_env, make_raw_env

KEYS = ["action", "done", "observation", "terminated", "truncated"]
NEXT = ["done", "observation", "reward", "terminated", "truncated"]

ANT = EnvConfig(
    "AntMaze_UMaze-v5",
    kwargs={"continuing_task": False, "include_cfrc_ext_in_observation": False},
    frame_skip=2,
    action_scale=0.2,
    observation_keys=["achieved_goal", "observation"],
    reset_options={"reset_cell": [1, 1], "goal_cell": [3, 1]},
    attributes={"position_noise_range": 0.0, "ant_env": {"_reset_noise_scale": 0.1}},
    max_episode_steps=700,
    goal_radius=0.5,
)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5", "Pusher-v5"])
def test_numbers_are_those_of_gymnasium(env_id: str) -> None:
    env = make_env(EnvConfig(env_id), seed=3)
    raw = gymnasium.make(env_id)
    expected, _ = raw.reset(seed=episode_seed(3, 0))
    step = env.reset()
    np.testing.assert_array_equal(step["observation"].numpy(), expected.astype(np.float32))
    action = torch.linspace(-1.0, 1.0, env.action_spec.shape[-1])
    step = env.step(step.set("action", action))
    half = (raw.action_space.high - raw.action_space.low) / 2
    expected, reward, *_ = raw.step((half * action.numpy()).astype(np.float32))
    np.testing.assert_array_equal(step["next", "observation"].numpy(), expected.astype(np.float32))
    np.testing.assert_allclose(step["next", "reward"].numpy(), [reward], rtol=1e-6)


def test_specs_are_what_a_collector_and_a_buffer_need() -> None:
    env = make_env(EnvConfig("Hopper-v5"), seed=0)
    check_env_specs(env)
    rollout = env.rollout(3)
    assert sorted(set(rollout.keys()) - {"next"}) == KEYS
    assert sorted(rollout["next"].keys()) == NEXT
    assert rollout["observation"].dtype == rollout["next", "reward"].dtype == torch.float32
    assert rollout["next", "reward"].shape == rollout["next", "terminated"].shape == (3, 1)
    assert isinstance(env.action_spec, Bounded)
    assert env.action_spec.dtype == torch.float32
    assert (env.action_spec.space.low == -1).all()
    assert (env.action_spec.space.high == 1).all()


def test_agent_action_one_is_the_upper_bound_of_pusher() -> None:
    env = make_raw_env(EnvConfig("Pusher-v5"))
    env.reset(seed=0)
    received = []
    inner = env.unwrapped
    original = inner.step
    inner.step = lambda action: received.append(action) or original(action)  # type: ignore[method-assign]
    env.step(np.ones(7, dtype=np.float32))
    np.testing.assert_array_equal(received[0], np.full(7, 2.0))


@pytest.mark.parametrize(("scale", "action", "received"), [(1.0, 1.0, 4.0), (1.0, 0.0, 2.0), (0.25, -1.0, 1.5)])
def test_actions_go_from_the_centre_of_uneven_bounds(scale: float, action: float, received: float) -> None:
    config = EnvConfig("toy/Counter-v0", kwargs={"low": 0.0, "high": 4.0}, action_scale=scale)
    env = make_gym_env(config, seed=0)
    env.reset()
    assert env.step(np.array([action]))[0].tolist() == [1.0, received]


def test_frame_skip_sums_rewards_and_stops_at_the_end() -> None:
    env = make_gym_env(EnvConfig("toy/Counter-v0", kwargs={"end": 5}, frame_skip=3), seed=0)
    env.reset()
    observation, reward, terminated, _, _ = env.step(np.zeros(1))
    assert (observation[0], reward, terminated) == (3.0, 1.0 + 2.0 + 3.0, False)
    observation, reward, terminated, _, _ = env.step(np.zeros(1))
    assert (observation[0], reward, terminated) == (5.0, 4.0 + 5.0, True)


def test_time_limit_counts_agent_steps() -> None:
    rollout = make_env(EnvConfig("HalfCheetah-v5", frame_skip=2, max_episode_steps=3), seed=0).rollout(10)
    assert rollout["next", "truncated"].flatten().tolist() == [False, False, True]
    assert not rollout["next", "terminated"].any()


def test_antmaze_observation_has_the_layout_of_the_loader() -> None:
    raw, flat = make_raw_env(ANT), make_gym_env(ANT, seed=5)
    layout = observation_layout(raw.observation_space, ANT.observation_keys)
    expected, _ = raw.reset(seed=episode_seed(5, 0))
    observed, _ = flat.reset()
    for _ in range(3):
        np.testing.assert_array_equal(observed, layout.flatten(expected))
        np.testing.assert_array_equal(observed[:2], expected["achieved_goal"].astype(np.float32))
        np.testing.assert_array_equal(observed[2:], expected["observation"].astype(np.float32))
        action = np.full(8, 0.5, dtype=np.float32)
        expected, observed = raw.step(action)[0], flat.step(action)[0]
    assert observed.shape == (29,)
    assert expected["desired_goal"].tolist() == [-4.0, -4.0]  # cell (3, 1) of a 5 x 5 maze, 4 m a cell


def test_antmaze_agent_step_is_two_steps_of_a_fifth_of_the_torque() -> None:
    agent = make_raw_env(ANT)
    plain = gymnasium.make("AntMaze_UMaze-v5", **ANT.kwargs)
    plain.unwrapped.position_noise_range = 0.0
    plain.unwrapped.ant_env._reset_noise_scale = 0.1
    cells = {key: np.array(value) for key, value in (ANT.reset_options or {}).items()}
    agent.reset(seed=1)
    plain.reset(seed=1, options=cells)
    action = np.linspace(-1, 1, 8, dtype=np.float32)
    observation = agent.step(action)[0]
    for _ in range(2):
        expected = plain.step(0.2 * action)[0]
    np.testing.assert_allclose(observation["observation"], expected["observation"], rtol=1e-6, atol=1e-9)


def test_antmaze_starts_as_d4rl_does() -> None:
    """Positions up to 0.1 around the start's, velocities of standard deviation 0.1: episodes differ, and replay."""
    env = make_gym_env(ANT, seed=3)
    starts = np.stack([env.reset()[0] for _ in range(400)])
    place = starts[:, :3] - [-4.0, 4.0, 0.75]
    joints = starts[:, 7:15]
    for part in (place, joints):
        assert np.abs(part).max() <= 0.1 + 1e-6
        np.testing.assert_allclose(part.std(0), 0.2 / np.sqrt(12), rtol=0.2)
    np.testing.assert_allclose(starts[:, 15:].std(0), 0.1, rtol=0.2)
    again = make_gym_env(ANT, seed=3)
    np.testing.assert_array_equal(np.stack([again.reset()[0] for _ in range(3)]), starts[:3])


@pytest.mark.parametrize(("radius", "success"), [(0.5, True), (0.45, False)])
def test_goal_radius_decides_reward_and_end(radius: float, success: bool) -> None:
    env = make_gym_env(EnvConfig("toy/Walk-v0", goal_radius=radius), seed=0)
    env.reset()
    _, reward, terminated, _, info = env.step(np.array([0.53]))  # distance 0.47
    assert (reward, terminated, info["success"]) == (float(success), success, success)


def test_goal_radius_reward_is_at_most_one_with_frame_skip() -> None:
    env = make_gym_env(EnvConfig("toy/Walk-v0", frame_skip=3, goal_radius=5.0), seed=0)
    env.reset()
    assert env.step(np.zeros(1))[1] == 1.0


def test_episodes_are_numbered_and_a_resumed_run_continues_the_numbering() -> None:
    config = EnvConfig("toy/Counter-v0")
    starts = [env.reset()[0][1] for env in [make_gym_env(config, seed=4)] for _ in range(4)]
    assert len(set(starts)) == 4
    again = make_gym_env(config, seed=4, first_episode=2)
    assert [again.reset()[0][1] for _ in range(2)] == starts[2:]
    assert make_gym_env(config, seed=5).reset()[0][1] not in starts
    expected = np.random.default_rng(episode_seed(4, 1)).random()
    assert starts[1] == np.float32(expected)


def test_set_seed_of_torchrl_starts_the_numbering_anew() -> None:
    env = make_env(EnvConfig("toy/Counter-v0"), seed=4)
    env.reset()
    env.set_seed(9)
    fresh = make_gym_env(EnvConfig("toy/Counter-v0"), seed=9, first_episode=1)
    assert env.reset()["observation"].tolist() == fresh.reset()[0].tolist()


def test_reward_rule_applies_only_when_given() -> None:
    config = EnvConfig("toy/Counter-v0")
    for rule, expected in [(None, 1.0), (RewardRule(scale=3.0, shift=-1.0), 2.0)]:
        env = make_gym_env(config, seed=0, reward=rule)
        env.reset()
        assert env.step(np.zeros(1))[1] == expected


def test_reset_options_are_passed_unless_others_are_given() -> None:
    env = make_raw_env(EnvConfig("toy/Counter-v0", reset_options={"cell": [1, 2]}))
    env.reset(seed=0)
    assert env.unwrapped.options["cell"].tolist() == [1, 2]
    env.reset(seed=0, options={"cell": 3})
    assert env.unwrapped.options == {"cell": 3}


def test_collector_drives_it_over_episode_ends() -> None:
    env = make_env(EnvConfig("toy/Counter-v0", kwargs={"end": 3}), seed=0)
    collector = Collector(env, None, frames_per_batch=7, total_frames=7, auto_register_policy_transforms=False)
    (batch,) = list(collector)
    assert batch["next", "observation"][:, 0].tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert batch["next", "terminated"].flatten().tolist() == [False, False, True] * 2 + [False]
    collector.shutdown()


def test_values_that_are_not_finite_stop_with_their_place() -> None:
    env = make_gym_env(EnvConfig("toy/Counter-v0", kwargs={"nan_at": 2}), seed=0)
    env.reset()
    env.step(np.zeros(1))
    with pytest.raises(RuntimeError, match=r"not finite after action \[0\.\].*\[1\] \(flat indices\)"):
        env.step(np.zeros(1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"id": "HalfCheeta-v5"}, "Nearest: HalfCheetah-v5"),
        ({"id": "CartPole-v1"}, "discrete"),
        ({"id": "toy/Pixels-v0"}, "Pixels are not supported"),
        ({"id": "toy/Counter-v0", "kwargs": {"low": -np.inf}}, "not bounded"),
        ({"id": "toy/Counter-v0", "kwargs": {"speed": 3}}, "does not take the arguments {'speed': 3}"),
        ({"id": "toy/Counter-v0", "attributes": {"speed": 3}}, "no attribute 'speed'"),
        (
            {"id": "toy/Counter-v0", "attributes": {"spec": {"speed": 3}}},
            "toy/Counter-v0's spec has no attribute 'speed'",
        ),
        ({"id": "toy/Counter-v0", "goal_radius": 0.5}, "needs achieved_goal and desired_goal"),
        ({"id": "toy/Endless-v0"}, "no time limit"),
        ({"id": "Hopper-v5", "frame_skip": 0}, "frame_skip must be a whole number of at least 1"),
        ({"id": "Hopper-v5", "action_scale": 0.0}, "action_scale must be a number in"),
        ({"id": "Hopper-v5", "max_episode_steps": 0}, "max_episode_steps must be a whole number"),
        ({"id": "Hopper-v5", "goal_radius": 0.0}, "goal_radius must be a number in"),
    ],
)
def test_mistakes_name_themselves(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_gym_env(EnvConfig(**config), seed=0)  # type: ignore[arg-type]


def test_missing_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gymnasium, "make", refuse)
    with pytest.raises(ImportError, match=r'pip install "o3f\[robotics\]"'):
        make_env(EnvConfig("Hopper-v5"), seed=0)


def test_a_module_that_is_not_found_is_looked_for_in_pythonpath() -> None:
    with pytest.raises(ImportError, match=r"boat.*export PYTHONPATH"):
        make_env(EnvConfig("boat:Boat-v0"), seed=0)
