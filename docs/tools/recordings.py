"""What ways of recording leave in the data, as seen: python docs/tools/recordings.py (writes into docs/own-data.md)."""

from __future__ import annotations

import os
import sys
import tempfile
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import Autoreset
from tensordict import TensorDict
from torch.utils._pytree import tree_map
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, SerialEnv

from docs.tools.sections import put
from o3f.data import dataset_info, load_file, load_minari

Recorder = Callable[[str], Any]
STEPS, ENVS = 40, 2
TALLY = "Tally-v0"


class Tally(gymnasium.Env[Any, Any]):
    """Observation (episode, step, last action, or a random number), reward = step; odd episodes terminate after 3."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)
    episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin the next episode."""
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return np.array([self.episode, 0, self.np_random.normal()], np.float32), {}

    def step(self, action: Any) -> Any:
        """Count, and tell the action."""
        self.count += 1
        observation = np.array([self.episode, self.count, action[0]], np.float32)
        return observation, float(self.count), self.episode % 2 == 1 and self.count == 3, False, {}


def make() -> gymnasium.Env[Any, Any]:
    """The environment with a limit of 5 steps."""
    if TALLY not in gymnasium.registry:
        gymnasium.register(TALLY, entry_point=f"{Tally.__module__}:Tally", max_episode_steps=5)
    return gymnasium.make(TALLY)


@contextmanager
def recording() -> Iterator[None]:
    """Stand in for JAX, of which Minari's recorder needs ``tree_map`` only (left in place it would be TorchRL's)."""
    if "jax" not in sys.modules:
        tree_util = types.ModuleType("jax.tree_util")
        tree_util.tree_map = tree_map  # type: ignore[attr-defined]
        jax = types.ModuleType("jax")
        jax.tree_util = tree_util  # type: ignore[attr-defined]
        sys.modules |= {"jax": jax, "jax.tree_util": tree_util}
    try:
        yield
    finally:
        for name in ("jax", "jax.tree_util"):
            if getattr(sys.modules.get(name), "__spec__", None) is None:
                sys.modules.pop(name, None)


def save(recorder: minari.DataCollector, name: str) -> None:
    """Write what was recorded, and remove the folder that the recorder leaves to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, and about the folder before
        recorder.create_dataset(name)
    recorder._tmp_dir.cleanup()


def collector(wrap: Callable[[Any], Any] = lambda env: env, *, inside: bool = False) -> Recorder:
    """Minari's ``DataCollector`` around a wrapper, or inside of it; its user resets where no wrapper does."""

    def record(name: str) -> Any:
        inner = minari.DataCollector(make() if inside else wrap(make()))
        env = wrap(inner) if inside else inner
        env.action_space.seed(0)
        env.reset(seed=0)
        with recording():
            for _ in range(STEPS * ENVS):
                *_, terminated, truncated, _ = env.step(env.action_space.sample())
                if (terminated or truncated) and Autoreset not in (type(env), type(inner.env)):
                    env.reset()
        save(inner, name)
        return load_minari

    return record


def inside_vector(mode: AutoresetMode) -> Recorder:
    """A ``DataCollector`` in each environment of a vector; the first one's data."""

    def record(name: str) -> Any:
        inner = [minari.DataCollector(make()) for _ in range(ENVS)]
        envs = SyncVectorEnv([lambda each=each: each for each in inner], autoreset_mode=mode)
        with recording():
            for _ in steps_of(envs, mode, STEPS * ENVS):
                pass
        for number, each in enumerate(inner):
            save(each, name if number == 0 else f"tally/other{number}{name.split('/')[1]}")
        return load_minari

    return record


def steps_of(envs: Any, mode: AutoresetMode, count: int) -> Iterator[dict[str, Any]]:
    """Step a vectorised environment by random actions, and reset where its mode leaves that to us."""
    envs.action_space.seed(0)
    now, _ = envs.reset(seed=0)
    for _ in range(count):
        action = envs.action_space.sample()
        after, reward, terminated, truncated, info = envs.step(action)
        yield {
            "observations": now.copy(),
            "actions": action,
            "rewards": reward,
            "terminals": terminated,
            "timeouts": truncated,
            "next_observations": after.copy(),
            "info": info,
        }
        ended = terminated | truncated
        now = after
        if mode is AutoresetMode.DISABLED and ended.any():
            now, _ = envs.reset(options={"reset_mask": ended})


def loop(mode: AutoresetMode, *, following: bool = True, final: bool = False) -> Recorder:
    """Arrays of a loop of one's own, environment after environment, as a file."""

    def record(name: str) -> Any:
        rows = list(steps_of(SyncVectorEnv([make] * ENVS, autoreset_mode=mode), mode, STEPS))
        infos = [row.pop("info") for row in rows]
        arrays = {key: np.stack([row[key] for row in rows], axis=1) for key in rows[0]}
        for step, info in enumerate(infos if final else ()):
            for env in np.flatnonzero(info.get("_final_obs", ())):
                arrays["next_observations"][env, step] = info["final_obs"][env]
        return _file(name, arrays, following)

    return record


def torchrl(env: Callable[[], Any], num_envs: int) -> Recorder:
    """What TorchRL's collector returns of so many environments, as a file."""

    def record(name: str) -> Any:
        frames = STEPS * ENVS
        source = Collector(env(), None, frames_per_batch=frames, total_frames=frames)
        (rows,) = (each.reshape(num_envs, -1) for each in source)
        source.shutdown()
        names = {"actions": "action", "observations": "observation", "next_observations": ("next", "observation")}
        flags = {"rewards": "reward", "terminals": "terminated", "timeouts": "truncated"}
        arrays = {name: rows[key].numpy() for name, key in names.items()}
        arrays |= {name: rows["next", key].squeeze(-1).numpy() for name, key in flags.items()}
        return _file(name, arrays, following=True)

    return record


