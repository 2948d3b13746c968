"""Faults of the data, numbered as in docs/reliability.md: each is found before anything is learned from it."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from hypothesis import given, settings
from hypothesis import strategies as st
from minari.dataset.episode_data import EpisodeData
from tensordict import TensorDict

from o3f.collection.behaviours.minari_writer import MinariWriter
from o3f.data import (
    check_dataset,
    check_environment,
    dataset_hash,
    dataset_info,
    load_minari,
    observation_layout,
    reading,
)
from o3f.data.episodes import Episode, decode_episode
from o3f.envs import EnvConfig, make_gym_env
from o3f.errors import ConfigError
from o3f.modules import EnsembleQValue, gaussian_policy, tanh_gaussian_policy, value_network
from o3f.objectives import IQLLoss
from o3f.runs.folder import RunFolder
from o3f.training.build import env_config
from tests.support import recipe_runs as runs
from tests.support.boxes import in_child
from tests.support.memory import load_in_a_process, write_large_dataset
from tests.support.minari_datasets import Episodes, datasets_folder, make_episodes, write_dataset

SPACES: dict[str, Any] = {
    "observation_space": Box(-np.inf, np.inf, (3,), np.float64),
    "action_space": Box(-1.0, 1.0, (2,), np.float32),
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def no_network(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a test tried to download")

    monkeypatch.setattr(minari, "download_dataset", no_network)
    return datasets_folder(monkeypatch, tmp_path)


@pytest.fixture
def episodes() -> Episodes:
    return make_episodes([4, 5, 3], **SPACES)


def write(dataset_id: str, lengths: list[int], **kwargs: Any) -> minari.MinariDataset:
    return write_dataset(dataset_id, make_episodes(lengths, **SPACES, **kwargs), **SPACES)


def assert_stops(episodes: Episodes, *parts: str) -> None:
    """Both the check alone and the loader stop, with all parts in the message; check=False does not."""
    write_dataset("toy/faulty-v0", episodes, **SPACES)
    for read in (check_dataset, load_minari):
        with pytest.raises(ValueError, match="Dataset 'toy/faulty-v0' cannot be used") as caught:
            read("toy/faulty-v0")
        for part in parts:
            assert part in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("observations", np.nan), ("actions", np.nan), ("rewards", -np.inf), ("rewards", np.nan)],
)
def test_f15_non_finite_values_are_placed(episodes: Episodes, field: str, value: float) -> None:
    episodes[1][field][2:4] = value
    count = {"observations": 6, "actions": 4, "rewards": 2}[field]
    assert_stops(
        episodes,
        f"'{field}' is not finite at {count} place(s), first in episode 1 at step 2.",
        "on_nonfinite=drop_episode",
    )


def test_f15_the_last_observation_counts_too(episodes: Episodes) -> None:
    episodes[2]["observations"][3, 1] = np.inf
    assert_stops(episodes, "'observations' is not finite at 1 place(s), first in episode 2 at step 3.")


def test_f15_finite_in_float64_but_not_in_float32(episodes: Episodes) -> None:
    episodes[0]["observations"][1, 0] = 1e300
    episodes[2]["rewards"][2] = -1e300
    assert_stops(
        episodes,
        "'observations' is not finite at 1 place(s), first in episode 0 at step 1.",
        "'rewards' is not finite at 1 place(s), first in episode 2 at step 2.",
    )


def test_f15_episodes_with_non_finite_values_can_be_left_out(episodes: Episodes) -> None:
    episodes[1]["rewards"][2] = np.nan
    write_dataset("toy/faulty-v0", episodes, **SPACES)
    whole = load_minari("toy/faulty-v0", check=False)
    with pytest.warns(UserWarning, match="1 episode.s. of 'toy/faulty-v0' were left out.*'rewards' at 1 .*1 at step 2"):
        buffer = load_minari("toy/faulty-v0", on_nonfinite="drop_episode", online_capacity=2)
    info = dataset_info(buffer)
    assert (info.dropped_episodes, info.episodes, info.transitions, len(buffer)) == (1, 2, 7, 7)
    assert torch.equal(buffer[:]["observation"], torch.cat([whole[:4]["observation"], whole[9:]["observation"]]))
    assert info.hash == dataset_hash("toy/faulty-v0", on_nonfinite="drop_episode")
    assert info.changes == {"dataset_dropped_episodes": 1}
    buffer.extend(buffer[:3].clone())
    assert len(buffer) == 9
    cut = load_minari("toy/faulty-v0", on_nonfinite="drop_episode", max_transitions=4)
    assert torch.equal(cut[:]["action"], whole[:4]["action"])
    with pytest.raises(ValueError, match="on_nonfinite is 'repair', expected 'stop' or 'drop_episode'"):
        check_dataset("toy/faulty-v0", on_nonfinite="repair")  # type: ignore[arg-type]


def test_f15_nothing_left_after_leaving_out(episodes: Episodes) -> None:
    for episode in episodes:
        episode["actions"][0] = np.nan
    write_dataset("toy/faulty-v0", episodes, **SPACES)
    for check in (True, False):
        with pytest.raises(ValueError, match=r"'actions' is not finite at 6 place(?s:.*)no transitions left"):
            load_minari("toy/faulty-v0", on_nonfinite="drop_episode", check=check)


@pytest.mark.parametrize(
    ("name", "value"), [("on_nonfinite", "repair"), ("unmarked_ends", "terminate"), ("reset_steps", "skip")]
)
def test_f15_the_configuration_knows_the_choices(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"dataset.{name}: '{value}' is not known"):
        runs.run("pretrain", *runs.TINY, f"dataset.{name}={value}")


def test_f16_a_loader_that_stores_zeros_is_found(episodes: Episodes, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset("toy/zeros-v0", episodes, **SPACES)
    read = Episode.rows

    def zeroed(self: Episode, count: int) -> Any:
        return {key: 0 * values if key == "action" else values for key, values in read(self, count).items()}

    monkeypatch.setattr(Episode, "rows", zeroed)
    told = r"Row 0 of the buffer is not what 'toy/zeros-v0' holds: 'action' is \[0.0, -0.0\], in ep"
    with pytest.raises(RuntimeError, match=told):
        load_minari("toy/zeros-v0")
    load_minari("toy/zeros-v0", check=False)


def test_f16_rows_of_another_episode_or_step_are_found(episodes: Episodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each episode sampled, the last step is compared as well as the first."""
    write_dataset("toy/mixed-v0", episodes, **SPACES)
    for shifted in range(3):
        with pytest.MonkeyPatch.context() as patch:
            read = Episode.rows

            def shift(self: Episode, count: int, wrong: int = shifted, read: Any = read) -> Any:
                rows = read(self, count)
                if self.index == wrong:
                    rows["next", "observation"] = rows["next", "observation"].copy()
                    rows["next", "observation"][-1] = self.observations[0]
                return rows

            patch.setattr(Episode, "rows", shift)
            step = len(episodes[shifted]["rewards"]) - 1
            with pytest.raises(RuntimeError, match=rf"'next', 'observation'\) is .* episode {shifted} at step {step}"):
                load_minari("toy/mixed-v0")


