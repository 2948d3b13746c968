"""Random numbers that survive copying, saving, moving between devices and multi-process collection."""

from __future__ import annotations

import multiprocessing
import os
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class NoiseSource(nn.Module):
    """Random numbers from a given generator, or from torch's global stream.

    A generator given is part of ``state_dict()`` (as a plain tensor) and is cloned by ``copy.deepcopy``.
    It is replaced by a new one, seeded from its next number,

    - when numbers are asked for on another device: on that device;
    - in a worker process that received a copy: mixed with the process's name (``Process-1``, ...), so that
      workers draw different numbers and a program draws the same in every run. Workers that
      ``multiprocessing`` did not start (Ray's, for example) mix in their ``torch.initial_seed()`` instead.

    With ``generator=None`` each process has its own global stream: spawned workers, TorchRL's default, start
    from unrelated seeds, or from those that the collector's ``set_seed`` gives them. Forked workers inherit
    one stream, so there ``set_seed`` is needed to tell them apart.

    Args:
        generator: source of randomness, advanced in place; ``None`` for torch's global stream.

    Raises:
        TypeError: if it is none of torch's, a seed for example.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if not (generator is None or isinstance(generator, torch.Generator)):
            raise TypeError(
                f"generator must be a torch.Generator or None, got {generator!r}. Of a seed it is made with"
                " torch.Generator().manual_seed(SEED)."
            )
        self.generator = generator
        self._process = os.getpid()

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Draw independent N(0, 1) numbers of a shape, with the dtype and device of ``like``."""
        generator = self._generator_on(like.device)
        return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)

    def integers(self, count: int, shape: Sequence[int], like: Tensor) -> Tensor:
        """Draw independent whole numbers, uniform in 0 to ``count - 1``, on the device of ``like``."""
        return torch.randint(count, tuple(shape), device=like.device, generator=self._generator_on(like.device))

    def gumbel(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Draw independent standard Gumbel numbers: ``argmax(logits + gumbel)`` samples the softmax of logits."""
        uniform = torch.rand(tuple(shape), device=like.device, generator=self._generator_on(like.device))
        tiny = torch.finfo(uniform.dtype).tiny
        return -(-(uniform.clamp_min(tiny).log())).log().to(like.dtype)

    def _generator_on(self, device: torch.device) -> torch.Generator | None:
        if self.generator is not None and self._process != os.getpid():
            self._process = os.getpid()
            self.generator = _successor(self.generator, self.generator.device, _salt_of_process())
        if self.generator is not None and self.generator.device != device:
            self.generator = _successor(self.generator, device)
        return self.generator

    def __getstate__(self) -> dict[str, Any]:
        # As bytes: torch would send the state through shared memory that is gone when a worker opens it.
        state = self.__dict__.copy()
        if self.generator is not None:
            state["generator"] = (self.generator.device, bytes(self.generator.get_state().tolist()))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.generator is not None:
            device, numbers = state["generator"]
            self.generator = torch.Generator(device)
            self.generator.set_state(torch.tensor(list(numbers), dtype=torch.uint8))

    def get_extra_state(self) -> Tensor:
        """Return the generator's state, empty if there is none."""
        return torch.empty(0, dtype=torch.uint8) if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the generator's state.

        Raises:
            ValueError: if the state was saved with a generator and there is none here, or the reverse.
        """
        if (self.generator is None) != (state.numel() == 0):
            saved, here = ("torch's global stream", "a generator")[:: 1 if state.numel() == 0 else -1]
            raise ValueError(
                f"The saved module drew its noise from {saved}, this one draws it from {here}: "
                "build both with, or both without, generator=."
            )
        if self.generator is None:
            return
        device = "cpu" if state.numel() == torch.Generator().get_state().numel() else "cuda"
        if self.generator.device.type != device:
            self.generator = torch.Generator(device)
        self.generator.set_state(state.cpu())


def _salt_of_process() -> int:
    if multiprocessing.parent_process() is None:
        return torch.initial_seed()
    return zlib.crc32(multiprocessing.current_process().name.encode())


def _successor(generator: torch.Generator, device: torch.device, salt: int = 0) -> torch.Generator:
    seed = torch.randint(2**62, (), generator=generator, device=generator.device).item()
    return torch.Generator(device).manual_seed((int(seed) ^ salt) % 2**63)
