"""Whether ``precision=medium`` pays on this machine's CPU, and what it costs in accuracy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from o3f.cli.doctor.findings import Finding

#: Less is a tie: times of one machine wander by as much.
GAIN = 1.1

#: Both precisions are timed so often, in turn, so that what else the machine does slows both.
ROUNDS = 40

#: In each round, of each precision: about a second in all on a CPU without bf16 instructions.
PRODUCTS = 5


def check_precision() -> Iterator[Finding]:
    """Time matrix products of a learner's size on one thread, as runs have them; settings stay as they are."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        operands = _operands()
        gain, error = _gain(operands), _relative_error(operands)
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    told = f"relative error {error:.1e}"
    if gain < GAIN:
        yield Finding(
            "ok", f"no gain here from precision=medium ({gain:.2f}x as fast, {told}): leave precision=highest"
        )
    else:
        yield Finding("note", f"precision=medium: {gain:.2f}x as fast here in matrix products ({told})")


def _operands() -> tuple[Tensor, Tensor, Tensor]:
    """Bias, activations and weights of a hidden layer of five critics."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 1, 256), (5, 256, 256), (5, 256, 256))
    bias, hidden, weight = (torch.randn(shape, generator=generator) for shape in shapes)
    return bias, hidden, weight


def _gain(operands: tuple[Tensor, Tensor, Tensor]) -> float:
    """How many times as fast ``medium`` is as ``highest``, the median of the rounds."""
    for precision in ("highest", "medium"):
        _seconds(precision, operands)  # the first call of each also prepares
    return statistics.median(_seconds("highest", operands) / _seconds("medium", operands) for _ in range(ROUNDS))


def _seconds(precision: str, operands: tuple[Tensor, Tensor, Tensor]) -> float:
    torch.set_float32_matmul_precision(precision)
    start = time.perf_counter()
    for _ in range(PRODUCTS):
        torch.baddbmm(*operands)
    return time.perf_counter() - start


def _relative_error(operands: tuple[Tensor, Tensor, Tensor]) -> float:
    """Of ``medium``, against double precision."""
    torch.set_float32_matmul_precision("medium")
    exact = torch.baddbmm(*(operand.double() for operand in operands))
    return float((torch.baddbmm(*operands) - exact).norm() / exact.norm())
