"""Several runs in one process, each with its own random streams, all updated together.

A run is a generator: where it would update its learner, it yields an :class:`Update` and is sent the metrics. Alone,
it is answered by the learner itself; several (``num_lanes``) are answered by one call of
:class:`~o3f.algorithms.lanes.Lanes`. Everything else, the environments and the evaluations above all, is done run by
run, so lanes pay where the updates take most of the time and a GPU makes them. Each run holds a dataset of its own.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Generator, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from omegaconf import DictConfig
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.checkpoint import GlobalRNGState

from o3f.algorithms import Learner
from o3f.algorithms.lanes import Lanes
from o3f.errors import Stopped, require, require_range

Result = TypeVar("Result")
Metrics: TypeAlias = dict[str, Tensor]


class Update(NamedTuple):
    """What a run asks for.

    Attributes:
        learner: takes one gradient step per batch.
        batches: one or more, ``[B]`` each.
        report: whether metrics are wanted.
    """

    learner: Learner
    batches: Sequence[TensorDictBase]
    report: bool


Run: TypeAlias = Generator[Update, Metrics, Result]
"""Yields updates, is sent their metrics, returns a result."""


def lane_configs(config: DictConfig) -> list[DictConfig]:
    """Return the configurations of the runs that ``num_lanes`` asks for: of ``seed``, ``seed + 1``, ...

    Raises:
        ConfigError: ``num_lanes`` or ``seed`` is out of its range, or the objective is one that lanes cannot have.
    """
    require_range(config, "num_lanes", "[1, inf)", integer=True)
    online = config.get("online", {})
    require(
        config.num_lanes == 1 or not (online.get("distil_weight") or online.get("target_candidates")),
        "online.distil_weight and online.target_candidates need num_lanes=1.",
    )
    if config.num_lanes == 1:
        return [config]
    require_range(config, "seed", "[0, inf)", integer=True)
    configs = [copy.deepcopy(config) for _ in range(config.num_lanes)]
    for lane, each in enumerate(configs):
        each.seed = config.seed + lane
        each.progress = config.progress and lane == 0  # a terminal has room for one bar
    return configs


def complete(runs: Sequence[Run[Result]]) -> list[Result]:
    """Let runs go on to their end and return their results.

    Several are advanced in turn, each with random streams (torch, NumPy, Python) of its own. Those that wait for
    equally many updates get them together; those that are behind, after a resume for instance, come first. Where a
    run fails, the others go on.

    Args:
        runs: not started yet; of one configuration but for the seed.

    Raises:
        Exception: what the first failed run raised, after the others have ended.
    """
    try:
        return [_alone(runs[0])] if len(runs) == 1 else _together(runs)
    finally:
        for run in reversed(runs):  # the last one's files and signal handlers first
            run.close()


def _alone(run: Run[Result]) -> Result:
    try:
        request = next(run)
        while True:
            request = run.send(request.learner.update(request.batches, report=request.report))
    except StopIteration as end:
        result: Result = end.value
        return result


def _together(runs: Sequence[Run[Result]]) -> list[Result]:
    lanes = [_Lane(run, number) for number, run in enumerate(runs)]
    for lane in lanes:
        lane.advance(None)
    joint: Lanes | None = None
    while waiting := [lane for lane in lanes if lane.end is None]:
        for lane in lanes:
            lane.report_failure()
        group = _next_group(waiting)
        learners = [lane.request.learner for lane in group]
        joint = joint if joint is not None and joint.learners == learners else Lanes(learners)
        report = any(lane.request.report for lane in group)
        answers = joint.update([lane.request.batches for lane in group], report=report)
        for lane, answer in zip(group, answers, strict=True):
            lane.advance(answer if lane.request.report else {})
    return [lane.result() for lane in lanes]


def _next_group(waiting: Sequence[_Lane[Result]]) -> list[_Lane[Result]]:
    """The run with the fewest updates so far, and those that wait for as many as it does."""
    behind = min(waiting, key=lambda lane: lane.request.learner.updates)
    return [lane for lane in waiting if len(lane.request.batches) == len(behind.request.batches)]


class _Lane(Generic[Result]):
    """One of several runs: what it waits for, how it ended, and its random streams."""

    request: Update
    end: StopIteration | Exception | Stopped | None = None

    def __init__(self, run: Run[Result], number: int) -> None:
        self._run = run
        self._number = number
        self._reported = False
        self._streams = GlobalRNGState().state_dict()

    def advance(self, answer: Metrics | None) -> None:
        """Answer the run (None: start it) and let it go on to its next request, or to its end."""
        GlobalRNGState().load_state_dict(self._streams)
        try:
            self.request = next(self._run) if answer is None else self._run.send(answer)
        except (Exception, Stopped) as error:
            self.end = error
        self._streams = GlobalRNGState().state_dict()

    def report_failure(self) -> None:
        """Warn once if the run has failed."""
        if not self._reported and isinstance(self.end, Exception) and not isinstance(self.end, StopIteration):
            self._reported = True
            warnings.warn(f"lane {self._number} has failed, the others go on: {self.end}", stacklevel=4)

    def result(self) -> Result:
        """What the run returned; raises what it raised."""
        if isinstance(self.end, StopIteration):
            result: Result = self.end.value
            return result
        assert self.end is not None
        raise self.end
