"""What acts while a dataset is collected, and how its trajectories become a Minari dataset."""

from __future__ import annotations

from o3f.collection.behaviours.from_actor import gaussian_mlp_from_actor
from o3f.collection.behaviours.gaussian_mlp import GaussianMLP
from o3f.collection.behaviours.make import BehaviourConfig, make_behaviour
from o3f.collection.behaviours.minari_writer import MinariWriter, new_dataset_path, write_minari
from o3f.collection.behaviours.policies import GaussianMLPBehaviour, PolicyBehaviour, UniformBehaviour
from o3f.collection.behaviours.recording import record
from o3f.collection.behaviours.rollout import Behaviour, Trajectory, rollout
from o3f.collection.behaviours.waypoint import WaypointBehaviour

__all__ = [
    "Behaviour",
    "BehaviourConfig",
    "GaussianMLP",
    "GaussianMLPBehaviour",
    "MinariWriter",
    "PolicyBehaviour",
    "Trajectory",
    "UniformBehaviour",
    "WaypointBehaviour",
    "gaussian_mlp_from_actor",
    "make_behaviour",
    "new_dataset_path",
    "record",
    "rollout",
    "write_minari",
]
