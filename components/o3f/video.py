"""A film of one episode; nothing else depends on it."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.envs import EnvConfig, episode_seed, make_raw_env
from o3f.envs.wrappers import Env, FlatObservation
from o3f.evaluation import isolated


def record_video(
    policy: TensorDictModuleBase,
    config: EnvConfig,
    folder: str | Path,
    *,
    name: str,
    seed: int,
    exploration: ExplorationType = ExplorationType.DETERMINISTIC,
) -> Path | None:
    """Film episode 0 of :func:`o3f.evaluation.evaluate` with the same seed.

    Whatever goes wrong (no ``moviepy``, no OpenGL, a full disk) is one warning: no run ends for a film.

    Args:
        policy: as in ``evaluate``.
        config: the environment.
        folder: where the film goes; made if needed.
        name: file name without ``-episode-0.mp4``.
        seed: of the episode.
        exploration: as in ``evaluate``.

    Returns:
        The film, or None if there is none.
    """
    path = Path(folder) / f"{name}-episode-0.mp4"
    try:
        env = _filming(config, path, name)
        try:
            with isolated(policy, seed), torch.no_grad(), set_exploration_type(exploration):
                _play(policy, env, episode_seed(seed, 0))
        finally:
            env.close()
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        _warn(f'{error} Try: pip install "o3f[video]"')
    except Exception as error:
        _warn(f"{type(error).__name__}: {error} Without a display, try MUJOCO_GL=egl or MUJOCO_GL=osmesa.")
    return path if path.is_file() else None


def _warn(reason: str) -> None:
    warnings.warn(f"No video was recorded. {reason}", RuntimeWarning, stacklevel=3)


def _filming(config: EnvConfig, path: Path, name: str) -> Env:
    env = FlatObservation(make_raw_env(config, render_mode="rgb_array"), config.observation_keys)
    path.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Overwriting existing videos")
        return gymnasium.wrappers.RecordVideo(
            env,
            str(path.parent),
            episode_trigger=lambda episode: episode == 0,
            name_prefix=name,
            fps=max(1, round(env.metadata.get("render_fps", 30) / config.frame_skip)),
            disable_logger=True,
        )


def _play(policy: TensorDictModuleBase, env: Env, seed: int) -> None:
    observation, _ = env.reset(seed=seed)
    done, is_init = False, True
    while not done:
        step = TensorDict({"observation": torch.from_numpy(observation)[None], "is_init": [[is_init]]}, [1])
        action = policy(step)["action"][0].cpu().numpy()
        observation, _, terminated, truncated, _ = env.step(action)
        done, is_init = terminated or truncated, False
