"""Configurations of environments, datasets and learners."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING
from torchrl.trainers.algorithms.configs.common import ConfigBase
from torchrl.trainers.algorithms.configs.data import ReplayBufferBaseConfig
from torchrl.trainers.algorithms.configs.envs_libs import EnvLibsConfig

_MAKE = "o3f.training.torchrl.make."


@dataclass
class GymEnvConfig(EnvLibsConfig):
    """:func:`~o3f.envs.make_env`: any Gymnasium environment, its actions in [-1, 1] as in :class:`MinariConfig`."""

    id: str = MISSING
    kwargs: Any = field(default_factory=dict)
    frame_skip: int = 1
    action_scale: float = 1.0
    observation_keys: Any = None
    reset_options: Any = None
    attributes: Any = field(default_factory=dict)
    max_episode_steps: int | None = None
    goal_radius: float | None = None
    seed: int = 0
    device: str = "cpu"
    _convert_: str = "all"
    _target_: str = _MAKE + "gym_env"


@dataclass
class _Rows(ReplayBufferBaseConfig):
    """``reward`` has the fields of :class:`~o3f.data.RewardRule`."""

    batch_size: int = 256
    reward: Any = None
    observation_keys: Any = None
    action_scale: float = 1.0
    online_capacity: int = 0
    online_fraction: float | None = None
    storage: str = "memory"
    storage_dir: str | None = None
    max_transitions: int | None = None
    check: bool = True
    clip_actions: bool = False
    on_nonfinite: str = "stop"
    unmarked_ends: str = "stop"
    rewards: str = "recorded"
    generator: Any = None
    _convert_: str = "all"


@dataclass
class MinariConfig(_Rows):
    """:func:`~o3f.data.load_minari`."""

    dataset_id: str = MISSING
    download: bool = False
    root: str | None = None
    _target_: str = _MAKE + "minari_buffer"


@dataclass
class FileConfig(_Rows):
    """:func:`~o3f.data.load_file`; ``env`` has the fields of :class:`~o3f.envs.EnvConfig`."""

    path: str = MISSING
    format: str = "auto"
    env: Any = None
    _target_: str = _MAKE + "file_buffer"


@dataclass
class LearnerConfig(ConfigBase):
    """:func:`~o3f.algorithms.make_learner`: networks, loss and optimisers of an algorithm, as the recipes have them.

    ``config`` has the hyper-parameters, the fields of :class:`~o3f.algorithms.IQLConfig` and its siblings.
    """

    name: str = MISSING
    observation_dim: int = MISSING
    action_dim: int = MISSING
    config: Any = field(default_factory=dict)
    device: Any = None
    _convert_: str = "all"
    _target_: str = "o3f.algorithms.make_learner"

    def __post_init__(self) -> None:
        """Nothing to check."""