def test_f16_constant_fields_are_named(episodes: Episodes) -> None:
    for episode in episodes:
        episode["observations"][:, 1] = 0.25
        episode["rewards"][:] = -1.0
    write_dataset("toy/constant-v0", episodes, **SPACES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_minari("toy/constant-v0")
    assert [str(each.message)[:58] for each in caught] == [
        "The observations [1] (flat indices) of 'toy/constant-v0' n",
        "All rewards of 'toy/constant-v0' are -1: nothing can be le",
    ]
    episodes[2]["rewards"][1] = 0.0
    episodes[2]["observations"][3, 1] = 0.5
    write_dataset("toy/alive-v0", episodes, **SPACES)
    load_minari("toy/alive-v0")


def test_f71_loading_warns_of_rewards_far_beyond_the_rest(episodes: Episodes) -> None:
    episodes[1]["rewards"][2] = -9.97e36
    write_dataset("toy/fill-v0", episodes, **SPACES)
    with pytest.warns(
        UserWarning, match=r"'toy/fill-v0': 1 of 12 rewards lie .* -9.97e\+36 in row 6; the others"
    ) as told:
        load_minari("toy/fill-v0")
    assert len(told) == 1


def test_f16_zeros_everywhere_are_a_damaged_file(episodes: Episodes) -> None:
    for episode in episodes:
        episode["observations"][:] = 0.0
        episode["actions"][:] = 0.0
    assert_stops(episodes, "all observations and actions are zero")


def test_f17_actions_far_out_of_bounds(episodes: Episodes) -> None:
    episodes[0]["actions"][3, 0] = 1.5
    episodes[2]["actions"][1] = -1.25
    assert_stops(
        episodes,
        "'actions' exceeds the action bounds at 3 place(s), first in episode 0 at step 3,",
        "by up to 0.5 in units of [-1, 1]",
        "clip_actions=true",
    )
    with pytest.warns(UserWarning, match=r"3 action values .* up to 0.5"):
        buffer = load_minari("toy/faulty-v0", clip_actions=True)
    assert buffer[:]["action"].abs().max() == 1.0
    assert buffer[3]["action"][0] == 1.0
    assert torch.equal(buffer[10]["action"], -torch.ones(2))
    assert dataset_info(buffer).clipped_actions == 3
    assert check_dataset("toy/faulty-v0", clip_actions=True).worst_excess == pytest.approx(0.5)


def test_f17_actions_slightly_out_of_bounds_are_clipped_and_reported(episodes: Episodes) -> None:
    episodes[1]["actions"][0, 1] = 1.0005
    write_dataset("toy/slight-v0", episodes, **SPACES)
    with pytest.warns(UserWarning, match="1 action values of 'toy/slight-v0' lay up to 0.0005"):
        buffer = load_minari("toy/slight-v0")
    assert buffer[4]["action"][1] == 1.0
    assert check_dataset("toy/slight-v0").clipped_actions == 1


def test_f17_the_tolerance_ends_at_a_thousandth(episodes: Episodes) -> None:
    episodes[1]["actions"][0, 1] = -1.0015
    assert_stops(episodes, "'actions' exceeds the action bounds at 1 place(s), first in episode 1 at step 0,")


def test_f17_the_tolerance_is_in_units_of_the_bounds(episodes: Episodes) -> None:
    spaces = {**SPACES, "action_space": Box(-100.0, 100.0, (2,), np.float32)}
    episodes[1]["actions"][0, 1] = 100.05
    write_dataset("toy/wide-v0", episodes, **spaces)
    report = check_dataset("toy/wide-v0")
    assert report.worst_excess == pytest.approx(5e-4, rel=1e-2)


def test_f17_actions_at_the_bounds_are_no_excess(episodes: Episodes) -> None:
    episodes[0]["actions"][:] = np.float32([1.0, -1.0])
    write_dataset("toy/border-v0", episodes, **SPACES)
    assert check_dataset("toy/border-v0").clipped_actions == 0


@pytest.mark.parametrize("policy", [gaussian_policy, tanh_gaussian_policy])
@pytest.mark.parametrize("action", [-1.0, 1.0 - 1e-7, 1.0])
def test_f17_actions_at_the_bounds_have_finite_log_probabilities(policy: Any, action: float) -> None:
    torch.manual_seed(0)
    actor = policy(3, 2, (8,))
    log_prob = actor.get_dist(TensorDict({"observation": torch.randn(5, 3)}, [5])).log_prob(torch.full((5, 2), action))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in actor.parameters() if parameter.grad is not None)


