"""The collection that settings ask for."""

from __future__ import annotations

from tensordict.nn import TensorDictModuleBase
from torchrl.checkpoint import GlobalRNGState
from torchrl.data import ReplayBuffer

from o3f.collection.single import Single
from o3f.collection.steps import Collection, Settings
from o3f.collection.workers import Workers
from o3f.runs.counters import Counters


def make_collection(
    settings: Settings, actor: TensorDictModuleBase, counters: Counters, buffer: ReplayBuffer
) -> Collection:
    """Start what ``settings`` ask for, acting with the newest policy and critics, from the next episode on.

    Args:
        settings: of the run.
        actor: that collects.
        counters: of the run; starts and failures are counted in them.
        buffer: where the steps are stored; rows before a failure are marked there as ends of episodes.
    """
    streams = GlobalRNGState().state_dict()
    kind = Single if settings.kind == "single" else Workers
    collection = kind(settings, actor, counters, buffer)
    GlobalRNGState().load_state_dict(streams)  # building draws numbers, and must not in a run that goes on
    return collection
