"""A film of one episode; nothing else depends on it."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.envs import EnvConfig, episode_seed, make_raw_env
from o3f.envs.flat_observation import FlatObservation
from o3f.envs.wrappers import Env
from o3f.evaluation.playing import isolated, play

#: Why there are no pictures in this process, once one could not be drawn: what draws them may end it at a second try.
_blind: list[Exception] = []


def record_video(
    policy: TensorDictModuleBase,
    config: EnvConfig,
    path: str | Path,
    *,
    seed: int,
    exploration: ExplorationType = ExplorationType.DETERMINISTIC,  # pyright: ignore[reportArgumentType]
) -> Path | None:
    """Film episode 0 of :func:`o3f.evaluation.episodes.evaluate` with the same seed.

    Whatever goes wrong (no ffmpeg, no OpenGL, a full disk) is one warning: no run ends for a film. Where the first
    picture of one cannot be drawn, the process makes no further film, without another word.

    Args:
        policy: as in ``evaluate``.
        config: the environment; it must know ``render_mode="rgb_array"``.
        path: the ``.mp4`` file; its folder is made if needed.
        seed: of the episode.
        exploration: as in ``evaluate``.

    Returns:
        The film, or None if there is none.
    """
    path = Path(path)
    if _blind:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".film-") as scratch:
            film = Path(scratch) / path.name
            with isolated(policy, seed), set_exploration_type(exploration):
                _film(policy, config, film, seed)
            os.replace(film, path)  # a link there is replaced, not written through
    except ImportError as error:
        _warn(f'{error}. Try: pip install "o3f[video]"')
    except Exception as error:
        last = " No further film is made in this process." if error in _blind else ""
        _warn(f"{type(error).__name__}: {error}. Without a display, try MUJOCO_GL=egl or MUJOCO_GL=osmesa.{last}")
    else:
        return path
    return None


def _warn(reason: str) -> None:
    warnings.warn(f"No video was recorded. {reason}", RuntimeWarning, stacklevel=3)


def _film(policy: TensorDictModuleBase, config: EnvConfig, path: Path, seed: int) -> None:
    imageio_ffmpeg: Any = importlib.import_module("imageio_ffmpeg")
    env = FlatObservation(make_raw_env(config, render_mode="rgb_array"), config.observation_keys)
    with contextlib.closing(env):
        observation, _ = env.reset(seed=episode_seed(seed, 0))
        frame = _first_picture(env)
        fps = max(1.0, env.metadata.get("render_fps", 30) / config.frame_skip)
        with contextlib.closing(imageio_ffmpeg.write_frames(path, frame.shape[1::-1], fps=fps)) as film:
            film.send(None)
            film.send(np.ascontiguousarray(frame))
            for _ in play(policy, env, observation):
                film.send(np.ascontiguousarray(env.render()))


def _first_picture(env: Env) -> Any:
    try:
        return np.asarray(env.render())
    except Exception as error:
        _blind.append(error)
        raise