def test_f17_action_scale_narrows_the_bounds(episodes: Episodes) -> None:
    for episode in episodes:
        episode["actions"] = np.clip(episode["actions"], -0.2, 0.2)
    write_dataset("toy/narrow-v0", episodes, **SPACES)
    assert check_dataset("toy/narrow-v0", action_scale=0.2).clipped_actions == 0
    with pytest.raises(ValueError, match=r"by up to 1 in units"):
        check_dataset("toy/narrow-v0", action_scale=0.1)


def dataset_of(dataset_id: str = "toy/pendulum-v0", env_id: str = "Pendulum-v1", **kwargs: Any) -> Any:
    env = gymnasium.make(env_id, **kwargs)
    episodes = make_episodes([4], observation_space=env.observation_space, action_space=env.action_space)  # type: ignore[arg-type]
    write_dataset(dataset_id, episodes, env=env)
    return env


def test_f18_the_datasets_own_environment_is_accepted_bare_and_wrapped() -> None:
    env = dataset_of()
    check_environment("toy/pendulum-v0", env)
    check_environment("toy/pendulum-v0", make_gym_env(EnvConfig("Pendulum-v1"), seed=0))
    check_dataset("toy/pendulum-v0", env=env)
    env.close()


@pytest.mark.parametrize(
    ("env_id", "kwargs", "differences"),
    [
        ("Hopper-v4", {}, ["environment id: Hopper-v5 in the dataset, Hopper-v4 here"]),
        ("Walker2d-v5", {}, ["Hopper-v5 in the dataset, Walker2d-v5", "observation_space", "action_space"]),
        ("Hopper-v5", {"exclude_current_positions_from_observation": False}, ["observation_space", "(12,)"]),
    ],
)
def test_f18_another_environment_or_version_is_listed(
    env_id: str, kwargs: dict[str, Any], differences: list[str]
) -> None:
    dataset_of("toy/hopper-v0", "Hopper-v5").close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gymnasium.logger, "min_level", gymnasium.logger.ERROR)  # v4 is announced as old
        env = gymnasium.make(env_id, **kwargs)
    for check in (check_environment, lambda dataset_id, env: check_dataset(dataset_id, env=env)):
        with pytest.raises(ValueError, match="was not made in this environment") as caught:
            check("toy/hopper-v0", env)
        lines = [line for line in str(caught.value).splitlines() if line.startswith("- ")]
        assert len(lines) == len({part.split(":")[0] for part in differences if "(12,)" not in part})
        assert all(re.search(re.escape(part), str(caught.value)) for part in differences)
    env.close()


