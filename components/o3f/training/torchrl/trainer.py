"""TorchRL's generic Trainer around this package's losses and actors, from configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torchrl.collectors import BaseCollector
from torchrl.data import ReplayBuffer
from torchrl.objectives import LossModule
from torchrl.trainers import Trainer
from torchrl.trainers.trainers import TargetNetUpdaterHook

from o3f.algorithms import Learner
from o3f.data.buffers import RowsBuffer
from o3f.envs.seeds import SeededResets
from o3f.errors import require
from o3f.objectives import LAPOLoss
from o3f.training.torchrl.hooks import JointStepper, LearnerStepper, OfflineOnlineHook
from o3f.training.torchrl.make import policy_of


def make_trainer(
    *,
    collector: Callable[..., BaseCollector],
    replay_buffer: ReplayBuffer,
    exploration: Callable[..., Any] | None = None,
    learner: Learner | None = None,
    loss_module: LossModule | None = None,
    optimizer: Callable[..., Any] | None = None,
    target_net_updater: Callable[..., Any] | None = None,
    updates_per_step: int = 1,
    offline_steps: int = 0,
    hooks: Sequence[Any] | None = None,
    **options: Any,
) -> Trainer:
    """Build a TorchRL ``Trainer`` whose collector acts with the networks that it trains.

    Give either ``learner`` (:class:`~o3f.training.torchrl.hooks.LearnerStepper`: the recipes' order of steps), or
    ``loss_module`` with ``optimizer`` and ``target_net_updater``
    (:class:`~o3f.training.torchrl.hooks.JointStepper`: one step on all losses). What a learner or a loss
    measures on the dataset is measured here.

    Args:
        collector: to be called with ``policy``: a collector's configuration with ``_partial_: true``. Workers that are
            all given one ``o3f_gym`` are seeded apart, from its seed.
        replay_buffer: the dataset, with room for online rows, see :func:`~o3f.data.load_minari`.
        exploration: to be called with ``policy`` and ``critic``; None collects with the plain policy.
        learner: see above.
        loss_module: see above.
        optimizer: to be called with ``params``.
        target_net_updater: to be called with the loss.
        updates_per_step: see :class:`~o3f.training.torchrl.hooks.OfflineOnlineHook`; more than one needs a learner.
        offline_steps: optimisation steps on the dataset before the first transition is collected.
        hooks: further ones, registered last.
        **options: the other arguments of the ``Trainer``.

    Raises:
        ConfigError: neither or both of the two ways are given, or the second in part.
    """
    rest = (loss_module, optimizer, target_net_updater)
    given = [part is not None for part in rest]
    require(
        not any(given) if learner is not None else all(given),
        "trainer: give either learner, or all of loss_module, optimizer and target_net_updater.",
    )
    require(
        updates_per_step == 1 or learner is not None,
        f"trainer.updates_per_step is {updates_per_step}: more than 1 needs a learner. Use optim_steps_per_batch.",
    )
    loss: Any = loss_module if learner is None else learner.loss
    measure_dataset(learner, loss, replay_buffer)
    trainer = Trainer(
        collector=seeded_apart(collector(policy=_actor(exploration, learner, loss))),
        loss_module=loss,
        optimizer=None if optimizer is None else optimizer(params=loss.parameters()),
        optimization_stepper=JointStepper() if learner is None else LearnerStepper(learner),
        **options,
    )
    info = replay_buffer.dataset_info if isinstance(replay_buffer, RowsBuffer) else None
    rule = None if info is None else info.reward
    OfflineOnlineHook(
        replay_buffer, updates_per_step=updates_per_step, reward=rule, offline_steps=offline_steps
    ).register(trainer)
    if target_net_updater is not None:
        # Its own register() would step once per collected batch, not once per optimisation step.
        trainer.register_op("post_optim", TargetNetUpdaterHook(target_net_updater(loss)))
    for hook in hooks or ():
        hook.register(trainer)
    return trainer


def seeded_apart(collector: BaseCollector) -> BaseCollector:
    """Seed the workers of a collector apart that were all given one environment of ours, with one seed.

    All of them would play the same episodes: the same starts, and the same luck. The ``seed`` of a ``Trainer`` comes
    after this.
    """
    envs = getattr(collector, "create_env_fn", None)
    if isinstance(envs, list) and len(envs) > 1 and all(env is envs[0] for env in envs):
        inner = getattr(envs[0], "_env", None)  # each worker has a copy of it
        if isinstance(inner, SeededResets):
            collector.set_seed(inner.seed)
    return collector


def measure_dataset(learner: Learner | None, loss: Any, replay_buffer: ReplayBuffer) -> None:
    """Let a learner, or a loss of ours, measure on the rows ``[D]`` what it needs; nothing where there are none."""
    if not len(replay_buffer):
        return
    if learner is not None:
        learner.prepare(replay_buffer[:])
        return
    loss.fit_normalisers(replay_buffer[:])
    if isinstance(loss, LAPOLoss):
        loss.value_clamp.fit(replay_buffer[:]["next", "reward"])


def _actor(exploration: Callable[..., Any] | None, learner: Learner | None, loss: Any) -> Any:
    policy = policy_of(loss) if learner is None else learner.policy
    return policy if exploration is None else exploration(policy=policy, critic=loss.critic)
