"""Environments in processes of their own on this machine: TorchRL's collector, made to survive dead and hung ones.

The workers act on the CPU with a copy of the actor in memory that all processes share. It is brought up to date before
each step, while they wait, so nothing is sent and no answer is waited for.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import multiprocessing
import signal
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import MultiSyncCollector

from o3f.collection.noting import raise_noted, warn_noted
from o3f.collection.steps import Settings
from o3f.collection.watchdog import Watchdog
from o3f.collection.worker_env import WorkersLost, collector_options, worker_envs
from o3f.runs.files import scratch_folder

START = 300.0
"""Seconds that the processes have to start."""


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
        settings: of the run.
        actor: that collects.
        start: number of this start, so that no two play the same episodes.
        step: of the run, for ``online.random_steps``.

    Raises:
        WorkersLost: a process died, or they needed more than :data:`START` seconds.
        EnvironmentFailure: a worker's environment could not be made.
    """

    def __init__(self, settings: Settings, actor: TensorDictModuleBase, start: int, step: int) -> None:
        self._timeout = settings.timeout
        self._actor, self._acting = actor, copy.deepcopy(actor).cpu().share_memory()
        self._threads = torch.get_num_threads()  # TorchRL sets others for this process, too
        self._before = set(multiprocessing.active_children())
        self._scratch = contextlib.ExitStack()
        self._notes = self._scratch.enter_context(scratch_folder("o3f-workers"))
        self._watchdog = Watchdog(self._kill)
        self._collector: Any = None
        try:
            with self._watchdog.within(START):
                self._collector = MultiSyncCollector(
                    worker_envs(settings, actor, start, self._notes),
                    Acting(self._acting),
                    trust_policy=True,
                    **collector_options(settings, step),
                    policy_device="cpu",
                    num_threads=self._threads,
                    num_sub_threads=1,
                    cat_results="stack",
                    auto_register_policy_transforms=False,
                )
        except BaseException as error:
            with self._scratch.pop_all():  # the notes are read before they go
                self.close()
                raise_noted(self._notes)
            if isinstance(error.__cause__, EOFError):
                raise WorkersLost(str(error)) from error
            raise
        warn_noted(self._notes)
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
            warn_noted(self._notes)
            raise_noted(self._notes)
            if self._watchdog.bitten:
                raise WorkersLost(f"no answer within {self._timeout:g} seconds (collector.timeout)") from error
            if ended := self._ended():
                raise WorkersLost(ended) from error
            raise
        warn_noted(self._notes)
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
        self._scratch.close()

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
