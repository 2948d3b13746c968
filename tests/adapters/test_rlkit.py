"""Agents of rlkit give the numbers that a plain forward pass in NumPy gives; files that hold none are refused."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.adapters import Agent, agent_digest, from_tensors, is_agent, load_agent
from o3f.errors import ConfigError

Arrays = dict[str, npt.NDArray[Any]]
OBSERVATIONS, ACTIONS = 5, 3


def made_up(hidden: tuple[int, ...] = (7, 6), critics: int = 2, seed: int = 0) -> Arrays:
    """The arrays of an agent; one log-std leaves the bounds on either side."""
    rng = np.random.default_rng(seed)

    def network(name: str, inputs: int, heads: dict[str, int]) -> Arrays:
        sizes, arrays = [inputs, *hidden], {}
        for index, width in enumerate(hidden):
            arrays |= {f"{name}.fc{index}.weight": rng.normal(size=(width, sizes[index])) / math.sqrt(sizes[index])}
            arrays |= {f"{name}.fc{index}.bias": rng.normal(size=width)}
        for head, outputs in heads.items():
            arrays |= {f"{name}.{head}.weight": rng.normal(size=(outputs, sizes[-1])) / math.sqrt(sizes[-1])}
            arrays |= {f"{name}.{head}.bias": rng.normal(size=outputs)}
        return arrays

    arrays = network("policy", OBSERVATIONS, {"last_fc": ACTIONS, "last_fc_log_std": ACTIONS})
    for number in range(1, critics + 1):
        arrays |= network(f"qf{number}", OBSERVATIONS + ACTIONS, {"last_fc": 1})
    arrays["policy.last_fc_log_std.bias"] = np.array([-30.0, 0.5, 30.0])
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def forward(arrays: Arrays, name: str, rows: npt.NDArray[np.float64], head: str = "last_fc") -> npt.NDArray[np.float64]:
    """A head of one network, in plain float64."""
    depth = sum(key.startswith(f"{name}.fc") and key.endswith(".weight") for key in arrays)
    for layer in [*(f"fc{index}" for index in range(depth)), head]:
        weight, bias = (arrays[f"{name}.{layer}.{part}"].astype(np.float64) for part in ("weight", "bias"))
        rows = np.array([[float(weight[out] @ row) + bias[out] for out in range(len(bias))] for row in rows])
        rows = np.maximum(rows, 0.0) if layer != head else rows
    return rows


def expected(arrays: Arrays, observation: npt.NDArray[Any], action: npt.NDArray[Any]) -> dict[str, Any]:
    """What rlkit's SAC says of observations and actions."""
    observation, action = observation.astype(np.float64), action.astype(np.float64)
    loc = forward(arrays, "policy", observation)
    log_std = np.clip(forward(arrays, "policy", observation, "last_fc_log_std"), -20.0, 2.0)
    z = (np.arctanh(action) - loc) / np.exp(log_std)
    density = -0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi) - np.log1p(-(action**2))
    pairs = np.concatenate([observation, action], 1)
    names = sorted({name.split(".")[0] for name in arrays if name.startswith("qf")})
    q = np.concatenate([forward(arrays, name, pairs) for name in names], 1)
    return {"mean": np.tanh(loc), "loc": loc, "log_std": log_std, "log_prob": density.sum(1), "q": q}


@torch.no_grad()
def found(agent: Agent, observation: npt.NDArray[Any], action: npt.NDArray[Any]) -> dict[str, torch.Tensor]:
    rows: Any = {"observation": torch.from_numpy(observation), "action": torch.from_numpy(action)}
    td = TensorDict(rows, [len(observation)])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        acted = agent.policy(td.select("observation"))
    said = {"mean": acted["action"], "loc": acted["loc"], "log_std": acted["scale"].log()}
    said["log_prob"] = agent.policy.get_dist(td.select("observation")).log_prob(td["action"])
    return {**said, "q": agent.critic(td)["state_action_value"]}


@pytest.mark.parametrize(("hidden", "critics"), [((7, 6), 2), ((4, 4, 4), 3), ((5,), 1), ((), 2)])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_numbers_are_those_of_a_plain_forward_pass(
    hidden: tuple[int, ...], critics: int, suffix: str, tmp_path: Path
) -> None:
    arrays, file = made_up(hidden, critics), tmp_path / f"agent{suffix}"
    if suffix == ".npz":
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    else:
        save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, file)
    agent = load_agent(str(file))
    rng = np.random.default_rng(1)
    observation = (2 * rng.normal(size=(6, OBSERVATIONS))).astype(np.float32)
    action = rng.uniform(-0.9, 0.9, size=(6, ACTIONS)).astype(np.float32)
    said, right = found(agent, observation, action), expected(arrays, observation, action)
    for name in ("mean", "loc", "log_std", "q"):
        np.testing.assert_allclose(said[name], right[name], rtol=2e-5, atol=2e-5)
    assert right["log_std"][:, [0, 2]].min(0).tolist() == [-20.0, 2.0]
    assert (agent.critic.num_critics, agent.temperature) == (critics, None)
    assert agent.origin == f"{file} (rlkit)"


