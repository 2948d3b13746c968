"""A run's policy as files that need no part of this package: weights, a ``torch.export`` program, JSON and a card."""

from __future__ import annotations

from o3f.export.card import card_text
from o3f.export.contents import (
    describe_interface,
    describe_limits,
    describe_program,
    describe_weights,
    max_change,
    normalisation,
)
from o3f.export.facts import run_facts
from o3f.export.folder import check_destination, staged_folder, write_manifest
from o3f.export.interface import Interface
from o3f.export.latency import decision_latency, latencies
from o3f.export.networks import plain_policy
from o3f.export.observations import real_observations
from o3f.export.optimistic import OptimisticProgram
from o3f.export.parity import TOLERANCE, check_parity
from o3f.export.programs import PolicyProgram, save_program, weights

__all__ = [
    "TOLERANCE",
    "Interface",
    "OptimisticProgram",
    "PolicyProgram",
    "card_text",
    "check_destination",
    "check_parity",
    "decision_latency",
    "describe_interface",
    "describe_limits",
    "describe_program",
    "describe_weights",
    "latencies",
    "max_change",
    "normalisation",
    "plain_policy",
    "real_observations",
    "run_facts",
    "save_program",
    "staged_folder",
    "weights",
    "write_manifest",
]
