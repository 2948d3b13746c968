"""Observations are flattened in one order, the same for one of them and for many."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from o3f.data import observation_layout


def box(*shape: int, dtype: Any = np.float64) -> Box:
    return Box(-1.0, 1.0, shape, dtype)


GOALS = Dict(observation=box(3), desired_goal=box(2), achieved_goal=Dict(kettle=box(1), burner=box(2, 2)))
ONE = {
    "observation": np.array([1.0, 2.0, 3.0]),
    "desired_goal": np.array([4.0, 5.0]),
    "achieved_goal": {"kettle": np.array([6.0]), "burner": np.array([[7.0, 8.0], [9.0, 10.0]])},
}


def test_dict_is_concatenated_alphabetically_and_nested() -> None:
    layout = observation_layout(GOALS)
    assert layout.size == 10
    flat = layout.flatten(ONE)
    assert flat.dtype == np.float32
    assert flat.tolist() == [7, 8, 9, 10, 6, 4, 5, 1, 2, 3]


def test_chosen_keys_in_the_chosen_order() -> None:
    layout = observation_layout(GOALS, ["observation", "achieved_goal/kettle"])
    assert layout.flatten(ONE).tolist() == [1, 2, 3, 6]
    assert observation_layout(GOALS, ["achieved_goal"]).flatten(ONE).tolist() == [7, 8, 9, 10, 6]


def test_order_does_not_depend_on_how_the_space_was_ordered() -> None:
    ordered = Dict([("z", box(1)), ("a", box(1))])
    plain = Dict({"a": box(1), "z": box(1)})
    assert list(ordered) != list(plain)
    assert observation_layout(ordered).paths == observation_layout(plain).paths == (("a",), ("z",))


def test_many_observations_give_the_rows_of_one() -> None:
    layout = observation_layout(GOALS)
    GOALS.seed(0)
    singles: list[Any] = [GOALS.sample() for _ in range(4)]
    batch = {
        "observation": np.stack([each["observation"] for each in singles]),
        "desired_goal": np.stack([each["desired_goal"] for each in singles]),
        "achieved_goal": {
            key: np.stack([each["achieved_goal"][key] for each in singles]) for key in ("kettle", "burner")
        },
    }
    assert np.array_equal(layout.flatten(batch), np.stack([layout.flatten(each) for each in singles]))


def test_flat_box_passes_through_as_a_float32_copy() -> None:
    layout = observation_layout(box(3))
    given = np.array([0.1, 0.2, 0.3], dtype=np.float32)
    flat = layout.flatten(given)
    assert np.array_equal(flat, given)
    assert not np.shares_memory(flat, given)
    assert layout.flatten(np.zeros((0, 3))).shape == (0, 3)


def test_flat_space_has_the_bounds_of_its_parts() -> None:
    layout = observation_layout(Dict(b=Box(-2.0, 3.0, (2,)), a=Box(0.0, np.inf, (1,))))
    assert layout.space == Box(np.float32([0, -2, -2]), np.float32([np.inf, 3, 3]), dtype=np.float32)


def test_the_layout_of_a_real_goal_environment() -> None:
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make("PointMaze_UMaze-v3")
    observation, _ = env.reset(seed=0)
    expected = np.concatenate([observation[key] for key in ("achieved_goal", "desired_goal", "observation")])
    assert np.array_equal(observation_layout(env.observation_space).flatten(observation), expected.astype(np.float32))
    env.close()


@pytest.mark.parametrize(
    ("space", "keys", "error", "message"),
    [
        (GOALS, ["achieved_goal/ketle"], KeyError, "Nearest: achieved_goal/kettle"),
        (GOALS, ["nothing"], KeyError, "achieved_goal/burner"),
        (GOALS, [], ValueError, "Name at least one key"),
        (GOALS, ["achieved_goal", "achieved_goal/kettle"], ValueError, "twice"),
        (box(3), ["observation"], ValueError, "Leave them out"),
        (Discrete(3), None, ValueError, "Supported: Box vectors"),
        (Dict(mode=Discrete(3)), None, ValueError, "'mode'"),
        (Box(0, 255, (8, 8, 3), np.uint8), None, ValueError, "Pixels are not supported"),
    ],
)
def test_what_cannot_be_flattened_says_why(
    space: gymnasium.Space[Any], keys: list[str] | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        observation_layout(space, keys)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"a": np.zeros(2)}, "no 'b'"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, r"'b' has shape \(3,\), expected \[\*B\] \+ \[1\]"),
        ({"a": np.zeros((5, 2)), "b": np.zeros((4, 1))}, "differ in length"),
    ],
)
def test_observations_that_do_not_fit_their_space(observation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        observation_layout(Dict(a=box(2), b=box(1))).flatten(observation)
