"""What another version of a package changes in numbers: python docs/tools/bits.py FOLDER (prints digests as JSON).

FOLDER holds a checkpoint to load: the first run makes it, later ones, with other versions, read it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from tensordict import TensorDict

from o3f.algorithms import Learner, make_learner
from o3f.runs.checkpoint import load_latest, save

PACKAGES = ("torch", "torchrl", "tensordict", "gymnasium", "mujoco", "numpy")
TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5")
SIZES = {"hidden_sizes": (64, 64)}
STEPS, UPDATES, ROWS, OBSERVATION, ACTION = 200, 20, 64, 11, 3


def digest(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    """Eight hexadecimal digits of what the arrays hold."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:8]


def trajectory(task: str) -> str:
    """Observations of 200 steps with drawn actions, beginning again where an episode ends."""
    env, draw = gymnasium.make(task), np.random.default_rng(0)
    box = env.action_space
    assert isinstance(box, gymnasium.spaces.Box)
    seen = [env.reset(seed=0)[0]]
    for _ in range(STEPS):
        observation, _, terminated, truncated, _ = env.step(draw.uniform(box.low, box.high).astype(np.float32))
        seen.append(observation if not (terminated or truncated) else env.reset()[0])
    return digest(seen)


def rows() -> TensorDict:
    """A batch that NumPy draws, so that all versions see the same."""
    draw = np.random.default_rng(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(draw.standard_normal(shape).astype(np.float32))

    ends = torch.zeros(ROWS, 1, dtype=torch.bool)
    after = {"observation": normal(ROWS, OBSERVATION), "reward": normal(ROWS, 1), "done": ends, "terminated": ends}
    batch = {"observation": normal(ROWS, OBSERVATION), "action": normal(ROWS, ACTION).tanh(), "next": after}
    return TensorDict(batch, [ROWS])


def updated(learner: Learner) -> Learner:
    """The learner after 20 updates on one batch, from weights that NumPy draws."""
    draw = np.random.default_rng(2)
    with torch.no_grad():
        for parameter in learner.loss.parameters():
            drawn = np.asarray(draw.standard_normal(tuple(parameter.shape)), np.float32)
            parameter.copy_(torch.from_numpy(drawn).mul(0.1))
    for _ in range(UPDATES):
        learner.update([rows()])
    return learner


def weights(learner: Learner) -> list[np.ndarray[Any, Any]]:
    """All parameters and targets of a learner, by name."""
    return [value.numpy() for _, value in sorted(learner.loss.state_dict().items()) if isinstance(value, torch.Tensor)]


def loaded(folder: Path) -> str:
    """The parameters of the checkpoint; the first caller makes it."""
    learner = make_learner("iql", OBSERVATION, ACTION, SIZES)
    if load_latest(folder, {"learner": learner}) is None:
        save(folder, UPDATES, {"learner": updated(learner)})
    return digest(weights(learner))


def main(folder: Path) -> None:
    """Print the versions and the digests."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {name: version(name) for name in PACKAGES}
    found |= {task: trajectory(task) for task in TASKS}
    for name in ("iql", "awac", "cql"):
        torch.manual_seed(0)
        found[name] = digest(weights(updated(make_learner(name, OBSERVATION, ACTION, SIZES))))
    print(json.dumps(found | {"checkpoint": loaded(folder)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