def test_f18_other_bounds_of_the_same_shape_are_a_difference() -> None:
    env = dataset_of()
    narrow = gymnasium.wrappers.RescaleAction(gymnasium.make("Pendulum-v1", g=9.0), np.float32(-1), np.float32(1))
    with pytest.warns(UserWarning, match="argument g: not given in the dataset, 9.0 here"):
        check_environment("toy/pendulum-v0", narrow)  # below the wrapper, the bounds are the same
    env.unwrapped.action_space = Box(-3.0, 3.0, (1,), np.float32)
    with pytest.raises(ValueError, match=r"action_space: .*2.0.* in the dataset, .*3.0.* here"):
        check_environment("toy/pendulum-v0", env)
    env.close()


def test_f18_a_dataset_without_an_environment_compares_spaces_only(episodes: Episodes) -> None:
    write_dataset("toy/bare-v0", episodes, **SPACES)
    env = gymnasium.make("Pendulum-v1")
    with pytest.raises(ValueError, match="was not made in this environment") as caught:
        check_environment("toy/bare-v0", env)
    assert "environment id" not in str(caught.value)
    env.close()


def test_f19_a_truncated_state_keeps_its_bootstrap_and_a_terminal_one_does_not() -> None:
    """IQL's target r + discount * V(s') through the loader: terminated, truncated, and cut without a mark."""
    write("toy/ends-v0", [2, 2, 2], ends="tu-")
    rows = load_minari("toy/ends-v0")[:]
    torch.manual_seed(0)
    loss = IQLLoss(gaussian_policy(3, 2, (4,)), EnsembleQValue(3, 2, 2, (4,)), value_network(3, (4,)))
    loss.make_value_estimator(gamma=0.5)
    ends, rewards = rows[[1, 3, 5]], rows["next", "reward"][[1, 3, 5], 0]
    with torch.no_grad():
        values = loss.value_network(ends["next"].select("observation"))["state_value"].squeeze(-1)
        targets = rewards + 0.5 * values * torch.tensor([0.0, 1.0, 1.0])
        predicted = loss.critic(ends.select("observation", "action").clone())["state_action_value"]
        expected = (predicted - targets[:, None]).square().sum(-1).mean()
        found, _ = loss.qvalue_loss(ends.clone())
    torch.testing.assert_close(found, expected)


def test_f19_no_ends_at_all_stop_and_ask_for_a_rule() -> None:
    episodes = make_episodes([4, 5], **SPACES, ends="-")
    assert_stops(
        episodes, "neither 'terminations' nor 'truncations' is true", "any of 2 episode(s)", "unmarked_ends=truncate"
    )
    rows = load_minari("toy/faulty-v0", unmarked_ends="truncate")[:]["next"]
    assert rows["truncated"].flatten().nonzero().flatten().tolist() == [3, 8]
    assert not rows["terminated"].any()


def test_f19_some_missing_ends_are_truncations_and_reported() -> None:
    write_dataset("toy/some-v0", make_episodes([4, 5, 3], **SPACES, ends="t-u"), **SPACES)
    report = check_dataset("toy/some-v0")
    assert (report.terminated, report.truncated, report.unfinished) == (1, 2, 1)


