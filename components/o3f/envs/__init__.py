"""Environments in the agent's units: actions in [-1, 1], flat float32 observations, seeded episodes."""

from __future__ import annotations

from o3f.envs.checks import check_interface
from o3f.envs.make import EnvConfig, make_env, make_gym_env, make_raw_env
from o3f.envs.restarts import Restarting
from o3f.envs.seeds import episode_seed

__all__ = [
    "EnvConfig",
    "Restarting",
    "check_interface",
    "episode_seed",
    "make_env",
    "make_gym_env",
    "make_raw_env",
]
