"""A checkpoint comes back exactly, or not at all."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from o3f.errors import CheckpointError
from o3f.runs.checkpoint import checkpoints, load_component, load_latest, save
from o3f.runs.counters import Counters
from o3f.runs.stateful import StateOf
from tests.support.boxes import Box, steps_in


def test_everything_comes_back_exactly(tmp_path):
    rows = TensorDict({"action": torch.rand(5, 2), "next": {"reward": torch.rand(5, 1)}}, [5])
    state = {
        "float32": torch.tensor([0.1, float("nan"), -0.0]),
        "scalar": torch.tensor(1 / 3, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "numpy": np.array([1.5, 2.5], dtype=np.float32),
        "exact": 0.1 + 0.2,
        "large": 2**70,
        3: (None, "text", [1, 2]),
        "rows": rows,
    }
    received = {}
    save(
        tmp_path,
        7,
        {"state": StateOf(lambda: state, received.update), "counters": Counters(step=7, episode=4)},
        {"env": "a"},
    )
    counters = Counters(failures=1)
    metadata = load_latest(tmp_path, {"state": StateOf(dict, received.update), "counters": counters})
    assert metadata == {"env": "a", "step": 7}
    assert counters == Counters(step=7, episode=4)
    assert list(received) == list(state)
    for key in ("float32", "scalar", "empty", "flags"):
        assert received[key].dtype == state[key].dtype
        torch.testing.assert_close(received[key], state[key], rtol=0, atol=0, equal_nan=True)
    np.testing.assert_array_equal(received["numpy"], state["numpy"], strict=True)
    assert (received["exact"], received["large"], received[3]) == (state["exact"], state["large"], state[3])
    assert torch.equal(received["rows"]["next"]["reward"], rows["next", "reward"])


def train(net, optimiser, counters, steps):
    while counters.step < steps:
        optimiser.zero_grad()
        net(torch.randn(8, 4) * np.random.rand() + random.random()).square().mean().backward()  # noqa: NPY002
        optimiser.step()
        counters.step += 1


def agent():
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    return net, torch.optim.Adam(net.parameters(), lr=1e-2), Counters()


def test_a_resumed_run_ends_bit_equal(tmp_path):
    net, optimiser, counters = agent()
    train(net, optimiser, counters, 20)
    save(tmp_path, 20, {"net": net, "optimiser": optimiser, "counters": counters})
    train(net, optimiser, counters, 40)

    other, other_optimiser, other_counters = agent()  # draws initial weights: the streams are elsewhere now
    load_latest(tmp_path, {"net": other, "optimiser": other_optimiser, "counters": other_counters})
    assert other_counters == Counters(step=20)
    train(other, other_optimiser, other_counters, 40)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.rand()), random.random()  # noqa: NPY002


def test_random_streams_are_restored_last_and_saving_leaves_them_alone(tmp_path):
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(1)
    expected = draws()
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(1)
    save(tmp_path, 0, {"z": Box(1)})
    assert draws() == expected
    # "z" comes after "rng" in the alphabet and draws while it is restored.
    load_latest(tmp_path, {"z": Box(0, on_load=draws)})
    assert draws() == expected


def test_the_newest_are_kept_and_a_later_step_is_forgotten(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, {"box": Box(step)})
    assert steps_in(tmp_path) == [20, 30]
    checkpoints(tmp_path)[-1].write_bytes(b"")
    box = Box(0)
    with pytest.warns(UserWarning, match="step_000000000030"):
        assert load_latest(tmp_path, {"box": box}) == {"step": 20}
    save(tmp_path, 25, {"box": Box(25)})
    assert steps_in(tmp_path) == [20, 25]
    files_of_each = [f"step_0000000000{step}.ckpt{end}" for step in (20, 25) for end in ("", ".sha256")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest", *files_of_each]
    save(tmp_path, 26, {"box": Box(26)}, keep=1)
    assert steps_in(tmp_path) == [26]


def test_missing_components_and_folders_are_named(tmp_path):
    assert load_latest(tmp_path / "nothing", {"box": Box(0)}) is None
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_component(tmp_path, "box")
    save(tmp_path, 5, {"box": Box(5)})
    with pytest.raises(CheckpointError, match=r"no component \['learner'\]; it has \['box', 'rng'\]"):
        load_latest(tmp_path, {"learner": Box(0)})
    with pytest.raises(ValueError, match="'rng' is the name"):
        save(tmp_path, 5, {"rng": Box(0)})


def test_one_component_can_be_read_alone(tmp_path):
    source = torch.nn.Linear(3, 2)
    save(tmp_path, 5, {"learner": source, "box": Box(5)})
    before = torch.get_rng_state()
    state = load_component(tmp_path, "learner")
    assert torch.equal(before, torch.get_rng_state())
    target = torch.nn.Linear(3, 2)
    target.load_state_dict(state)
    assert torch.equal(target.weight, source.weight)
    assert torch.equal(target.bias, source.bias)
