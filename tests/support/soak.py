"""A long run of the modules with two worker processes, as a user composes them, and the memory it takes.

python -m tests.support.soak 100_000 FOLDER    so many steps of Pendulum-v1, with evaluations and checkpoints in FOLDER
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torchrl.collectors import MultiSyncCollector

from o3f import OptimisticActor
from o3f.algorithms import make_learner
from o3f.data import make_buffer
from o3f.envs import EnvConfig, make_env
from o3f.evaluation.episodes import evaluate
from o3f.runs.checkpoint import save

ENV = EnvConfig("Pendulum-v1")
WORKERS, FRAMES = 2, 100  # frames of both together between two updates of their weights


def megabytes() -> list[float]:
    """Anonymous memory of this process and of each of its children."""
    parent = os.getpid()
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found = []
    for process in (str(parent), *children):
        status = Path(f"/proc/{process}/status").read_text()
        found += [int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("RssAnon")]
    return found


def soak(steps: int, folder: Path, every: int) -> Iterator[tuple[int, float, list[float]]]:
    """Collect, update, evaluate and save; yields step, return and memory after every ``every`` steps."""
    torch.manual_seed(0)
    learner = make_learner("sac", 3, 1, {"hidden_sizes": (16, 16)})
    actor = OptimisticActor(learner.policy, learner.critic, sigma=0.2)
    buffer = make_buffer(None, online_capacity=steps // 2, batch_size=64)  # old rows are replaced half way
    makers: Any = [functools.partial(make_env, ENV, seed=worker) for worker in range(WORKERS)]
    collector = MultiSyncCollector(makers, actor, frames_per_batch=FRAMES, total_frames=steps, cat_results="stack")
    try:
        for done, frames in enumerate(collector, 1):
            buffer.extend(frames.reshape(-1))
            learner.update([buffer.sample() for _ in range(5)])
            collector.update_policy_weights_()
            step = done * FRAMES
            if step % every == 0:
                returns = evaluate(learner.policy, ENV, episodes=1, seed=7).returns
                save(folder, step, {"learner": learner})
                yield step, float(returns.mean()), megabytes()
    finally:
        collector.shutdown()


def main(steps: int, folder: Path) -> None:
    """Print a line every tenth of the way."""
    torch.set_num_threads(1)
    for step, score, memory in soak(steps, folder, every=steps // 10):
        told = ", ".join(f"{each:.0f}" for each in memory)
        print(f"step {step}: return {score:.0f}, anonymous MB of this process and its children: {told}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp()))
