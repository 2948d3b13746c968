"""How long a decision takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
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


def decision_latency(
    decide: Callable[[], object], calls: int = 200, series: int = 5, warm_up: int = 100
) -> dict[str, float]:
    """Call a function again and again with one torch thread.

    Args:
        decide: one decision, usually for one observation.
        calls: of a series.
        series: how many there are; the one with the lowest p99 counts, the others hold what else the machine did.
        warm_up: calls before that are not measured.

    Returns:
        ``median_us`` and ``p99_us`` of that series, microseconds per call.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(warm_up):
                decide()
            measured = np.array([_series(decide, calls) for _ in range(series)]) * 1e6
    finally:
        torch.set_num_threads(threads)
    medians, high = np.percentile(measured, [50, 99], axis=1)
    calmest = int(high.argmin())
    return {"median_us": round(float(medians[calmest]), 1), "p99_us": round(float(high[calmest]), 1)}


def _series(decide: Callable[[], object], calls: int) -> npt.NDArray[np.floating]:
    marks = [time.perf_counter()]
    for _ in range(calls):
        decide()
        marks.append(time.perf_counter())
    return np.diff(marks)
