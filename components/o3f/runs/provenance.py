"""What a result depends on beside its configuration: versions and machine."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import torch

_PACKAGES = (
    *("o3f", "torch", "torchrl", "tensordict", "numpy", "hydra-core", "tensorboard"),
    *("gymnasium", "gymnasium-robotics", "minari", "mujoco"),
)


def provenance() -> dict[str, str | int]:
    """Return package versions, python, operating system, processor, accelerator, torch's threads and precision.

    Environment variables, user and paths are left out: run folders are shared.
    """
    return {
        **{package: _version(package) for package in _PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
