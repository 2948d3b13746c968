"""What pre-training and fine-tuning share around their updates: watch, log, evaluate, save, stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from omegaconf import DictConfig
from tensordict import TensorDictBase
from torchrl.data import ReplayBuffer

from o3f.algorithms import Learner
from o3f.cli.progress import Progress, Stopwatch
from o3f.cli.signals import StopSignals
from o3f.data import BalancedSampler, RewardRule
from o3f.runs.counters import Counters
from o3f.runs.folder import RunFolder
from o3f.runs.identity import plain
from o3f.runs.logger import RunLogger
from o3f.runs.stateful import Stateful
from o3f.training.best import BestAgent
from o3f.training.guard import Guard
from o3f.training.reporting import evaluate_and_log, evaluate_policy
from o3f.training.weight_watch import WeightWatch


class Training:
    """A run's steps, for use in a ``with`` block after :meth:`resume`.

    A step is :meth:`next_step`, then :meth:`update` (or none), then :meth:`end_step`.

    Args:
        config: of the run.
        phase: ``"offline"`` (a step is an update) or ``"online"`` (an agent step): the part of ``config`` that says how
            many steps there are, and how often to log, evaluate and save.
        run: its folder.
        learner: what is trained.
        buffer: what it is trained on; the guard looks at its rewards.
        rule: the rewards that the learner sees.
        counters: ``step`` and ``saved`` are counted here.
        components: beside the learner, what a checkpoint holds.
        best: keeps the agent of the best evaluation; with it the agent is evaluated before the first step, too.

    Attributes:
        scores: of the last evaluation.
    """

    def __init__(
        self,
        config: DictConfig,
        phase: str,
        run: RunFolder,
        learner: Learner,
        buffer: ReplayBuffer,
        rule: RewardRule,
        counters: Counters,
        components: Mapping[str, Stateful] | None = None,
        best: BestAgent | None = None,
    ) -> None:
        self.scores: dict[str, Any] = {}
        self._config, self._settings, self._phase = config, config[phase], phase
        self._run, self._learner, self._buffer, self._rule = run, learner, buffer, rule
        self._counters, self._best = counters, best
        self._components = {"learner": learner, **(components or {}), **({"best": best} if best else {})}
        self._resumed = False
        self._metrics: dict[str, Any] = {}

    @property
    def step(self) -> int:
        """The step at hand, or the last one done."""
        return self._counters.step

    @property
    def steps_left(self) -> int:
        """How many steps are still to do."""
        return int(self._settings.steps) - self.step

    def resume(self) -> bool:
        """Restore the newest good checkpoint; False if there is none."""
        self._resumed = self._run.load(self._components)
        self._counters.step = self._counters.saved = self._run.saved
        if self._resumed:
            print(f"{self._run.path} goes on from step {self.step}")
        elif (self._run.path / "metrics.csv").exists():
            print(f"{self._run.path} has metrics and no checkpoint, and begins anew")
        return self._resumed

    def __enter__(self) -> Training:
        config, done = self._config, self.step
        guarded = self._run.path / "nonfinite"
        self._guard = Guard(self._learner, config.guard, guarded, self._buffer, config.algorithm.discount)
        self._weights = WeightWatch(self._learner)
        title = f"{self._phase} {self._run.path}"
        with ExitStack() as stack:
            # First: from the moment that there is something in the folder, a signal ends the run in order.
            self._stop = stack.enter_context(StopSignals())
            prefix = "offline/" if self._phase == "offline" else ""
            logger = RunLogger(self._run.path, done or None, settings=plain(config), prefix=prefix)
            self.logger = stack.enter_context(logger)
            self._progress = stack.enter_context(Progress(title, self._settings.steps, done, config.progress))
            if self._best and not self._resumed:
                self._evaluate()
            self._open = stack.pop_all()
        self._clock, self._started_at = Stopwatch(), done
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if kind is None and not self.scores:  # stopped between its last checkpoint and the end
            self.scores = {"step": self.step, **evaluate_policy(self._learner.policy, self._config)}

    def next_step(self) -> int:
        """Begin a step, and return its number: 1 is the first one of the run."""
        self._counters.step += 1
        self._metrics = {}
        return self.step

    def update(self, batches: Sequence[TensorDictBase]) -> None:
        """Take one gradient step per batch ``[B]``.

        Raises:
            DivergenceError: too many updates in a row had gradients that are not finite.
        """
        self._guard.watch(batches)
        self._metrics = self._learner.update(batches, report=self._at(self._settings.log_every))
        self._guard.check(self.step)

    def end_step(self, *, ended: Mapping[str, float] | None = None, may_save: bool = True) -> None:
        """Log, evaluate and save, where it is time for it.

        Args:
            ended: metrics of an episode that ended with this step.
            may_save: whether the run can be resumed from here.

        Raises:
            Stopped: a signal asked for it.
        """
        step, last = self.step, self.steps_left == 0
        self._progress.advance()
        if self._at(self._settings.log_every):
            self._log()
        if self._at(self._settings.evaluate_every) or last:
            with self._clock.paused():
                self._evaluate()
        if ended:
            self.logger.log(step, ended)
        overdue = step - self._counters.saved >= self._settings.checkpoint_every or self._stop.received is not None
        if last or (may_save and overdue):
            self._save(last)
        self._stop.check(step, self._run.saved)

    def _at(self, interval: int) -> bool:
        return self.step % interval == 0

    def _log(self) -> None:
        step, unit = self.step, "updates" if self._phase == "offline" else "steps"
        metrics = self._metrics | self._guard.check_values(step)
        if isinstance(self._buffer.sampler, BalancedSampler) and self._phase == "online":
            metrics |= self._buffer.sampler.metrics()
        self._weights.check(step, metrics)
        self.logger.log(step, {f"train/{tag}": value for tag, value in metrics.items()})
        rate = self._clock.rate(min(self._settings.log_every, step - self._started_at))
        self.logger.log_time(step, {f"time/{unit}_per_second": rate})

    def _evaluate(self) -> None:
        step, learner = self.step, self._learner
        self.scores = evaluate_and_log(self.logger, self._progress, step, learner, self._config, self._rule)
        if self._best:
            compared = self._best.update(step, self.scores, learner)
            self.logger.log(step, {f"eval/{name}": value for name, value in compared.items()})

    def _save(self, last: bool) -> None:
        self._counters.saved = self.step
        self.logger.flush()
        self._guard.keep()
        self._run.save(self.step, self._components, last=last)
