"""Environments in processes of their own: TorchRL's collectors, with a limit of time and errors that name the cause."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from omegaconf import DictConfig
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import MultiSyncCollector
from torchrl.envs import EnvBase, GymWrapper, InitTracker, TransformedEnv

from o3f import build
from o3f.envs import EnvConfig, make_gym_env
from o3f.envs.wrappers import Env, Reset, Step, Wrapper
from o3f.errors import ActionError, EnvironmentFailure
from o3f.optional import optional

#: What ends a run, in the words of the process where it happened.
_FATAL = {error.__name__: error for error in (ActionError, EnvironmentFailure)}


@dataclass(frozen=True)
class WorkerEnv:
    """Makes a worker's environment, in the worker's process.

    Attributes:
        config: the environment.
        seed: of its episodes and of the process's random streams.
        max_failures: of the environment in a row.
        tracked: whether the actor asks for ``is_init``.
        notes: file for what ends the run; None where the launcher passes errors on itself.
    """

    config: EnvConfig
    seed: int
    max_failures: int
    tracked: bool
    notes: str | None

    def __call__(self) -> EnvBase:
        """Make it; Ctrl-C is left to the process of the run, which ends this one."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        env = make_gym_env(self.config, seed=self.seed, max_failures=self.max_failures)
        if self.notes is not None:
            env = Noting(env, Path(self.notes))
        wrapped = GymWrapper(env, device="cpu")
        build.seed_streams(self.seed)
        return TransformedEnv(wrapped, InitTracker()) if self.tracked else wrapped


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


class Watchdog:
    """Calls a function, once, while a ``with`` block takes longer than it may.

    Args:
        seconds: that the block may take.
        bite: what to call, from another thread.
    """

    def __init__(self, seconds: float, bite: Callable[[], None]) -> None:
        self._seconds, self._bite = seconds, bite
        self._deadline = inf
        self._closed = threading.Event()
        self.bitten = False
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() > self._deadline:
                self.bitten, self._deadline = True, inf
                self._bite()

    def __enter__(self) -> None:
        self._deadline = time.monotonic() + self._seconds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline = inf

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()


class WorkerSet(ABC):
    """Processes that take a step each, whenever they are asked.

    Attributes:
        lost: what :meth:`next` raises where one of them is dead.
    """

    lost: tuple[type[Exception], ...] = (RuntimeError, OSError, EOFError, ValueError)

    def __init__(self, collector: Any, timeout: float) -> None:
        self._collector = collector
        self._steps = iter(collector)
        self._timeout = timeout
        self._watchdog = Watchdog(timeout, self._kill)

    def next(self) -> TensorDictBase:
        """Let every worker take one step with the newest weights; returns ``[num_workers, 1]``."""
        try:
            with self._watchdog:
                self._check_alive()
                self._collector.update_policy_weights_()
                steps: TensorDictBase = next(self._steps)
        except self.lost as error:
            self._explain(error)
            if self._watchdog.bitten:
                raise RuntimeError(f"no answer within {self._timeout:g} seconds (collector.timeout)") from error
            raise
        return steps

    def close(self) -> None:
        """End the processes, those that do not answer too."""
        self._watchdog.close()
        with contextlib.suppress(Exception):  # whatever is dead already
            self._collector.shutdown()

    @abstractmethod
    def _kill(self) -> None: ...

    def _check_alive(self) -> None:  # noqa: B027
        """Raise where a worker is dead: sending weights would wait for its answer."""

    @abstractmethod
    def _explain(self, error: Exception) -> None:
        """Raise what a worker has raised, where that ends the run."""


class LocalWorkers(WorkerSet):
    """Processes of this machine."""

    def __init__(self, collector: Any, timeout: float, notes: Path) -> None:
        super().__init__(collector, timeout)
        self._notes = notes

    def _kill(self) -> None:
        for process in self._collector.procs:
            process.kill()

    def _check_alive(self) -> None:
        for worker, process in enumerate(self._collector.procs):
            if not process.is_alive():
                raise RuntimeError(f"worker {worker} died (exit code {process.exitcode})")

    def _explain(self, error: Exception) -> None:
        for file in sorted(self._notes.iterdir()):
            kind, _, message = file.read_text(encoding="utf-8").partition("\n")
            if kind in _FATAL:
                raise _FATAL[kind](message) from error

    def close(self) -> None:
        """End the processes, those that do not answer too."""
        super().close()
        shutil.rmtree(self._notes, ignore_errors=True)


