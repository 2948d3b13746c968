"""Fine-tuning from TorchRL's own Hydra tree.

First the dataset:   python recipes/collect.py task=halfcheetah/random
A loss, an Adam:     python docs/examples/torchrl_hydra/main.py
A learner (LAPO):    python docs/examples/torchrl_hydra/main.py --config-name=lapo
"""

from __future__ import annotations

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from torchrl.trainers import Trainer

import o3f.training.torchrl  # noqa: F401  registers o3f_iql, o3f_optimistic_actor, ... in TorchRL's groups


def build(config: DictConfig) -> Trainer:
    """Everything, by the one node that names each part once."""
    return instantiate(config.trainer)


@hydra.main(config_path=".", config_name="iql", version_base="1.3")
def main(config: DictConfig) -> None:
    """Train on the dataset, then online."""
    trainer = build(config)
    trainer.train()
    print(f"Trained on {trainer.collected_frames} transitions.")


if __name__ == "__main__":
    main()