def test_the_log_probability_is_that_of_a_gaussian_squashed_by_a_tanh() -> None:
    arrays = made_up()  # with none of its deviations at a bound, where densities are beyond a float's precision
    arrays["policy.last_fc_log_std.bias"] = np.array([-1.0, 0.5, 1.0], np.float32)
    rng = np.random.default_rng(2)
    observation = rng.normal(size=(6, OBSERVATIONS)).astype(np.float32)
    action = rng.uniform(-0.9, 0.9, size=(6, ACTIONS)).astype(np.float32)
    said = found(from_tensors(arrays), observation, action)["log_prob"]
    np.testing.assert_allclose(said, expected(arrays, observation, action)["log_prob"], rtol=1e-5, atol=1e-5)


def test_what_else_a_file_may_hold() -> None:
    arrays = made_up()
    targets = {f"target_{name}": array for name, array in arrays.items() if name.startswith("qf")}
    agent = from_tensors({**arrays, **targets, "log_alpha": np.array([-1.5])})
    assert agent.temperature == pytest.approx(math.exp(-1.5))
    assert from_tensors({name: array for name, array in arrays.items() if name.startswith("policy")}).critic is None
    mean, std = np.full(OBSERVATIONS, 0.5, np.float32), np.full(OBSERVATIONS, 2.0, np.float32)
    scaled = from_tensors({**arrays, "observation_mean": mean, "observation_std": std})
    observation, action = np.ones((2, OBSERVATIONS), np.float32), np.zeros((2, ACTIONS), np.float32)
    right = expected(arrays, (observation - mean) / std, action)
    for name in ("mean", "q"):
        np.testing.assert_allclose(found(scaled, observation, action)[name], right[name], rtol=2e-5, atol=2e-5)


def test_the_state_dicts_of_a_snapshot_are_the_same_agent() -> None:
    arrays = made_up()
    nested: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        network, _, rest = name.partition(".")
        nested.setdefault(network, {})[rest] = torch.from_numpy(array)
    assert agent_digest(from_tensors(nested)) == agent_digest(from_tensors(arrays))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy.last_fc_log_std.weight": None}, r"there is no tensor 'policy\.last_fc_log_std\.weight'"),
        ({"policy.last_fc_log_std.weight": np.zeros((2, 6)), "policy.last_fc_log_std.bias": np.zeros(2)}, "differ"),
        ({"policy.fc0.bias": np.array([math.nan] * 7)}, r"policy\.fc0\.bias holds numbers that are not finite"),
        ({"policy.fc0.bias": np.array([1e300] * 7)}, r"policy\.fc0\.bias holds numbers that are not finite"),
        ({"policy.fc0.weight": np.zeros((5, 7))}, r"policy\.fc0\.bias has shape \[7\], expected \[5\]"),
        ({"policy.fc0.weight": None, "policy.fc0.bias": None}, r"numbers after policy\.fc are \[1\], expected \[0\]"),
        ({"qf2.fc1.weight": np.zeros((6, 9))}, r"layers of qf2 do not fit together .*\(9, 6\)"),
        ({"qf1.layer_norm0.weight": np.zeros(7)}, r"these tensors are not known: qf1\.layer_norm0\.weight \[7\]"),
        ({"vf.fc0.weight": np.zeros((7, 5))}, r"these tensors are not known: vf\.fc0\.weight"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    arrays = {name: array for name, array in {**made_up(), **changes}.items() if array is not None}
    np.savez(tmp_path / "agent.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        load_agent(str(tmp_path / "agent.npz"))


def test_critics_without_a_number_in_their_row_are_refused() -> None:
    arrays = {name.replace("qf1.", "qf3."): array for name, array in made_up().items()}
    with pytest.raises(ConfigError, match=r"numbers after qf are \[2, 3\], expected \[1, 2\]"):
        from_tensors(arrays)


def write(file: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def header_of(shape: tuple[int, ...]) -> bytes:
    """An array of this shape without its content."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "<f4"})
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.write_bytes(b"PK nothing"), r"is no readable \.npz file of plain arrays"),
        (lambda file: file.write_bytes(b""), r"is no readable \.npz file of plain arrays"),
        (lambda file: np.savez(file, a=np.array(["x"], object)), r"is no readable .*Object arrays cannot be loaded"),
        (lambda file: np.savez(file, a=np.array(["x"])), r"a holds <U1, expected floating-point numbers"),
        (lambda file: np.savez(file, a=np.array([1])), r"a holds int64, expected floating-point numbers"),
        (lambda file: write(file, {"a": b"text"}), r"a holds no array, expected floating-point numbers"),
        (lambda file: write(file, {"a.npy": header_of((10**9,))}), r"is no readable"),
        (lambda file: write(file, {"a.npy": header_of((10**18,))}), r"is no readable"),
        (lambda file: np.savez(file, w0=np.zeros(2)), "its tensors have no names of CORL, .*: w0"),
    ],
)
def test_files_that_hold_no_agent(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make(tmp_path / "agent.npz")
    with pytest.raises(ConfigError, match=message):
        load_agent(str(tmp_path / "agent.npz"))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("o3f.adapters.files.MAX_BYTES", 10_000)
    np.savez_compressed(tmp_path / "agent.npz", a=np.zeros(10_000))
    with pytest.raises(ConfigError, match="would unpack to 80,128 bytes, expected at most 10,000"):
        load_agent(str(tmp_path / "agent.npz"))


def test_a_name_with_npz_is_an_agent() -> None:
    assert is_agent("agent.npz")
    assert not is_agent("runs/npz")