def test_f19_truncation_is_not_termination_and_an_unfinished_end_is_truncation() -> None:
    write("toy/ends-v0", [2, 2, 2], ends="tu-")
    buffer = load_minari("toy/ends-v0")
    rows = buffer[:]["next"]
    assert rows["terminated"].squeeze(-1).tolist() == [False, True, False, False, False, False]
    assert rows["truncated"].squeeze(-1).tolist() == [False, False, False, True, False, True]
    assert torch.equal(rows["done"], rows["terminated"] | rows["truncated"])
    assert dataset_info(buffer).unfinished == 1


@pytest.mark.parametrize("field", ["terminations", "truncations"])
def test_f20_an_end_in_the_middle_of_an_episode(episodes: Episodes, field: str) -> None:
    episodes[1][field][2] = True
    assert_stops(
        episodes,
        f"'{field}' ends the episode before its last step at 1 place(s), first in episode 1 at step 2.",
        "another episode: split the episode",
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8), cut=st.integers(0, 6))
def test_f20_next_observation_never_crosses_episodes(lengths: list[int], cut: int) -> None:
    """Observations number their episode and step, so that every row tells where it comes from."""
    layout = observation_layout(Box(0.0, 1e6, (2,), np.float64))
    action_space = Box(-1.0, 1.0, (1,))
    for number, steps in enumerate(lengths):
        raw = EpisodeData(
            id=number,
            observations=np.array([[number, step] for step in range(steps + 1)], dtype=np.float64),
            actions=np.zeros((steps, 1)),
            rewards=np.zeros(steps),
            terminations=np.zeros(steps, bool),
            truncations=np.zeros(steps, bool),
            infos={},
        )
        count = min(cut, steps)
        rows = decode_episode(raw, layout, action_space).rows(count)
        assert rows["observation"].tolist() == [[number, step] for step in range(count)]
        assert rows["next", "observation"].tolist() == [[number, step + 1] for step in range(count)]
        assert rows["next", "done"].flatten().tolist() == [step == count - 1 for step in range(count)]


