"""MuJoCo, FrankaKitchen and rendering: each is really used."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from typing import Any

import gymnasium as gym

from o3f.cli.doctor.findings import Finding
from o3f.cli.doctor.packages import install_line

_RENDER = (
    "import gymnasium; env = gymnasium.make('Reacher-v5', render_mode='rgb_array', width=64, height=64);"
    " env.reset(seed=0); frame = env.render(); assert frame.std() > 0; print('rendered')"
)


def check_mujoco(seconds: float = 0.5) -> Iterator[Finding]:
    """Step HalfCheetah for a while."""
    if not _installed("mujoco"):
        yield Finding("missing", "MuJoCo: no locomotion task can run", install_line("mujoco"))
        return
    with closing(gym.make("HalfCheetah-v5")) as env:
        observation, _ = env.reset(seed=0)
        env.action_space.seed(0)
        steps, start = 0, time.monotonic()
        while time.monotonic() - start < seconds:
            observation, _, _, truncated, _ = env.step(env.action_space.sample())
            steps += 1
            if truncated:
                env.reset()
        rate = steps / (time.monotonic() - start)
    finite = bool(abs(observation).max() < float("inf"))
    yield Finding("ok" if finite else "broken", f"HalfCheetah-v5: {rate:,.0f} steps a second")


def check_kitchen() -> Iterator[Finding]:
    """Make FrankaKitchen and take a step."""
    if not _installed("gymnasium-robotics"):
        yield Finding("missing", "Gymnasium-Robotics: no AntMaze and no FrankaKitchen", install_line("robotics"))
        return
    try:
        gym.register_envs(importlib.import_module("gymnasium_robotics"))
        with closing(gym.make("FrankaKitchen-v1")) as env:
            env.reset(seed=0)
            env.step(env.action_space.sample())
    except Exception as error:
        version = metadata.version("mujoco")
        trap = tuple(int(part) for part in version.split(".")[:2]) >= (3, 12)
        todo = 'pip install "mujoco<3.12"' if trap else install_line("robotics")
        told = (str(error).strip().splitlines() or ["no message"])[0]
        yield Finding("broken", f"FrankaKitchen-v1 with mujoco {version}: {type(error).__name__}: {told}", todo)
    else:
        yield Finding("ok", "FrankaKitchen-v1: a step taken")


def check_rendering(timeout: float = 6.0) -> Iterator[Finding]:
    """Render a frame for films, in processes of their own: a missing driver can end a process."""
    if not _installed("mujoco"):
        yield Finding("missing", "films need MuJoCo", install_line("video"))
        return
    chosen = os.environ.get("MUJOCO_GL")
    processes = {name: _start(name) for name in dict.fromkeys([chosen, "egl", "osmesa"])}
    works = [name for name, process in processes.items() if _rendered(process, timeout)]
    if chosen in works:
        yield Finding("ok", "films: a frame rendered")
    elif works:
        tried = f"MUJOCO_GL={chosen}" if chosen else "MUJOCO_GL unset"
        yield Finding("note", f"films: no frame rendered with {tried}", f"export MUJOCO_GL={works[0]}")
    else:
        todo = "install a driver with EGL, or: apt-get install libosmesa6"
        yield Finding("note", "films: no frame rendered with MUJOCO_GL as it is, egl or osmesa", todo)


def _start(name: str | None) -> subprocess.Popen[str]:
    environment = os.environ | ({"MUJOCO_GL": name} if name else {})
    call: list[Any] = [sys.executable, "-W", "ignore", "-c", _RENDER]
    return subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _rendered(process: subprocess.Popen[str], timeout: float) -> bool:
    try:
        return "rendered" in process.communicate(timeout=timeout)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
