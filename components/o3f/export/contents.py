"""How the programs of an exported policy are used, in a form for other programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from o3f.export.interface import Interface
from o3f.export.programs import PolicyProgram
from o3f.modules.normalisation import Normaliser
from o3f.runs.identity import plain
from o3f.training.exploration import LIMITS

_MEANING = {
    "observation": "the flat observation, raw",
    "previous": "the action executed before, in the environment's units; NaN in an episode's first step",
    "noise": "standard normal numbers, one set for each candidate",
    "policy_noise": "standard normal numbers of the policy's own sample",
}


def describe_program(program: PolicyProgram) -> dict[str, Any]:
    """Return a program's inputs and output: names, shapes with ``"B"`` for any number, meaning, and how to call it."""
    inputs = {
        name: {"shape": ["B", *value.shape[1:]], "dtype": "float32", "meaning": _MEANING[name]}
        for name, value in program.inputs().items()
    }
    named = [f"{name}={name}" for name in inputs if name != "observation"]
    return {
        "call": f"program({', '.join(['observation', *named])})",
        "inputs": inputs,
        "output": {
            "shape": ["B", program.action_half.numel()],
            "dtype": "float32",
            "meaning": "the action, in the environment's units",
        },
    }


def describe_interface(interface: Interface, trained: DictConfig) -> dict[str, Any]:
    """Return the layout of observations, and the actions' bounds and rate."""
    return {
        "observation": {"size": interface.layout.size, "dtype": "float32", "parts": interface.parts()},
        "action": {
            "size": len(interface.low),
            "dtype": "float32",
            "low": interface.low.tolist(),
            "high": interface.high.tolist(),
            "centre": interface.centre.tolist(),
            "half": interface.half.tolist(),
            "action_scale": trained.task.env.action_scale,
            "environment_steps_per_action": trained.task.env.frame_skip,
        },
    }


def describe_limits(trained: DictConfig) -> dict[str, Any]:
    """Return the limits for hardware that the run explored with, in units of [-1, 1]; empty without any."""
    exploration = plain(trained).get("exploration") or {}
    return {name: exploration[name] for name in LIMITS if exploration.get(name) is not None}


def describe_weights(state: dict[str, Tensor]) -> dict[str, list[int]]:
    """Return the shape of every entry of ``model.safetensors``."""
    return {name: list(value.shape) for name, value in state.items()}


def normalisation(program: nn.Module) -> dict[str, Any]:
    """Return the z-scores inside a program by name, ``(x - loc) / scale``; empty where it takes inputs as they are."""
    return {
        name: {"of": list(part.keys), "loc": _numbers(part.loc), "scale": _numbers(part.scale)}
        for name, part in program.named_modules()
        if isinstance(part, Normaliser)
    }


def max_change(trained: DictConfig, action_dim: int) -> Tensor | None:
    """Return the run's limit on the change of an action, ``[A]``, or None."""
    limit = describe_limits(trained).get("max_change")
    return None if limit is None else torch.as_tensor(limit, dtype=torch.float32).expand(action_dim).clone()


def _numbers(value: Tensor) -> list[float]:
    return [float(number) for number in np.asarray(value)]
