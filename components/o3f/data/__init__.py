"""Minari datasets and files of arrays as TorchRL replay buffers: loading, checks, reward and observation rules."""

from __future__ import annotations

from o3f.data.actions import check_action_space, to_agent_actions, to_env_actions
from o3f.data.array_files import FORMATS, FileDataset, open_file
from o3f.data.balancing import BalancedSampler, DensityRatio
from o3f.data.buffers import buffer_over, make_buffer
from o3f.data.checks import check_dataset, check_environment
from o3f.data.info import DatasetInfo
from o3f.data.loading import dataset_info, load_file, load_minari
from o3f.data.mazes import check_maze
from o3f.data.minari_store import is_local, open_dataset
from o3f.data.mixing import OfflineOnlineSampler, OnlineWriter
from o3f.data.observations import ObservationLayout, observation_layout
from o3f.data.online import end_episode, online_rows, restore_online, store_returns
from o3f.data.reading import dataset_hash, read_minari
from o3f.data.report import DatasetReport
from o3f.data.returns import ReturnRule, discounted_returns
from o3f.data.rewards import RewardRule, largest_reward_scale, return_range_scale
from o3f.data.rows import RETURN_KEY, ROW_KEYS, allocate_rows, hash_rows
from o3f.data.sb3_buffers import sb3_arrays

__all__ = [
    "FORMATS",
    "RETURN_KEY",
    "ROW_KEYS",
    "BalancedSampler",
    "DatasetInfo",
    "DatasetReport",
    "DensityRatio",
    "FileDataset",
    "ObservationLayout",
    "OfflineOnlineSampler",
    "OnlineWriter",
    "ReturnRule",
    "RewardRule",
    "allocate_rows",
    "buffer_over",
    "check_action_space",
    "check_dataset",
    "check_environment",
    "check_maze",
    "dataset_hash",
    "dataset_info",
    "discounted_returns",
    "end_episode",
    "hash_rows",
    "is_local",
    "largest_reward_scale",
    "load_file",
    "load_minari",
    "make_buffer",
    "observation_layout",
    "online_rows",
    "open_dataset",
    "open_file",
    "read_minari",
    "restore_online",
    "return_range_scale",
    "sb3_arrays",
    "store_returns",
    "to_agent_actions",
    "to_env_actions",
]
