"""Seeds of episodes and of a process's random streams."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from o3f.envs.wrappers import Env, Reset, Wrapper
from o3f.modules.arguments import whole_number


class SeededResets(Wrapper):
    """Episode ``k`` resets with :func:`episode_seed` ``(seed, k)``, so any episode can be replayed alone.

    That holds for what an environment draws from its own generator, as Gymnasium asks of it; what it draws from a
    global stream, no seed of a reset reaches.

    A reset with a seed of its own (``set_seed`` of a TorchRL environment) makes that the seed and starts
    again at episode 0.

    Args:
        env: the environment.
        seed: base seed; give each parallel environment its own.
        first_episode: number of the first episode; a resumed run passes the episodes it has finished.
    """

    def __init__(self, env: Env, seed: int, first_episode: int = 0) -> None:
        super().__init__(env)
        self.seed = seed
        self.episode = first_episode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Start the next episode."""
        if seed is not None:
            self.seed, self.episode = seed, 0
        result = self.env.reset(seed=episode_seed(self.seed, self.episode), options=options)
        self.episode += 1
        return result


def episode_seed(seed: int, episode: int) -> int:
    """The seed of one episode: a hash of both numbers (NumPy's ``SeedSequence``), 32 bits.

    Raises:
        ValueError: if a number is none, or negative.
    """
    seed, episode = whole_number("seed", seed, least=0), whole_number("episode", episode, least=0)
    return int(np.random.SeedSequence([seed, episode]).generate_state(1)[0])


def seed_streams(seed: int) -> None:
    """Seed the global streams of torch (which a run draws from), NumPy and Python (an environment may)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


@contextlib.contextmanager
def own_streams(seed: int) -> Iterator[None]:
    """Seed the global streams as :func:`seed_streams` does for the block, and put them back afterwards."""
    saved_python, saved_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            seed_streams(seed)
            yield
    finally:
        random.setstate(saved_python)
        np.random.set_state(saved_numpy)  # noqa: NPY002
