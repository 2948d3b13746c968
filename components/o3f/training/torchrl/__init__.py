"""This package in TorchRL's own Hydra tree: ``import o3f.training.torchrl`` before ``@hydra.main`` registers all of it.

The groups are TorchRL's where it has one (``loss``, ``model``, ``exploration``, ``replay_buffer``, ``env``,
``trainer``), so that a configuration takes ``loss@loss: o3f_iql`` beside ``optimizer@optimizer: adam``; the others
are ``candidates``, ``ascent``, ``scorer`` and ``selector`` (the parts of an actor) and ``learner``.
"""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from o3f.training.torchrl.make import policy_of
from o3f.training.torchrl.nodes import GROUPS
from o3f.training.torchrl.trainer import make_trainer

__all__ = ["GROUPS", "make_trainer", "policy_of"]

for _group, _nodes in GROUPS.items():
    for _name, _node in _nodes.items():
        ConfigStore.instance().store(group=_group, name=_name, node=_node, provider="o3f")