@pytest.mark.filterwarnings("ignore:The observations")  # an only episode's number never changes
@settings(max_examples=6, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_f20_next_observation_never_crosses_episodes_on_disk(lengths: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        datasets_folder(patch, Path(name))
        episodes = make_episodes(lengths, **SPACES)
        for number, episode in enumerate(episodes):
            episode["observations"][:] = number
            episode["observations"][:, 1] = np.arange(lengths[number] + 1)
            episode["observations"][-1, 2] = -1.0
        write_dataset("toy/numbered-v0", episodes, **SPACES)
        rows = load_minari("toy/numbered-v0")[:]
    expected = [(number, step) for number, steps in enumerate(lengths) for step in range(steps)]
    assert [(int(o[0]), int(o[1])) for o in rows["observation"]] == expected
    assert [(int(o[0]), int(o[1]) - 1) for o in rows["next", "observation"]] == expected


def test_f21_tasks_that_never_end_state_their_rule() -> None:
    """AntMaze: an episode ends within half a metre of the goal, and every step before costs 1."""
    config = runs.settings("finetune", "task=antmaze/umaze-diverse")
    env = env_config(config)
    assert (env.goal_radius, env.max_episode_steps, env.kwargs["continuing_task"]) == (0.5, 700, False)
    assert (config.task.reward.scale, config.task.reward.shift) == (1.0, -1.0)


def write_short(dataset_id: str, lengths: list[int], root: Path) -> None:
    """Like :func:`write`, with episodes of no step, which Minari reads but does not write."""
    dataset = write(dataset_id, [max(1, length) for length in lengths], ends="u")
    dataset.storage.update_metadata({"total_steps": sum(lengths)})
    with h5py.File(root / dataset_id / "data" / "main_data.hdf5", "a") as file:
        for group in (file[f"episode_{index}"] for index, length in enumerate(lengths) if not length):
            for name, kept in {
                "observations": 1,
                "actions": 0,
                "rewards": 0,
                "terminations": 0,
                "truncations": 0,
            }.items():
                values = group[name][:kept]
                del group[name]
                group.create_dataset(name, data=values)


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [([0, 3], [3]), ([0, 0, 1, 0], [1]), ([1], [1]), ([1, 1, 1], [1, 1, 1]), ([2], [2]), ([5, 0, 1], [5, 1])],
)
def test_f22_episodes_of_no_or_one_step_and_sets_smaller_than_a_batch(
    lengths: list[int], rows: list[int], tmp_path: Path
) -> None:
    """Drawn with replacement, a batch is full whatever the set's size."""
    write_short("toy/short-v0", lengths, tmp_path)
    buffer = load_minari("toy/short-v0", batch_size=64)
    info = dataset_info(buffer)
    assert (info.episodes, info.transitions) == (len(rows), sum(rows))
    assert buffer[:]["next", "truncated"].flatten().nonzero().flatten().tolist() == [
        sum(rows[: index + 1]) - 1 for index in range(len(rows))
    ]
    batch = buffer.sample()
    assert batch["observation"].shape == (64, 3)
    stored = {tuple(row) for row in buffer[:]["observation"].tolist()}
    assert {tuple(row) for row in batch["observation"].tolist()} == stored


def test_f22_no_step_at_all(tmp_path: Path) -> None:
    write_short("toy/none-v0", [0, 0], tmp_path)
    with pytest.raises(ValueError, match=r"has no transitions\. Collect or download it again"):
        load_minari("toy/none-v0")


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (Box(-1, 1, (3,), np.float64), Box(-1, 1, (2,), np.float64), None),
        (Box(-5, 5, (3,), np.int64), Box(-2, 2, (2,)), None),
        (Box(-5, 5, (3,), np.int64), Box(-2, 2, (2,), np.int32), "of whole numbers. Supported: a Box of shape .A."),
        (Dict(a=Box(-1, 1, (2,)), b=Dict(c=Box(-1, 1, (1, 2)))), Box(-1, 1, (2,)), None),
        (Box(0, 255, (8, 8, 3), np.uint8), Box(-1, 1, (2,)), "Pixels are not supported"),
        (gymnasium.spaces.Discrete(4), Box(-1, 1, (2,)), "Supported: Box vectors and .nested. Dicts"),
        (Box(-1, 1, (3,)), gymnasium.spaces.Discrete(3), "Supported: a Box of shape .A."),
    ],
)
def test_f23_kinds_of_values(observation: Any, action: Any, message: str | None) -> None:
    spaces = {"observation_space": observation, "action_space": action}
    written = make_episodes([6, 4], **spaces)
    write_dataset("toy/kinds-v0", written, **spaces)
    if message:
        with pytest.raises(ValueError, match=message):
            load_minari("toy/kinds-v0")
        return
    rows = load_minari("toy/kinds-v0")[:]
    assert {rows[key].dtype for key in ("observation", "action", ("next", "observation"))} == {torch.float32}
    actions = np.concatenate([each["actions"] for each in written]) / float(action.high[0])
    np.testing.assert_allclose(rows["action"].numpy(), actions, rtol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "metadata", "metadata cut", "list"])
