"""Offline pre-training, for the recipe of that name and for fine-tuning runs that need an agent to start from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from o3f import build
from o3f.checkpoint import load_latest, save
from o3f.logging import RunLogger
from o3f.progress import Progress, Stopwatch
from o3f.reporting import evaluate_and_log, evaluate_policy
from o3f.run_config import FREE_KEYS, leaves, plain
from o3f.runs import RunFolder

#: Parts of a fine-tuning configuration that its pre-training does not depend on.
ONLINE_KEYS = ("exploration", "online", "pretrained")


def pretrain(config: DictConfig, *, timeout: float = 0.0) -> Path:
    """Train a learner on a dataset alone, or go on where an earlier process stopped.

    Args:
        config: ``conf/pretrain.yaml``.
        timeout: seconds to wait for another process that trains the same run; -1 waits for ever.

    Returns:
        The run folder, with the learner in its newest checkpoint.
    """
    with RunFolder.open(config, timeout=timeout) as run:
        if run.scores is None:
            run.finish(_train(config, run))
        return run.path


def pretrain_shared(config: DictConfig) -> Path:
    """Pre-train what a fine-tuning configuration starts from, once for all runs that start from the same.

    The run's name is a digest of everything the pre-training depends on; the first process that needs it trains, the
    others wait for it.
    """
    offline = plain(OmegaConf.masked_copy(config, [str(key) for key in config if key not in ONLINE_KEYS]))
    offline |= {"resume": "auto", "name": "pretrained"}
    facts = {key: value for key, value in leaves(offline).items() if key not in FREE_KEYS | {"seed"}}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return pretrain(OmegaConf.create(offline | {"name": f"pretrained-{digest[:10]}"}), timeout=-1)


def _train(config: DictConfig, run: RunFolder) -> dict[str, Any]:
    learner = build.learner(config)
    buffer, _, facts = build.buffer(config, folder=run.path / "storage")
    run.record_environment(**facts)
    torch.manual_seed(config.seed)
    done = (load_latest(run.checkpoints, {"learner": learner}) or {"step": 0})["step"]
    logger = RunLogger(run.path, done or None, texts={"config": OmegaConf.to_yaml(config, resolve=True)})
    settings, total = config.offline, config.offline.steps
    scores: dict[str, Any] = {}
    clock = Stopwatch()
    with logger, Progress(f"offline {run.path}", total, done, enabled=config.progress) as progress:
        for step in range(done + 1, total + 1):
            metrics = learner.update([buffer.sample()])
            progress.advance()
            if step % settings.log_every == 0 or step == total:
                logger.log(step, {f"train/{tag}": value for tag, value in metrics.items()})
                logger.log_time(step, {"time/updates_per_second": clock.rate(settings.log_every)})
            if step % settings.evaluate_every == 0 or step == total:
                with clock.paused():
                    scores = evaluate_and_log(logger, progress, step, learner.policy, config)
            if step % settings.checkpoint_every == 0 or step == total:
                logger.flush()
                save(run.checkpoints, step, {"learner": learner})
    return scores or {"step": total, **evaluate_policy(learner.policy, config)}
