"""What acts while a dataset is collected: files, networks, the walk through a maze."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import ProbabilisticActor, TanhNormal

import tests.support.toy_envs  # noqa: F401  (registers toy/*)
from o3f.algorithms.sac import SACConfig, SACLearner
from o3f.collection.behaviours import (
    BehaviourConfig,
    GaussianMLP,
    GaussianMLPBehaviour,
    PolicyBehaviour,
    UniformBehaviour,
    WaypointBehaviour,
    gaussian_mlp_from_actor,
    make_behaviour,
    rollout,
)
from o3f.collection.behaviours.waypoint import distances_to, next_cell
from o3f.data import observation_layout
from o3f.envs import EnvConfig, episode_seed, make_raw_env
from o3f.envs.seeds import seed_streams
from o3f.modules import gaussian_policy, latent_policy

COUNTER = EnvConfig("toy/Counter-v0", kwargs={"end": 4})


def arrays(**changes: Any) -> dict[str, Any]:
    """A 2-3-1 policy; the first layer's outputs for (1, -1) are 0, 3, -2 before the activation."""
    policy = {
        "W0": np.array([[1.0, 2.0, 0.0], [1.0, -1.0, 2.0]]),
        "b0": np.zeros(3),
        "W_mean": np.array([[1.0], [0.1], [1.0]]),
        "b_mean": np.array([0.2]),
        "log_std": np.log(np.array([0.5])),
        "activation": np.array("relu"),
        "squash": np.array(False),
    }
    return policy | {key: np.asarray(value) for key, value in changes.items()}


OBSERVATION = np.array([1.0, -1.0])


def test_relu_policy_by_hand() -> None:
    mean, std = GaussianMLP(arrays()).distribution(OBSERVATION)
    np.testing.assert_allclose(mean, [0.1 * 3.0 + 0.2])
    np.testing.assert_allclose(std, [0.5])


def test_tanh_policy_with_standardised_and_clipped_observations_by_hand() -> None:
    changes = {"obs_mean": [0.0, 1.0], "obs_std": [2.0, 0.5], "obs_clip": 3.0, "activation": "tanh"}
    mean, _ = GaussianMLP(arrays(**changes)).distribution(OBSERVATION)  # inputs 0.5 and -4 -> -3
    hidden = np.tanh([0.5 - 3.0, 2 * 0.5 + 3.0, -6.0])
    np.testing.assert_allclose(mean, [hidden @ [1.0, 0.1, 1.0] + 0.2], rtol=1e-6)


def test_squashing_the_sample_and_squashing_the_mean() -> None:
    np.testing.assert_allclose(GaussianMLP(arrays(squash=True)).mode(OBSERVATION), np.tanh([0.5]))
    policy = GaussianMLP(arrays(squash_mean=True))
    np.testing.assert_allclose(policy.mode(OBSERVATION), np.tanh([0.5]))
    noise = np.random.default_rng(0).standard_normal(1)
    sample = policy.sample(OBSERVATION, np.random.default_rng(0))
    np.testing.assert_allclose(sample, np.tanh(0.5) + 0.5 * noise)
    squashed = GaussianMLP(arrays(squash=True)).sample(OBSERVATION, np.random.default_rng(0))
    np.testing.assert_allclose(squashed, np.tanh(0.5 + 0.5 * noise))


def test_state_dependent_std_and_its_bounds() -> None:
    changes = {"W_log_std": [[0.0], [1.0], [0.0]], "b_log_std": [-2.0]}
    policy = {key: value for key, value in arrays(**changes).items() if key != "log_std"}
    np.testing.assert_allclose(GaussianMLP(policy).distribution(OBSERVATION)[1], [np.exp(1.0)])
    bounded = GaussianMLP(policy | {"log_std_bounds": np.array([-5.0, 0.5])})
    np.testing.assert_allclose(bounded.distribution(OBSERVATION)[1], [np.exp(0.5)])


def test_sampled_actions_have_the_stated_moments() -> None:
    samples = GaussianMLP(arrays()).sample(np.tile(OBSERVATION, (20_000, 1)), np.random.default_rng(1))
    assert samples.shape == (20_000, 1)
    np.testing.assert_allclose([samples.mean(), samples.std()], [0.5, 0.5], atol=0.02)


