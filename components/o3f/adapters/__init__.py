"""Agents from elsewhere: CORL, d3rlpy, rlkit, Stable-Baselines3, one's own modules, or a file."""

from __future__ import annotations

from o3f.adapters.checks import check_agent
from o3f.adapters.d3rlpy import from_d3rlpy
from o3f.adapters.load import agent_digest, as_agent, from_tensors, is_agent, is_function, load_agent
from o3f.adapters.modules import from_modules
from o3f.adapters.native import is_own, save_agent
from o3f.adapters.sb3 import from_sb3
from o3f.algorithms.agent import Agent

__all__ = [
    "Agent",
    "agent_digest",
    "as_agent",
    "check_agent",
    "from_d3rlpy",
    "from_modules",
    "from_sb3",
    "from_tensors",
    "is_agent",
    "is_function",
    "is_own",
    "load_agent",
    "save_agent",
]
