"""How long a decision takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchrl.envs.utils import ExplorationType

from o3f.export.optimistic import OptimisticProgram
from o3f.export.parity import Program, act_on
from o3f.export.programs import PolicyProgram


def latencies(
    name: str, loaded: Program, program: PolicyProgram, actor: Any, observations: Tensor
) -> dict[str, dict[str, float]]:
    """Measure a program as it was read back and what the run acts with, for one observation.

    The arguments are those of :func:`~o3f.export.check_parity`; see :func:`decision_latency` for the figures.
    """
    inputs = {**program.inputs(1), "observation": observations[:1]}
    observation = inputs.pop("observation")
    explores = isinstance(program, OptimisticProgram)
    kind = ExplorationType.RANDOM if explores else ExplorationType.DETERMINISTIC
    return {
        name: decision_latency(lambda: loaded(observation, **inputs)),
        "the run's optimistic actor" if explores else "the run's policy": decision_latency(
            lambda: act_on(actor, observation, kind)
        ),
    }


def decision_latency(decide: Callable[[], object], calls: int = 1_000, warm_up: int = 100) -> dict[str, float]:
    """Call a function again and again with one torch thread.

    Args:
        decide: one decision, usually for one observation.
        calls: how many are measured.
        warm_up: how many before that are not.

    Returns:
        ``median_us`` and ``p99_us``, microseconds per call.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(warm_up):
                decide()
            marks = [time.perf_counter()]
            for _ in range(calls):
                decide()
                marks.append(time.perf_counter())
    finally:
        torch.set_num_threads(threads)
    median, high = np.percentile(np.diff(marks) * 1e6, [50, 99])
    return {"median_us": round(float(median), 1), "p99_us": round(float(high), 1)}
