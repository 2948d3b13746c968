"""Offline pre-training: python recipes/pretrain.py task=hopper/medium algorithm=iql seed=0."""

from __future__ import annotations

from omegaconf import DictConfig

from o3f.config import recipe
from o3f.pretraining import pretrain


@recipe("pretrain")
def main(config: DictConfig) -> None:
    """Train on the dataset alone and say what to do next."""
    folder = pretrain(config)
    task = f"task={config.task.name}"
    print(f"Pre-trained: {folder}\nNext: python recipes/finetune.py {task} pretrained={folder}")


if __name__ == "__main__":
    main()