def test_a_file_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    GaussianMLP(arrays(obs_mean=[0.0, 1.0], obs_std=[1.0, 1.0])).save(tmp_path / "policy.npz")
    policy = GaussianMLP.load(tmp_path / "policy.npz")
    assert sorted(policy.arrays) == sorted(arrays(obs_mean=0, obs_std=0))
    np.testing.assert_array_equal(policy.arrays["W0"], arrays()["W0"])
    assert (policy.observation_dim, policy.action_dim) == (2, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"W_extra": [1.0]}, "unknown: .*W_extra"),
        ({"b0": [0.0, 0.0]}, "shapes do not fit"),
        ({"W_mean": [[1.0], [0.1]]}, "shapes do not fit"),
        ({"W0": [[np.nan, 2.0, 0.0], [1.0, -1.0, 2.0]]}, "W0 holds values that are not finite"),
        ({"activation": "gelu"}, "activation must be one of"),
        ({"log_std": [0.0, 0.0]}, "shapes do not fit"),
        ({"obs_mean": [0.0, 1.0]}, "missing: .*obs_std"),
    ],
)
def test_faulty_files_say_what_is_wrong(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "policy.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message):
        GaussianMLP.load(tmp_path / "policy.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", **(arrays() | {"b0": np.array([print], dtype=object)}))
    with pytest.raises(ValueError, match=r"evil\.npz is not a Gaussian MLP policy"):
        GaussianMLP.load(tmp_path / "evil.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match=r"text\.npz is not a Gaussian MLP policy"):
        GaussianMLP.load(tmp_path / "text.npz")
    GaussianMLP(arrays()).save(tmp_path / "cut.npz")
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.npz is not a Gaussian MLP policy"):
        GaussianMLP.load(tmp_path / "cut.npz")
    with pytest.raises(FileNotFoundError, match="No policy file"):
        GaussianMLP.load(tmp_path / "absent.npz")


@pytest.mark.parametrize("kind", ["iql", "sac"])
def test_exported_actor_equals_the_actor(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    actor = gaussian_policy(3, 2, (8, 8), dropout=0.1) if kind == "iql" else sac_policy()
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    gaussian_mlp_from_actor(actor).save(tmp_path / "policy.npz")
    assert actor.training
    exported = GaussianMLP.load(tmp_path / "policy.npz")
    observations = torch.randn(5, 3)
    step = TensorDict({"observation": observations}, [5])
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        actor.eval()(step)
    mean, std = exported.distribution(observations.numpy())
    np.testing.assert_allclose(mean, step["loc"].numpy(), atol=1e-5)
    np.testing.assert_allclose(np.broadcast_to(std, (5, 2)), step["scale"].numpy(), rtol=1e-5)
    np.testing.assert_allclose(exported.mode(observations.numpy()), step["action"].numpy(), atol=1e-5)


def sac_policy() -> Any:
    return SACLearner(3, 2, SACConfig(hidden_sizes=(8, 8))).policy


def test_exported_sac_actor_samples_like_the_actor() -> None:
    torch.manual_seed(0)
    samples = 20_000
    actor = sac_policy()
    step = TensorDict({"observation": torch.ones(samples, 3)}, [samples])
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        expected = actor(step)["action"].numpy()
    drawn = gaussian_mlp_from_actor(actor).sample(np.ones((samples, 3)), np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(0), expected.mean(0), atol=0.02)
    np.testing.assert_allclose(drawn.std(0), expected.std(0), atol=0.02)


def test_only_known_actors_are_exported() -> None:
    def actor(network: torch.nn.Module) -> ProbabilisticActor:
        return ProbabilisticActor(
            TensorDictModule(network, in_keys=["observation"], out_keys=["loc", "scale"]),
            in_keys=["loc", "scale"],
            distribution_class=TanhNormal,
        )

    softplus = torch.nn.Sequential(torch.nn.Linear(3, 4), NormalParamExtractor())
    with pytest.raises(ValueError, match="this one acts differently"):
        gaussian_mlp_from_actor(actor(softplus))
    normalised = torch.nn.Sequential(torch.nn.LayerNorm(3), torch.nn.Linear(3, 4), NormalParamExtractor())
    with pytest.raises(ValueError, match="Only Linear layers"):
        gaussian_mlp_from_actor(actor(normalised))
    with pytest.raises(ValueError, match=r"found a LatentPolicy.*kind=run"):
        gaussian_mlp_from_actor(latent_policy(3, 2, hidden_sizes=(4,)))


def test_rollout_records_raw_values_by_hand() -> None:
    env = make_raw_env(COUNTER)
    trajectory = rollout(env, UniformBehaviour(1), seed=2, episode=3, max_steps=100)
    assert len(trajectory) == 4
    assert trajectory.seed == episode_seed(2, 3)
    assert trajectory.observations[:, 0].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(trajectory.observations[1:, 1], trajectory.actions[:, 0])
    assert trajectory.rewards.tolist() == [1, 2, 3, 4]
    assert trajectory.terminated.tolist() == [False, False, False, True]
    assert not trajectory.truncated.any()


def test_rollout_cut_short_is_truncated_unless_it_just_ended() -> None:
    env = make_raw_env(COUNTER)
    cut = rollout(env, UniformBehaviour(1), seed=0, episode=0, max_steps=2)
    assert (cut.terminated.tolist(), cut.truncated.tolist()) == ([False, False], [False, True])
    whole = rollout(env, UniformBehaviour(1), seed=0, episode=0, max_steps=4)
    assert whole.terminated[-1]
    assert not whole.truncated[-1]


def test_an_episode_depends_on_its_number_alone() -> None:
    first = [rollout(make_raw_env(COUNTER), UniformBehaviour(1), seed=1, episode=k, max_steps=9) for k in (0, 1)]
    env = make_raw_env(COUNTER)
    again = [rollout(env, UniformBehaviour(1), seed=1, episode=k, max_steps=9) for k in (1, 0)]
    np.testing.assert_array_equal(first[0].actions, again[1].actions)
    np.testing.assert_array_equal(first[0].observations, again[1].observations)
    np.testing.assert_array_equal(first[1].actions, again[0].actions)
    assert not np.array_equal(first[0].actions, first[1].actions)


class GlobalStart(gymnasium.Env[Any, Any]):
    """Begins where NumPy's global stream says, which no seed of a reset touches, as OGBench's mazes do."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.random.random(1), {}  # noqa: NPY002

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([random.random()]), 0.0, True, False, {}


def test_global_streams_are_the_episodes_own_and_put_back() -> None:
    drawn = TensorDictModule(torch.rand_like, in_keys=["observation"], out_keys=["action"])
    policy = PolicyBehaviour(drawn, observation_layout(GlobalStart.observation_space))
    seed_streams(3)
    expected = random.random(), np.random.random(), torch.rand(())  # noqa: NPY002
    played = []
    for number, episode in enumerate((0, 1, 0)):
        seed_streams(number)
        played.append(rollout(GlobalStart(), policy, seed=5, episode=episode, max_steps=9))
    np.testing.assert_array_equal(played[2].observations, played[0].observations)
    np.testing.assert_array_equal(played[2].actions, played[0].actions)
    assert not np.isclose(played[1].observations, played[0].observations).any()
    assert not np.isclose(played[1].actions, played[0].actions).any()
    seed_streams(3)
    rollout(GlobalStart(), policy, seed=5, episode=0, max_steps=9)
    assert (random.random(), np.random.random(), torch.rand(())) == expected  # noqa: NPY002


def test_files_take_turns_and_noise_is_added() -> None:
    layout = observation_layout(make_raw_env(COUNTER).observation_space)
    policies = [GaussianMLP(arrays(b_mean=[value])) for value in (0.0, 0.7)]
    behaviour = GaussianMLPBehaviour(policies, layout, sample=False)
    rng = np.random.default_rng(0)
    seen = []
    for episode in range(3):
        behaviour.start(episode, rng)
        seen.append(float(behaviour.act(np.zeros(2), rng)[0]))
    assert seen == [0.0, 0.7, 0.0]
    noisy = GaussianMLPBehaviour(policies, layout, sample=False, noise=0.5)
    expected = 0.5 * np.random.default_rng(7).standard_normal(1)
    np.testing.assert_allclose(noisy.act(np.zeros(2), np.random.default_rng(7)), expected)


def test_tensordict_policies_act_with_their_mean_or_a_sample() -> None:
    torch.manual_seed(0)
    policy = gaussian_policy(2, 1, (4,))
    layout = observation_layout(make_raw_env(COUNTER).observation_space)
    rng = np.random.default_rng(0)
    mean = PolicyBehaviour(policy, layout, sample=False).act(OBSERVATION, rng)
    np.testing.assert_allclose(mean, gaussian_mlp_from_actor(policy).mode(OBSERVATION), atol=1e-6)
    samples = {float(PolicyBehaviour(policy, layout).act(OBSERVATION, rng)[0]) for _ in range(5)}
    assert len(samples) > 1


def test_tensordict_policies_are_told_where_an_episode_begins() -> None:
    seen: list[bool] = []

    def act(observation: Tensor, is_init: Tensor) -> Tensor:
        seen.append(bool(is_init))
        return torch.zeros(*observation.shape[:-1], 1)

    policy = TensorDictModule(act, in_keys=["observation", "is_init"], out_keys=["action"])
    env = make_raw_env(COUNTER)
    behaviour = PolicyBehaviour(policy, observation_layout(env.observation_space))
    for episode in range(2):
        rollout(env, behaviour, seed=0, episode=episode, max_steps=3)
    assert seen == [True, False, False] * 2


FREE = [(1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 2), (3, 3)]  # the U-shaped maze


def test_shortest_paths_by_hand() -> None:
    distances = distances_to((3, 1), FREE)
    assert distances == {(3, 1): 0, (3, 2): 1, (3, 3): 2, (2, 3): 3, (1, 3): 4, (1, 2): 5, (1, 1): 6}
    assert next_cell((1, 1), distances) == (1, 2)
    assert next_cell((1, 3), distances) == (2, 3)
    assert next_cell((3, 1), distances) is None
    assert next_cell((9, 9), distances) is None


class StraightAnt:
    """Stands for the ant's policy; remembers what it was shown."""

    observation_dim = 29

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def sample(self, observation: Any, rng: np.random.Generator) -> Any:
        self.shown.append(observation)
        return np.zeros(8)


@pytest.fixture(scope="module")
def maze_env() -> gymnasium.Env[Any, Any]:
    return make_raw_env(MAZE)


MAZE = EnvConfig(
    "AntMaze_UMaze-v5",
    kwargs={"continuing_task": False, "include_cfrc_ext_in_observation": False},
    frame_skip=2,
    action_scale=0.2,
    observation_keys=["achieved_goal", "observation"],
    reset_options={"reset_cell": [1, 1], "goal_cell": [3, 1]},
    max_episode_steps=700,
    goal_radius=0.5,
)


def waypoint(env: gymnasium.Env[Any, Any], ant: Any, **options: Any) -> WaypointBehaviour:
    return WaypointBehaviour(ant, env, target=(3, 1), radius=0.5, **options)


def test_ant_is_pointed_at_the_next_cell(maze_env: gymnasium.Env[Any, Any]) -> None:
    ant = StraightAnt()
    behaviour = waypoint(maze_env, ant, noise=0.0)
    rng = np.random.default_rng(0)
    options = behaviour.start(0, rng)
    assert tuple(options["goal_cell"]) == (3, 1)
    assert tuple(options["reset_cell"]) in FREE[:4] + FREE[5:]
    observation = {
        "achieved_goal": np.array([-4.0, 4.0]),  # the centre of cell (1, 1); (1, 2) lies 4 m along x
        "desired_goal": np.array([-4.0, -4.0]),
        "observation": np.arange(27.0),
    }
    behaviour.act(observation, np.random.default_rng(5))
    aim = np.array([0.0, 4.0]) + np.random.default_rng(5).uniform(0, 1, 2)
    offset = aim - [-4.0, 4.0]
    np.testing.assert_array_equal(ant.shown[0][:27], np.arange(27.0))
    np.testing.assert_allclose(ant.shown[0][27:], 10 * offset / np.linalg.norm(offset))
    observation["achieved_goal"] = np.array([-4.0, -3.0])  # in the goal's cell
    behaviour.act(observation, rng)
    np.testing.assert_allclose(ant.shown[1][27:], [0.0, -10.0])


def test_relabelling_ends_where_the_target_is_first_reached(maze_env: gymnasium.Env[Any, Any]) -> None:
    behaviour = waypoint(maze_env, StraightAnt())
    recorded = rollout(maze_env, behaviour, seed=0, episode=0, max_steps=5)
    assert recorded.truncated.tolist() == [False] * 4 + [True]
    assert recorded.rewards.tolist() == [0.0] * 5
    np.testing.assert_array_equal(recorded.observations["desired_goal"], np.tile([-4.0, -4.0], (6, 1)))
    positions = recorded.observations["achieved_goal"].copy()
    positions[3] = [-4.0, -3.52]  # 0.48 from the centre of the target, reached by the third step
    positions[5] = [-4.0, -4.0]
    recorded.observations["achieved_goal"] = positions
    relabelled = behaviour.finish(recorded)
    assert relabelled.rewards.tolist() == [0.0, 0.0, 1.0]
    assert relabelled.terminated.tolist() == [False, False, True]
    assert relabelled.truncated.tolist() == [False, False, False]
    assert relabelled.observations["achieved_goal"].shape == (4, 2)
    assert relabelled.actions.shape == (3, 8)


def test_starts_and_goals_are_spread_in_their_cells(maze_env: gymnasium.Env[Any, Any]) -> None:
    for spread in (0.0, 0.25):
        behaviour = waypoint(maze_env, StraightAnt(), position_noise=spread)
        goals = []
        for episode in range(8):
            options = behaviour.start(episode, np.random.default_rng(episode))
            goals.append(maze_env.reset(seed=episode, options=options)[0]["desired_goal"])
        offsets = np.abs(np.array(goals) - [-4.0, -4.0])
        assert offsets.max() <= spread * 4.0
        assert (offsets.max() > 0.0) == (spread > 0.0)


def test_diverse_mazes_walk_to_their_marked_cells() -> None:
    env = make_raw_env(EnvConfig("AntMaze_Medium_Diverse_GR-v5", kwargs=MAZE.kwargs))
    behaviour = WaypointBehaviour(StraightAnt(), env, target=(6, 5), radius=0.5)  # type: ignore[arg-type]
    maze = env.unwrapped.maze
    marked = {(i, j) for i, row in enumerate(maze.maze_map) for j, kind in enumerate(row) if kind == "c"}
    assert len(marked) > 1
    rng = np.random.default_rng(0)
    drawn = [behaviour.start(k, rng) for k in range(60)]
    assert {tuple(options["goal_cell"].tolist()) for options in drawn} == marked
    assert all((options["reset_cell"] != options["goal_cell"]).any() for options in drawn)
    with pytest.raises(ValueError, match=r"Cell \(0, 0\) is not free"):
        WaypointBehaviour(StraightAnt(), env, target=(0, 0), radius=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "uniform"}, "is random, npz, run or waypoint, found 'uniform'"),
        ({"kind": "npz"}, r"needs a path: an \.npz file"),
        ({"kind": "run"}, "needs a path: a run folder"),
        ({"kind": "run", "path": "somewhere"}, "needs load_policy"),
        ({"kind": "waypoint", "path": "POLICY"}, "needs reset_options.goal_cell and goal_radius"),
    ],
)
def test_mistakes_in_the_config_name_themselves(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    GaussianMLP(arrays()).save(tmp_path / "policy.npz")
    config = {key: value.replace("POLICY", str(tmp_path / "policy.npz")) for key, value in config.items()}
    with pytest.raises(ValueError, match=message):
        make_behaviour(BehaviourConfig(**config), make_raw_env(COUNTER), COUNTER)


def test_a_policy_of_another_environment_is_refused(tmp_path: Path) -> None:
    GaussianMLP(arrays()).save(tmp_path / "policy.npz")
    config = BehaviourConfig("npz", path=str(tmp_path / "policy.npz"))
    cheetah = EnvConfig("HalfCheetah-v5")
    with pytest.raises(ValueError, match="1 actions, HalfCheetah-v5 6"):
        make_behaviour(config, make_raw_env(cheetah), cheetah)
    layout = observation_layout(make_raw_env(EnvConfig("Hopper-v5")).observation_space)
    with pytest.raises(ValueError, match="observations of size 2, the environment gives 11"):
        GaussianMLPBehaviour([GaussianMLP(arrays())], layout)
