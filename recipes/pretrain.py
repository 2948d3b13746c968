"""Offline pre-training: python recipes/pretrain.py task=hopper/medium algorithm=iql seed=0."""

from __future__ import annotations

from omegaconf import DictConfig

from o3f.commands import command, given_overrides
from o3f.config import recipe
from o3f.pretraining import pretrain


@recipe("pretrain")
def main(config: DictConfig) -> None:
    """Train on the dataset alone and say what to do next."""
    folder = pretrain(config)
    print(f"Pre-trained: {folder}")
    print(f"Next: {command('finetune', *given_overrides(), f'pretrained={folder}')}")


if __name__ == "__main__":
    main()