def _file(name: str, arrays: dict[str, Any], following: bool) -> Any:
    if not following:
        del arrays["next_observations"]
    path = Path(os.environ["MINARI_DATASETS_PATH"]) / f"{name.replace('/', '-')}.npz"
    np.savez(path, **{key: values.reshape(-1, *values.shape[2:]) for key, values in arrays.items()})
    return lambda _, **options: load_file(path, **options)


def one() -> GymWrapper:
    """TorchRL's wrapper of one environment."""
    return GymWrapper(make())


def vector(mode: AutoresetMode) -> Callable[[], Any]:
    """TorchRL's wrapper of a vectorised environment."""
    return lambda: GymWrapper(SyncVectorEnv([make] * ENVS, autoreset_mode=mode))


NEXT, SAME, NONE = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
IN_EACH, LOOP = "a `DataCollector` in each environment of a vector", "a loop over a vector"
WAYS: dict[str, Recorder] = {
    "Minari's `DataCollector`, and `reset()` at each end": collector(),
    "`DataCollector(Autoreset(env))`": collector(Autoreset),
    "`Autoreset(DataCollector(env))`": collector(Autoreset, inside=True),
    f"{IN_EACH}, next-step mode": inside_vector(NEXT),
    f"{IN_EACH}, same-step mode": inside_vector(SAME),
    f"{IN_EACH}, disabled mode": inside_vector(NONE),
    f"{LOOP}, next-step mode": loop(NEXT),
    f"{LOOP}, next-step mode, no `next_observations`": loop(NEXT, following=False),
    f"{LOOP}, same-step mode, what `step` returned": loop(SAME),
    f"{LOOP}, same-step mode, no `next_observations`": loop(SAME, following=False),
    f"{LOOP}, same-step mode, with `info['final_obs']`": loop(SAME, final=True),
    f"{LOOP}, disabled mode, `reset` with `reset_mask`": loop(NONE),
    f"{LOOP}, disabled mode, no `next_observations`": loop(NONE, following=False),
    "TorchRL's `Collector`, one environment": torchrl(one, 1),
    "TorchRL's `Collector`, `SerialEnv`": torchrl(lambda: SerialEnv(ENVS, one), ENVS),
    "TorchRL's `Collector`, `GymWrapper` of a vector, same-step mode": torchrl(vector(SAME), ENVS),
    "TorchRL's `Collector`, `GymWrapper` of a vector, disabled mode": torchrl(vector(NONE), ENVS),
}


KINDS = ("real", "resets", "false ends, cut off", "false ends, terminal", "terminal, next one unknown")


def classify(rows: TensorDict) -> dict[str, int]:
    """Count what rows of Tally are, by their numbers: episode, step and action stand in the observations."""
    now, then, after = rows["observation"], rows["next", "observation"], rows["next"]
    terminated, acted = after["terminated"].squeeze(-1), after["reward"].squeeze(-1) != 0
    real = (now[:, 0] == then[:, 0]) & (then[:, 1] == now[:, 1] + 1) & (then[:, 2:] == rows["action"]).all(1)
    own = (now == then).all(1)  # the next observation of a terminal step, where the file has none
    return {
        "real": int(real.sum()),
        "terminal, next one unknown": int((own & terminated).sum()),
        "resets": int((~real & ~acted).sum()),
        "false ends, cut off": int((~real & ~own & acted & ~terminated).sum()),
        "false ends, terminal": int((~real & ~own & acted & terminated).sum()),
    }


def try_way(record: Recorder, name: str, **options: Any) -> tuple[dict[str, int], list[str], Any]:
    """Record, load; return what the rows are, the warnings, and what the loader counted."""
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("MINARI_DATASETS_PATH")
        os.environ["MINARI_DATASETS_PATH"] = folder
        try:
            load = record(name)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                buffer = load(name, **options)
            return classify(buffer[:]), [str(each.message) for each in told], dataset_info(buffer)
        finally:
            os.environ.pop("MINARI_DATASETS_PATH")
            if before is not None:
                os.environ["MINARI_DATASETS_PATH"] = before


def says(name: str, record: Recorder, told: list[str], changes: dict[str, int]) -> str:
    """What o3f says of the data."""
    words = []
    if any("reset_steps=drop" in each for each in told):
        left = try_way(record, name, reset_steps="drop")
        words.append(f"warns; `reset_steps=drop` leaves {left[0]['real']} real and {left[0]['resets']} false")
    if any("final_obs" in each for each in told):
        words.append("warns")
    if lost := changes.get("dataset_dropped_rows"):
        words.append(f"leaves out {lost} rows that were cut off")
    return "; ".join(words)


def table() -> str:
    """The section of the page."""
    head = ["recorded by", "transitions", *KINDS, "o3f"]
    lines = [head, ["---", *["--:"] * (len(head) - 2), "---"]]
    for number, (way, record) in enumerate(WAYS.items()):
        name = f"tally/way{number}-v0"
        found, told, info = try_way(record, name)
        counts = [str(found[kind] or "") for kind in KINDS]
        lines.append([way, str(info.transitions), *counts, says(name, record, told, info.changes)])
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |") for cells in lines)


if __name__ == "__main__":
    versions = ", ".join(f"{name} {version(name)}" for name in ("minari", "gymnasium", "torchrl"))
    put("recordings", f"{table()}\n\nSeen with {versions}.")
