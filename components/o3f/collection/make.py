"""The collection that a configuration asks for."""

from __future__ import annotations

from omegaconf import DictConfig
from tensordict.nn import TensorDictModuleBase
from torchrl.checkpoint import GlobalRNGState
from torchrl.data import ReplayBuffer

from o3f.collection.single import Single
from o3f.collection.steps import Collection, State
from o3f.collection.workers import Workers


def make_collection(config: DictConfig, actor: TensorDictModuleBase, state: State, buffer: ReplayBuffer) -> Collection:
    """Start what ``collector`` asks for, acting with the newest policy and critics, from the next episode on.

    Args:
        config: a fine-tuning configuration.
        actor: that collects.
        state: counters of the run: ``step``, ``episode`` and ``saved`` are read, failures are counted.
        buffer: where the steps are stored; rows before a failure are marked there as ends of episodes.
    """
    streams = GlobalRNGState().state_dict()
    kind = Single if config.collector.kind == "single" else Workers
    collection = kind(config, actor, state, buffer)
    GlobalRNGState().load_state_dict(streams)  # building draws numbers, and must not in a run that goes on
    return collection
