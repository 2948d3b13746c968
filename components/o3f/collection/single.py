"""One environment, in the learner's process."""

from __future__ import annotations

from collections.abc import Iterator

from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import Collector
from torchrl.data import ReplayBuffer
from torchrl.envs import InitTracker, TransformedEnv

from o3f.collection.steps import Collection, Episode, Settings, Step, has_failed
from o3f.envs import make_env
from o3f.runs.counters import Counters


class Single(Collection):
    """One environment in this process; arguments as :func:`make_collection`."""

    def __init__(
        self, settings: Settings, actor: TensorDictModuleBase, counters: Counters, buffer: ReplayBuffer
    ) -> None:
        env = make_env(
            settings.env,
            seed=settings.seed,
            first_episode=counters.episode,
            max_failures=settings.max_failures,
            counters=counters,
        )
        if "is_init" in actor.in_keys:
            env = TransformedEnv(env, InitTracker())
        self._collector = Collector(
            env,
            actor,
            frames_per_batch=1,
            total_frames=settings.steps - counters.step,
            init_random_frames=max(0, settings.random_steps - counters.step),
            policy_device=settings.device,
            env_device="cpu",
            storing_device="cpu",
            track_traj_ids=False,
            auto_register_policy_transforms=False,
        )

    def __iter__(self) -> Iterator[Step]:
        episode = Episode()
        for transition in self._collector:
            ended = bool(transition["next", "done"])
            # The environment's state is in no checkpoint, so a run resumes where an episode begins.
            yield Step(episode, transition, may_save=ended, failed=has_failed(transition))
            episode = Episode() if ended else episode

    def close(self) -> None:
        """Close the environment."""
        self._collector.shutdown()