class RayWorkers(WorkerSet):
    """Actors of a Ray cluster."""

    def __init__(self, collector: Any, timeout: float, ours: bool) -> None:
        self._ray = optional("ray", "ray")
        self.lost = (*WorkerSet.lost, self._ray.exceptions.RayError)
        self._ours = ours
        super().__init__(collector, timeout)

    def _kill(self) -> None:
        for actor in list(self._collector.remote_collectors):
            self._ray.kill(actor)

    def _explain(self, error: Exception) -> None:
        for kind in _FATAL.values():
            if isinstance(error, kind):
                raise error

    def close(self) -> None:
        """End the actors, and Ray where it was started for them."""
        super().close()
        if self._ours:
            self._ray.shutdown()


def worker_seed(seed: int, worker: int, start: int) -> int:
    """The seed of one worker's episodes: a hash of three numbers (NumPy's ``SeedSequence``), 63 bits.

    Examples:
        >>> len({worker_seed(seed, worker, start) for seed in range(9) for worker in range(9) for start in range(9)})
        729
    """
    return int(np.random.SeedSequence([seed, worker, start]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_worker_set(config: DictConfig, actor: TensorDictModuleBase, start: int, step: int) -> WorkerSet:
    """Start the processes that ``collector`` asks for.

    Args:
        config: a fine-tuning configuration.
        actor: that collects; its parameters move into memory that the processes share, and stay the same objects.
        start: number of this start, so that no two play the same episodes.
        step: of the run, for ``online.random_steps``.
    """
    local = config.collector.kind == "multi_sync"
    notes = Path(tempfile.mkdtemp(prefix="o3f-workers-")) if local else None
    envs = [
        WorkerEnv(
            build.env_config(config),
            worker_seed(config.seed, worker, start),
            config.online.max_env_failures,
            "is_init" in actor.in_keys,
            str(notes / str(worker)) if notes else None,
        )
        for worker in range(config.num_workers)
    ]
    options = {
        "frames_per_batch": config.num_workers,
        "total_frames": 2**62,  # the run counts its steps itself
        "init_random_frames": max(0, config.online.random_steps - step),
        "policy_device": config.device,
        "env_device": "cpu",
        "storing_device": "cpu",
    }
    if notes is None:
        return _ray_workers(config, actor, envs, options)
    threads = {"num_threads": config.threads or 1, "num_sub_threads": 1}
    with _nothing_left(notes):
        collector = MultiSyncCollector(
            envs, actor, **options, **threads, cat_results="stack", auto_register_policy_transforms=False
        )
    return LocalWorkers(collector, config.collector.timeout, notes)


@contextlib.contextmanager
def _nothing_left(notes: Path) -> Iterator[None]:
    """Kill the processes started in a block that fails: this process would wait for them at its end."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        shutil.rmtree(notes, ignore_errors=True)
        raise


def _ray_workers(
    config: DictConfig, actor: TensorDictModuleBase, envs: list[WorkerEnv], options: dict[str, Any]
) -> RayWorkers:
    ray = optional("ray", "ray")
    from torchrl.collectors.distributed import RayCollector
    from torchrl.weight_update import RayWeightSyncScheme

    settings, ours = config.collector, not ray.is_initialized()
    if ours:
        address = settings.address or os.environ.get("RAY_ADDRESS")
        cores = {} if address else {"num_cpus": max(os.cpu_count() or 1, config.num_workers * settings.num_cpus)}
        ray.init(address=address, include_dashboard=False, **cores)
    collector = RayCollector(
        envs,
        actor,
        **options,
        sync=True,
        num_collectors=config.num_workers,
        remote_configs={"num_cpus": settings.num_cpus},
        collector_kwargs={"auto_register_policy_transforms": False},
        weight_sync_schemes={"policy": RayWeightSyncScheme()},
    )
    return RayWorkers(collector, settings.timeout, ours)
