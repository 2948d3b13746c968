"""What all workers are made from, whatever starts their processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict.nn import TensorDictModuleBase
from torchrl.envs import EnvBase, GymWrapper, InitTracker, TransformedEnv

from o3f.collection.noting import Noting, noting_making
from o3f.collection.steps import Settings
from o3f.envs import EnvConfig, make_gym_env
from o3f.envs.seeds import seed_streams
from o3f.envs.wrappers import Env


class WorkersLost(RuntimeError):
    """A worker is dead, or there was no answer in time: the others are of no use any more."""


@dataclass(frozen=True)
class WorkerEnv:
    """Makes a worker's environment, in the worker's process.

    Attributes:
        config: the environment.
        seed: of its episodes and of the process's random streams.
        max_failures: of the environment in a row.
        tracked: whether the actor asks for ``is_init``.
        precision: of float32 matrix products in the worker's process, which acts as the run's would.
        notes: file for what the environment raises and warns of; None where the launcher passes errors on itself.
    """

    config: EnvConfig
    seed: int
    max_failures: int
    tracked: bool
    precision: str
    notes: str | None = None

    def __call__(self) -> EnvBase:
        """Make it. Ctrl-C is left to the process of the run, which ends this one; without it, this one ends itself."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked process has the run's own answer
        threading.Thread(target=_end_with_parent, daemon=True).start()
        wrapped = GymWrapper(self._make(), device="cpu")
        seed_streams(self.seed)
        torch.set_float32_matmul_precision(self.precision)
        return TransformedEnv(wrapped, InitTracker()) if self.tracked else wrapped

    def _make(self) -> Env:
        if self.notes is None:
            return make_gym_env(self.config, seed=self.seed, max_failures=self.max_failures)
        with noting_making(Path(self.notes)):
            env = make_gym_env(self.config, seed=self.seed, max_failures=self.max_failures)
        return Noting(env, Path(self.notes))


def _end_with_parent() -> None:
    """TorchRL's own way out needs a step that ends."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def worker_seed(seed: int, worker: int, start: int) -> int:
    """The seed of one worker's episodes: a hash of three numbers (NumPy's ``SeedSequence``), 63 bits.

    Examples:
        >>> len({worker_seed(seed, worker, start) for seed in range(9) for worker in range(9) for start in range(9)})
        729
    """
    return int(np.random.SeedSequence([seed, worker, start]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def worker_envs(
    settings: Settings, actor: TensorDictModuleBase, start: int, notes: Path | None = None
) -> list[WorkerEnv]:
    """What makes the environment of each worker."""
    return [
        WorkerEnv(
            settings.env,
            worker_seed(settings.seed, worker, start),
            settings.max_failures,
            "is_init" in actor.in_keys,
            torch.get_float32_matmul_precision(),
            str(notes / str(worker)) if notes else None,
        )
        for worker in range(settings.num_workers)
    ]


def collector_options(settings: Settings, step: int) -> dict[str, Any]:
    """What TorchRL's collectors of several environments are told alike."""
    return {
        "frames_per_batch": settings.num_workers,
        "total_frames": 2**62,  # the run counts its steps itself
        "init_random_frames": max(0, settings.random_steps - step),
        "env_device": "cpu",
        "storing_device": "cpu",
    }
