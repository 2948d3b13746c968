"""Environments on a Ray cluster: TorchRL's collector, with a limit of time and errors that name the cause."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from o3f.collection.steps import Settings
from o3f.collection.watchdog import Watchdog
from o3f.collection.worker_env import WorkersLost, collector_options, worker_envs
from o3f.errors import optional


class RayWorkers:
    """Actors of a Ray cluster that take a step each, whenever they are asked; arguments as of ``LocalWorkers``.

    Ray sends the weights. Where an actor is dead, its wait for an answer ends with an error, so that the watchdog's
    kill ends every wait.
    """

    def __init__(self, settings: Settings, actor: TensorDictModuleBase, start: int, step: int) -> None:
        self._ray = optional("ray", "ray")
        from torchrl.collectors.distributed import RayCollector
        from torchrl.weight_update import RayWeightSyncScheme

        self._ours = not self._ray.is_initialized()
        if self._ours:
            address = settings.address or os.environ.get("RAY_ADDRESS")
            cores = {} if address else {"num_cpus": max(os.cpu_count() or 1, settings.num_workers * settings.num_cpus)}
            self._ray.init(address=address, include_dashboard=False, **cores)
        self._collector: Any = RayCollector(
            worker_envs(settings, actor, start),
            actor,
            **collector_options(settings, step),
            policy_device=torch.device(settings.device),
            sync=True,
            num_collectors=settings.num_workers,
            remote_configs={"num_cpus": settings.num_cpus},
            collector_kwargs={"auto_register_policy_transforms": False},
            weight_sync_schemes={"policy": RayWeightSyncScheme()},
        )
        self._steps = iter(self._collector)
        self._timeout = settings.timeout
        self._watchdog = Watchdog(self._kill)

    def next(self) -> TensorDictBase:
        """Let every worker take one step with the newest weights; returns ``[num_workers, 1]``."""
        try:
            with self._watchdog.within(self._timeout):
                self._collector.update_policy_weights_()
                steps: TensorDictBase = next(self._steps)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except self._ray.exceptions.RayError as error:
            late = f"no answer within {self._timeout:g} seconds (collector.timeout)"
            raise WorkersLost(late if self._watchdog.bitten else str(error)) from error
        return steps

    def close(self) -> None:
        """End the actors, and Ray where it was started for them."""
        self._watchdog.close()
        with contextlib.suppress(Exception):  # whatever is dead already
            self._collector.shutdown()
        if self._ours:
            self._ray.shutdown()

    def _kill(self) -> None:
        for actor in list(self._collector.remote_collectors):
            self._ray.kill(actor)
