"""Watches the numbers of a run: gradients that are not finite (or their squares), values that no policy can have.

A step with such gradients never reaches the weights (:class:`~o3f.algorithms.guarded_adam.GuardedAdam` leaves it
out on the device). Here the counts are read now and then, so that no step waits for a device, what led to a bad
update is written down, and a run that cannot go on ends.
"""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import ReplayBuffer

from o3f.algorithms import Learner
from o3f.data.rewards import far_rewards
from o3f.errors import DivergenceError
from o3f.runs.checkpoint import load_component, save
from o3f.runs.stateful import Stateful, StateOf

EVERY = 10
"""Updates between two readings of the counts; so many are kept to be written down."""

DUMPS = 3
"""How many bad updates are written down."""


class _Watched(NamedTuple):
    batches: Sequence[TensorDictBase]
    streams: Tensor
    counts: dict[str, Tensor | float]


class Guard:
    """Ends, or sets back, a run whose updates go wrong.

    Args:
        learner: what is trained.
        settings: ``conf/base.yaml``'s ``guard``.
        folder: where bad updates are written.
        buffer: its rewards r and γ bound what critics can rightly say: max |r| / (1 - γ), without those r that lie far
            beyond the rest (:func:`o3f.data.rewards.far_rewards`).
        discount: γ.
    """

    def __init__(
        self, learner: Learner, settings: Mapping[str, Any], folder: Path, buffer: ReplayBuffer, discount: float
    ) -> None:
        self.learner = learner
        self.settings = settings
        self.folder = folder
        self.buffer = buffer
        self.discount = discount
        self._recent: deque[_Watched] = deque(maxlen=EVERY)
        self._good: dict[str, Any] = {}
        self._known = self._left_out()
        self._warned = False
        self._dumps = 0
        self.keep()

    def keep(self) -> None:
        """Take the learner's state as one to go back to; at the start and with each checkpoint."""
        if self.settings["on_nonfinite"] == "roll_back":
            self._good = copy.deepcopy(self.learner.state_dict())

    def watch(self, batches: Sequence[TensorDictBase]) -> None:
        """Remember what the update that comes now depends on; costs a copy of torch's random state."""
        counts = {name: optimiser.left_out for name, optimiser in self.learner.optimisers.items()}
        self._recent.append(_Watched(batches, torch.get_rng_state(), counts))

    def check(self, step: int) -> None:
        """Look at the counts, every :data:`EVERY` steps, and act on them.

        Args:
            step: the last one done.

        Raises:
            DivergenceError: ``patience`` updates in a row were left out, and there is nothing (more) to go back to.
        """
        if step % EVERY:
            return
        counts = self._left_out()
        told = ", ".join(
            f"{name} {counts[name] - known:.0f}" for name, known in self._known.items() if counts[name] > known
        )
        if told:
            self._write_down(step)
            self._known = counts
        where = f" The first of their batches is in {self.folder}." if self.folder.exists() else ""
        in_a_row = max(float(optimiser.in_a_row) for optimiser in self.learner.optimisers.values())
        if in_a_row >= self.settings["patience"]:
            self._give_up(f"Step {step}: gradients were not finite in the last {in_a_row:.0f} updates.{where}")
        elif told:
            warnings.warn(
                f"Step {step}: updates with gradients that are not finite were left out ({told}).{where}", stacklevel=2
            )

    @torch.no_grad()
    def check_values(self, step: int) -> dict[str, float]:
        """Compare the critics' values in the last batch with the largest that rewards allow.

        Returns:
            Metrics to log: ``critic/largest`` is max |Q|; ``left_out`` counts updates, if there were any.

        Raises:
            DivergenceError: they are ``max_q_ratio`` times as large.
        """
        total = sum(self._left_out().values())
        metrics = {"left_out": total} if total else {}
        if not self._recent:
            return metrics
        batch = self._recent[-1].batches[-1]
        values = self.learner.critic(batch.select(*self.learner.critic.in_keys)).get(self.learner.critic.out_keys[-1])
        largest = float(values.abs().max())
        rewards: Any = self.buffer[:]
        # Soft critics count the policy's entropy as a reward: about a nat for each action, in either direction.
        entropy = (self.learner.entropy_weight or 0.0) * rewards["action"].shape[-1]
        reward = rewards["next", "reward"]
        far = far_rewards(reward)  # one fill value would set a bound that nothing ever exceeds
        most = float(reward.masked_fill(far, 0.0).abs().max()) + entropy
        bound = most / (1 - self.discount) if self.discount < 1 else 0.0
        ratio = largest / bound if bound else 0.0
        also = " and entropy" if entropy else ""
        without = f" (without {int(far.sum())} rewards that lie far beyond the rest)" if far.any() else ""
        said = (
            f"The critics say up to {largest:.4g}, and no policy can reach more than {bound:.4g}, the largest reward"
            f"{also} over 1 - discount{without}."
        )
        if self.settings["max_q_ratio"] is not None and ratio > self.settings["max_q_ratio"]:
            raise DivergenceError(
                f"Step {step}: {said} They diverge: lower algorithm.learning_rate, or look at the rewards' scale."
                " guard.max_q_ratio=null goes on all the same."
            )
        if ratio > 2 and not self._warned:
            self._warned = True
            warnings.warn(f"Step {step}: {said} They may be about to diverge.", stacklevel=2)
        return {**metrics, "critic/largest": largest}

    def _left_out(self) -> dict[str, float]:
        return {name: float(optimiser.left_out) for name, optimiser in self.learner.optimisers.items()}

    def _write_down(self, step: int) -> None:
        """Write the first bad one of the updates watched: batches, random state, and the learner as it is now."""
        # An entry is from before its update: the last one with the counts of the last check is of the first bad one.
        before = [entry for entry in self._recent if {n: float(c) for n, c in entry.counts.items()} == self._known]
        if not before or self._dumps == DUMPS:
            return
        self._dumps += 1
        update = {
            "batches": {str(number): batch.to_dict() for number, batch in enumerate(before[-1].batches)},
            "streams": before[-1].streams,
        }
        parts: dict[str, Stateful] = {"update": StateOf(lambda: update, update.update), "learner": self.learner}
        try:
            save(self.folder, step, parts, keep=DUMPS)
        except OSError as error:
            warnings.warn(f"Cannot write a bad update down ({error}).", stacklevel=3)

    def _give_up(self, why: str) -> None:
        optimisers = self.learner.optimisers
        scale = 0.5 * min(optimiser.rate_scale for optimiser in optimisers.values())
        if self.settings["on_nonfinite"] != "roll_back" or scale < 0.5 ** self.settings["max_rollbacks"]:
            raise DivergenceError(
                f"{why} Look at the batch (o3f.training.guard.replay does that update again), lower"
                " algorithm.learning_rate, or go back by guard.on_nonfinite=roll_back."
            )
        self.learner.load_state_dict(self._good)
        for name, optimiser in optimisers.items():
            # The loaded state has the counts of that time: what was left out since then stays counted.
            optimiser.left_out, optimiser.in_a_row, optimiser.rate_scale = self._known[name], 0.0, scale
        warnings.warn(
            f"{why} Back to the agent of the last checkpoint, at {scale:g} of the learning rate.", stacklevel=3
        )


def replay(learner: Learner, folder: str | Path) -> dict[str, Tensor]:
    """Do the newest update that was written down again, with a learner of the run's configuration.

    Returns:
        The metrics; ``left_out`` of the learner's optimisers says that it is still a bad one.
    """
    update = load_component(folder, "update")
    learner.load_state_dict(load_component(folder, "learner"))
    batches = [TensorDict(batch, [len(batch["action"])]) for batch in update["batches"].values()]
    torch.set_rng_state(update["streams"])
    return learner.update(batches)
