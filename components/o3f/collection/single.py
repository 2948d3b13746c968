"""One environment, in the learner's process."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import Collector
from torchrl.data import ReplayBuffer
from torchrl.envs import InitTracker, TransformedEnv

from o3f.collection.steps import Collection, Episode, State, Step, has_failed
from o3f.envs import make_env
from o3f.training import build


class Single(Collection):
    """One environment in this process; arguments as :func:`make_collection`."""

    def __init__(self, config: DictConfig, actor: TensorDictModuleBase, state: State, buffer: ReplayBuffer) -> None:
        env = make_env(
            build.env_config(config),
            seed=config.seed,
            first_episode=state["episode"],
            max_failures=config.online.max_env_failures,
            counters=state,
        )
        if "is_init" in actor.in_keys:
            env = TransformedEnv(env, InitTracker())
        self._collector = Collector(
            env,
            actor,
            frames_per_batch=1,
            total_frames=config.online.steps - state["step"],
            init_random_frames=max(0, config.online.random_steps - state["step"]),
            policy_device=config.device,
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
