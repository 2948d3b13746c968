"""Torch's devices, a real update, and the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict

from o3f.algorithms import make_learner
from o3f.cli.doctor.findings import Finding
from o3f.data.minari_store import datasets_root

#: Less free space than this is told: a run of the paper's size keeps two checkpoints of up to 250k online rows.
FREE_BYTES = 5 * 10**9

#: Environment variables that change what happens; no other one is read or shown.
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MUJOCO_GL", "MINARI_DATASETS_PATH")


def check_torch() -> Iterator[Finding]:
    """Devices, threads and libraries, and one update of a small agent on each kind of device."""
    backends: Any = torch.backends
    libraries = {"MKL": backends.mkl.is_available(), "oneDNN": backends.mkldnn.is_available()}
    having = ", ".join(name if there else f"no {name}" for name, there in libraries.items())
    capability = backends.cpu.get_cpu_capability()
    yield Finding("ok", f"CPU: {capability}, {having}, {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    yield _update("cpu")
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        yield Finding("ok", f"CUDA {number}: {device.name}, {device.total_memory / 2**30:.0f} GiB")
    if torch.cuda.is_available():
        yield _update("cuda")
    else:
        why = "built without it" if torch.version.cuda is None else f"CUDA {torch.version.cuda} finds no device"
        yield Finding("note", f"no CUDA: torch {torch.__version__}, {why}")
    for name in VARIABLES:
        if name in os.environ:
            yield Finding("note", f"{name}={os.environ[name]}")


def check_disk() -> Iterator[Finding]:
    """Free space and permission where runs and datasets go."""
    for what, folder in {"runs": Path("runs").absolute(), "datasets": datasets_root()}.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        if not os.access(there, os.W_OK):
            yield Finding("broken", f"{what}: {there} cannot be written to", f"choose another folder: {_other(what)}")
        elif free < FREE_BYTES:
            told = f"{what}: {free / 1e9:.1f} GB free in {folder}, expected {FREE_BYTES / 1e9:.0f}"
            yield Finding("note", told, f"free some, or choose another disk: {_other(what)}")
        else:
            yield Finding("ok", f"{what}: {free / 1e9:.0f} GB free in {folder}")


def _other(what: str) -> str:
    return "runs=FOLDER" if what == "runs" else "MINARI_DATASETS_PATH=FOLDER"


def _update(device: str) -> Finding:
    """One update of IQL; its losses must be numbers."""
    with torch.random.fork_rng():
        learner = make_learner("iql", 3, 2, {"hidden_sizes": [8, 8]}, device)
        following: dict[str, Any] = {
            "observation": torch.randn(16, 3),
            "reward": torch.randn(16, 1),
            "terminated": torch.zeros(16, 1, dtype=torch.bool),
            "done": torch.zeros(16, 1, dtype=torch.bool),
        }
        rows = {"observation": torch.randn(16, 3), "action": torch.rand(16, 2), "next": following}
        losses = learner.update([TensorDict(rows, [16]).to(device)])  # pyright: ignore[reportArgumentType]
    finite = all(bool(torch.isfinite(value)) for value in losses.values())
    return Finding(
        "ok" if finite else "broken", f"an update on {device} gives {'finite numbers' if finite else 'NaN or infinity'}"
    )
