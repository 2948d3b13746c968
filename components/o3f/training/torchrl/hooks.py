"""What TorchRL's ``Trainer`` needs to train as the recipes do: a stepper, and a hook for the buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import ReplayBuffer
from torchrl.trainers import Trainer, TrainerHookBase
from torchrl.trainers.trainers import DefaultOptimizationStepper, OptimizationStepper

from o3f.algorithms import Learner
from o3f.data import RewardRule, end_episode, online_rows, restore_online
from o3f.modules.arguments import whole_number


class LearnerStepper(OptimizationStepper):
    """One optimisation step of a ``Trainer`` is one update of a learner: its losses, optimisers, order and targets.

    Give it as ``optimization_stepper=`` with ``loss_module=learner.loss`` and neither optimiser nor target
    updater: the learner has its own. Gradients are not clipped. The learner's state is a part of the checkpoint.

    Args:
        learner: from :func:`~o3f.algorithms.make_learner`.
    """

    def __init__(self, learner: Learner) -> None:
        if not (callable(getattr(learner, "update", None)) and hasattr(learner, "optimisers")):
            raise TypeError(f"learner must be of make_learner, got {type(learner).__name__}.")
        self.learner = learner

    def step(self, trainer: Trainer, sub_batch: TensorDictBase) -> TensorDictBase:
        """Update with one batch ``[B]``, or with K batches ``[K, B]``; return the learner's figures, 0-d."""
        batches = [sub_batch] if sub_batch.ndim == 1 else sub_batch.unbind(0)
        figures: Any = self.learner.update(batches)
        return TensorDict(figures)

    def state_dict(self) -> dict[str, Any]:
        """Return the learner's state."""
        return self.learner.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Pass the state to the learner."""
        self.learner.load_state_dict(state_dict)


class JointStepper(DefaultOptimizationStepper):
    """TorchRL's default stepper (one optimiser, one joint step on all losses), its figures detached.

    The ``Trainer`` keeps all figures it is given; those of the default stepper would keep every step's graph.
    """

    def step(self, trainer: Trainer, sub_batch: TensorDictBase) -> TensorDictBase:
        """Take the step on a batch ``[B]``; return the losses, 0-d."""
        return super().step(trainer, sub_batch).detach()


class OfflineOnlineHook(TrainerHookBase):
    """Stores what a collector executed behind a dataset, and draws the batches of each optimisation step.

    TorchRL's own hook for replay buffers checkpoints all rows; this one the online rows alone, as the dataset's
    can be loaded again. Call :meth:`register` with the trainer.

    Args:
        buffer: from :func:`~o3f.data.load_minari` or :func:`~o3f.data.make_buffer`, with ``online_capacity``.
        updates_per_step: K, batches of an optimisation step. With more than one they are stacked, ``[K, B]``,
            for :class:`LearnerStepper`.
        reward: rule applied to the rewards that are stored; ``dataset_info(buffer).reward`` is the dataset's. One with
            a running sum belongs to the environment (``make_env(reward=...)``), which knows where episodes begin.
        offline_steps: optimisation steps on the dataset, one batch each, before the first transition is
            collected. They are not taken again in a trainer that was restored after them.
        device: of the batches; None leaves them where they are stored.

    Raises:
        ValueError: if ``updates_per_step`` < 1 or ``offline_steps`` < 0, or ``reward`` has a running sum.
    """

    def __init__(
        self,
        buffer: ReplayBuffer,
        *,
        updates_per_step: int = 1,
        reward: RewardRule | None = None,
        offline_steps: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        whole_number("updates_per_step", updates_per_step)
        whole_number("offline_steps", offline_steps, least=0)
        if not (reward is None or isinstance(reward, RewardRule)):
            raise TypeError(f"reward must be a RewardRule or None, got {reward!r}.")
        if not isinstance(buffer, ReplayBuffer):
            raise TypeError(f"buffer must be a replay buffer, of make_buffer for example, got {buffer!r}.")
        if reward is not None and reward.running_sum:
            raise ValueError(
                f"{reward} sums the rewards of an episode, and transitions of a batch do not say where theirs begins:"
                " give the rule to the environment, o3f.envs.make_env(reward=...), and None here."
            )
        self.buffer = buffer
        self.updates_per_step = updates_per_step
        self.reward = reward
        self.offline_steps = offline_steps
        self.device = device
        self._offline_done = 0
        self._pretraining = False

    def extend(self, batch: TensorDictBase) -> TensorDictBase:
        """Store transitions ``[*B]``; those without a reward (the environment failed) end their episode instead."""
        flat = batch.reshape(-1)
        failed = flat["next", "reward"].isnan().reshape(-1)
        if not bool(failed.any()):
            self._store(flat)
            return batch
        for row, lost in zip(flat.split(1), failed, strict=True):
            if lost:
                end_episode(self.buffer)
            else:
                self._store(row)
        return batch

    def sample(self, batch: TensorDictBase | None = None) -> TensorDictBase:
        """Draw the batch or batches of an optimisation step."""
        if self.updates_per_step == 1 or self._pretraining:
            return self._draw()
        return TensorDict.lazy_stack([self._draw() for _ in range(self.updates_per_step)])

    def pretrain(self, trainer: Any) -> None:
        """Take the offline steps that are left."""
        self._pretraining = True
        while self._offline_done < self.offline_steps:
            trainer.optim_steps(None)
            self._offline_done += 1
        self._pretraining = False

    def state_dict(self) -> dict[str, Any]:
        """Return the online rows, and what more :func:`~o3f.data.online_rows` says of the buffer."""
        return {"buffer": online_rows(self.buffer), "offline_done": self._offline_done}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Put them back into a buffer made from the same dataset."""
        restore_online(self.buffer, state_dict["buffer"])
        self._offline_done = int(state_dict["offline_done"])

    def register(self, trainer: Trainer, name: str = "offline_online") -> None:
        """Register with a trainer: what is stored, what is drawn, the offline steps, and the state."""
        trainer.register_op("setup", lambda: self.pretrain(trainer))
        trainer.register_op("batch_process", self.extend)
        trainer.register_op("process_optim_batch", self.sample)
        trainer.register_module(name, self)

    def _store(self, rows: TensorDictBase) -> None:
        if self.reward is not None:
            rows = rows.copy()
            following: Any = rows["next"]
            rows["next"] = following.copy().set("reward", self.reward(following["reward"]))
        self.buffer.extend(rows)

    def _draw(self) -> TensorDictBase:
        batch: TensorDictBase = self.buffer.sample()
        return batch if self.device is None else batch.to(self.device)
