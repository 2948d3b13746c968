"""Environments in processes of their own on this machine: TorchRL's collector, made to survive dead and hung ones.

The workers act on the CPU with a copy of the actor in memory that all processes share. It is brought up to date before
each step, while they wait, so nothing is sent and no answer is waited for.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import MultiSyncCollector
from torchrl.envs import EnvBase, GymWrapper, InitTracker, TransformedEnv

from o3f import build
from o3f.envs import EnvConfig, make_gym_env
from o3f.envs.wrappers import Env, Reset, Step, Wrapper
from o3f.errors import ActionError, EnvironmentFailure
from o3f.watchdog import Watchdog

START = 300.0
"""Seconds that the processes have to start."""

_KNOWN = {error.__name__: error for error in (ActionError, EnvironmentFailure)}


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
        notes: file for what the environment raises; None where the launcher passes errors on itself.
    """

    config: EnvConfig
    seed: int
    max_failures: int
    tracked: bool
    notes: str | None = None

    def __call__(self) -> EnvBase:
        """Make it. Ctrl-C is left to the process of the run, which ends this one; without it, this one ends itself."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a forked process has the run's own answer
        threading.Thread(target=_end_with_parent, daemon=True).start()
        env = make_gym_env(self.config, seed=self.seed, max_failures=self.max_failures)
        if self.notes is not None:
            env = Noting(env, Path(self.notes))
        wrapped = GymWrapper(env, device="cpu")
        build.seed_streams(self.seed)
        return TransformedEnv(wrapped, InitTracker()) if self.tracked else wrapped


def _end_with_parent() -> None:
    """TorchRL's own way out needs a step that ends."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


class Noting(Wrapper):
    """Writes what an environment raises into a file, because no process can raise anything in another one."""

    def __init__(self, env: Env, file: Path) -> None:
        super().__init__(env)
        self.file = file

    def step(self, action: Any) -> Step:
        """Step."""
        with self._noting():
            return self.env.step(action)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Reset."""
        with self._noting():
            return self.env.reset(seed=seed, options=options)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.file.write_text(f"{type(error).__name__}\n{error}", encoding="utf-8")
            raise


def raise_noted(folder: Path) -> None:
    """Raise what a worker's environment has raised, if any did: our own errors as such, others as RuntimeError."""
    for file in sorted(folder.iterdir()):
        kind, _, message = file.read_text(encoding="utf-8").partition("\n")
        raise _KNOWN[kind](message) if kind in _KNOWN else RuntimeError(f"worker {file.name}: {kind}: {message}")