def test_f24_an_interrupted_download_is_named(tmp_path: Path, damage: str) -> None:
    write("toy/cheetah-v0", [50])
    data = tmp_path / "toy" / "cheetah-v0" / "data"
    if damage == "cut":
        content = (data / "main_data.hdf5").read_bytes()
        (data / "main_data.hdf5").write_bytes(content[: len(content) // 2])
    elif damage == "metadata":
        (data / "metadata.json").unlink()
    else:
        (data / "metadata.json").write_text("[]" if damage == "list" else '{"total_')
    with pytest.raises(RuntimeError, match=r"cannot be read .* delete that folder"):
        load_minari("toy/cheetah-v0")


def test_f24_fewer_transitions_than_stated_are_an_incomplete_dataset() -> None:
    dataset = write("toy/cheetah-v0", [5, 5])
    for stated in (9, 5):  # within an episode, at the end of one
        dataset.storage.update_metadata({"total_steps": stated})
        with pytest.raises(RuntimeError, match=f"states {stated} transitions but holds more"):
            load_minari("toy/cheetah-v0")
    dataset.storage.update_metadata({"total_steps": 12})
    with pytest.raises(RuntimeError, match="states 12 transitions but holds 10"):
        load_minari("toy/cheetah-v0")


CONVERSION = (reading, "verify_rows", lambda: load_minari("toy/source-v0", storage="memmap", storage_dir="rows"))
RECORDING = (MinariWriter, "publish", lambda: runs.run("collect", *runs.REACHER, "steps=60"))


@pytest.mark.parametrize(("owner", "name", "work"), [CONVERSION, RECORDING], ids=["conversion", "recording"])
def test_f24_a_kill_leaves_no_half_dataset(
    owner: Any, name: str, work: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows' files have no name and are gone with the process; a recorded dataset appears whole or not at all."""
    write("toy/source-v0", [30, 20])

    def killed() -> None:
        os.chdir(tmp_path)
        monkeypatch.setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        work()

    assert in_child(killed) == -signal.SIGKILL
    assert list(tmp_path.glob("rows/*")) == []
    assert list(minari.list_local_datasets()) == ["toy/source-v0"]
    assert len(load_minari("toy/source-v0", storage="memmap", storage_dir=tmp_path / "rows")) == 50


def test_f25_a_dataset_larger_than_the_memory_allowed(tmp_path: Path) -> None:
    """60 MB of rows, 40 MB of memory. At full size: python -m tests.support.memory 1000 FOLDER."""
    count = write_large_dataset(tmp_path, "toy/large-v0", 60)
    printed = load_in_a_process(tmp_path, "toy/large-v0", ["memmap", "memory"], limit=40)
    mapped, in_memory = printed.splitlines()
    assert mapped.startswith(f"memmap: {count + 300} rows")
    assert in_memory in ("memory: MemoryError", "memory: RuntimeError")


def test_f26_a_missing_dataset_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_minari("mujoco/hopper/medium-v0")
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "dataset.download=true (in Python download=True)" in message
    assert "minari download mujoco/hopper/medium-v0" in message
    with pytest.raises(FileNotFoundError, match=r"recipes/collect\.py task=hopper/medium$"):
        load_minari("o3f/hopper/medium-v0")
    assert list(tmp_path.iterdir()) == []


def test_f26_download_happens_only_when_asked_and_into_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()

    def download(dataset_id: str) -> None:
        assert os.environ["MINARI_DATASETS_PATH"] == str(root)
        write(dataset_id, [3])

    monkeypatch.setattr(minari, "download_dataset", download)
    assert len(load_minari("toy/cheetah-v0", download=True, root=root)) == 3
    assert os.environ["MINARI_DATASETS_PATH"] == str(tmp_path)
    monkeypatch.setattr(minari, "download_dataset", lambda dataset_id: 1 / 0)
    assert len(load_minari("toy/cheetah-v0", download=True, root=root)) == 3  # it is there: no download
    with pytest.raises(RuntimeError, match="Downloading 'toy/other-v0' failed"):
        load_minari("toy/other-v0", download=True, root=root)


@pytest.mark.parametrize(
    "dataset_id",
    [
        "../victim-v0",
        "/etc/x-v0",
        "a/../../b-v0",
        "",
        "x",
        "a/b",
        "a b-v0",
        "a\n-v0",
        "a-v0\n",
        "ä-v0",
        "a\0-v0",
        "~/a-v0",
    ],
)
def test_f27_anything_but_an_id_is_refused_before_a_path_is_built(dataset_id: str) -> None:
    with pytest.raises(ValueError, match="is not a Minari dataset id"):
        load_minari(dataset_id, download=True)


def test_f28_the_hash_is_that_of_the_content() -> None:
    episodes = make_episodes([4, 2], **SPACES)
    write_dataset("toy/one-v0", episodes, **SPACES)
    write_dataset("toy/two-v0", episodes, **SPACES)
    episodes[1]["rewards"][1] += 1e-3
    write_dataset("toy/three-v0", episodes, **SPACES)
    one, two, three = (dataset_hash(f"toy/{name}-v0") for name in ("one", "two", "three"))
    assert one == two != three
    assert one == dataset_info(load_minari("toy/one-v0", online_capacity=3)).hash
    assert one != dataset_hash("toy/one-v0", max_transitions=5)


def test_f28_a_run_is_not_continued_on_other_data(tmp_path: Path) -> None:
    """One value changed by a thousandth, under the same id."""
    written = make_episodes([4, 2], **SPACES)
    settings = {
        "runs": str(tmp_path / "runs"),
        "name": "a",
        "seed": 0,
        "task": {"name": "t"},
        "algorithm": {"name": "x"},
    }
    for resume in (False, True):
        dataset_id = f"toy/data{resume:d}-v0"
        write_dataset(dataset_id, written, **SPACES)
        with RunFolder.open(settings) as run:
            if resume:
                with pytest.raises(ConfigError, match=r"begun with something else .*dataset_hash: "):
                    run.record_environment(dataset_hash=dataset_hash(dataset_id))
            else:
                run.record_environment(dataset_hash=dataset_hash(dataset_id))
                (run.path / "metrics.csv").touch()
        written[1]["rewards"][1] += 1e-3
