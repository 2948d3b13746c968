"""The collection that settings ask for."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase
from torchrl.checkpoint import GlobalRNGState
from torchrl.data import ReplayBuffer

from o3f.collection.single import Single
from o3f.collection.steps import Collection, Settings, State
from o3f.collection.workers import Workers


def make_collection(settings: Settings, actor: TensorDictModuleBase, state: State, buffer: ReplayBuffer) -> Collection:
    """Start what ``settings`` ask for, acting with the newest policy and critics, from the next episode on.

    Args:
        settings: of the run.
        actor: that collects.
        state: counters of the run: ``step``, ``episode`` and ``saved`` are read, failures are counted.
        buffer: where the steps are stored; rows before a failure are marked there as ends of episodes.
    """
    streams = GlobalRNGState().state_dict()
    kind = Single if settings.kind == "single" else Workers
    collection = kind(settings, actor, state, buffer)
    GlobalRNGState().load_state_dict(streams)  # building draws numbers, and must not in a run that goes on
    return collection