class Acting:
    """Acts with a module; TorchRL would send the weights of one that it knows as such, by queues and threads.

    Args:
        module: with parameters and buffers in shared memory.
    """

    def __init__(self, module: TensorDictModuleBase) -> None:
        self.module = module

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action."""
        result: TensorDictBase = self.module(tensordict)
        return result


class LocalWorkers:
    """Processes of this machine that take a step each, whenever they are asked.

    Args:
        config: a fine-tuning configuration.
        actor: that collects.
        start: number of this start, so that no two play the same episodes.
        step: of the run, for ``online.random_steps``.

    Raises:
        WorkersLost: a process died, or they needed more than :data:`START` seconds.
    """

    def __init__(self, config: DictConfig, actor: TensorDictModuleBase, start: int, step: int) -> None:
        self._timeout = config.collector.timeout
        self._actor, self._acting = actor, copy.deepcopy(actor).cpu().share_memory()
        self._threads = torch.get_num_threads()  # TorchRL sets others for this process, too
        self._before = set(multiprocessing.active_children())
        self._notes = Path(tempfile.mkdtemp(prefix="o3f-workers-"))
        self._watchdog = Watchdog(self._kill)
        self._collector: Any = None
        try:
            with self._watchdog.within(START):
                self._collector = MultiSyncCollector(
                    worker_envs(config, actor, start, self._notes),
                    Acting(self._acting),
                    trust_policy=True,
                    **collector_options(config, step),
                    policy_device="cpu",
                    num_threads=self._threads,
                    num_sub_threads=1,
                    cat_results="stack",
                    auto_register_policy_transforms=False,
                )
        except BaseException as error:
            self.close()
            if isinstance(error.__cause__, EOFError):
                raise WorkersLost(str(error)) from error
            raise
        self._steps = iter(self._collector)

    def next(self) -> TensorDictBase:
        """Let every worker take one step with the newest weights; returns ``[num_workers, 1]``.

        Raises:
            WorkersLost: one is dead, or they did not all answer within ``collector.timeout`` seconds.
            EnvironmentFailure: as a worker's environment raised it.
            ActionError: as a worker's environment raised it.
        """
        copy_weights(self._actor, self._acting)
        try:
            with self._watchdog.within(self._timeout):
                steps: TensorDictBase = next(self._steps)
        except Exception as error:
            raise_noted(self._notes)
            if self._watchdog.bitten:
                raise WorkersLost(f"no answer within {self._timeout:g} seconds (collector.timeout)") from error
            if ended := self._ended():
                raise WorkersLost(ended) from error
            raise
        return steps

    def close(self) -> None:
        """End the processes, those that do not answer too."""
        self._watchdog.close()
        if self._watchdog.bitten or self._ended():
            self._kill()
        with contextlib.suppress(Exception):  # whatever is dead already
            self._collector.shutdown()
        self._kill()
        torch.set_num_threads(self._threads)
        shutil.rmtree(self._notes, ignore_errors=True)

    def _ended(self) -> str:
        """Which worker has ended, the one that began if known: TorchRL ends the others, and closes some."""
        codes: dict[int, str] = {}
        for worker, process in enumerate(self._collector.procs if self._collector else []):
            with contextlib.suppress(ValueError):
                if process.exitcode is not None:
                    codes[process.exitcode] = f"worker {worker} ended (exit code {process.exitcode})"
        return codes[max(codes, key=lambda code: code not in (0, -signal.SIGTERM))] if codes else ""

    def _processes(self) -> list[Any]:
        return [process for process in multiprocessing.active_children() if process not in self._before]

    def _kill(self) -> None:
        for process in self._processes():
            with contextlib.suppress(ValueError):  # TorchRL has closed it
                process.kill()


@torch.no_grad()
def copy_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy all parameters and buffers in place, those that schedules change too."""
    pairs = itertools.chain(
        zip(source.parameters(), target.parameters(), strict=True), zip(source.buffers(), target.buffers(), strict=True)
    )
    for new, old in pairs:
        old.copy_(new)


def worker_seed(seed: int, worker: int, start: int) -> int:
    """The seed of one worker's episodes: a hash of three numbers (NumPy's ``SeedSequence``), 63 bits.

    Examples:
        >>> len({worker_seed(seed, worker, start) for seed in range(9) for worker in range(9) for start in range(9)})
        729
    """
    return int(np.random.SeedSequence([seed, worker, start]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def worker_envs(
    config: DictConfig, actor: TensorDictModuleBase, start: int, notes: Path | None = None
) -> list[WorkerEnv]:
    """What makes the environment of each worker."""
    return [
        WorkerEnv(
            build.env_config(config),
            worker_seed(config.seed, worker, start),
            config.online.max_env_failures,
            "is_init" in actor.in_keys,
            str(notes / str(worker)) if notes else None,
        )
        for worker in range(config.num_workers)
    ]


def collector_options(config: DictConfig, step: int) -> dict[str, Any]:
    """What TorchRL's collectors of several environments are told alike."""
    return {
        "frames_per_batch": config.num_workers,
        "total_frames": 2**62,  # the run counts its steps itself
        "init_random_frames": max(0, config.online.random_steps - step),
        "env_device": "cpu",
        "storing_device": "cpu",
    }
