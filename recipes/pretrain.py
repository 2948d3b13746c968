"""Offline pre-training: python recipes/pretrain.py task=hopper/medium algorithm=iql seed=0."""

from __future__ import annotations

from o3f.cli.recipe import answer_first, recipe

if __name__ == "__main__":
    answer_first("pretrain", __file__)  # before the imports below, which take seconds

from omegaconf import DictConfig

from o3f.cli.commands import command, given_overrides
from o3f.training.offline import pretrain


@recipe("pretrain")
def main(config: DictConfig) -> None:
    """Train on the dataset alone and say what to do next."""
    folder = pretrain(config)
    print(f"Pre-trained: {folder}")
    given = [each for each in given_overrides() if not each.startswith("algorithm.actor_decay_steps=")]  # it is over
    print(f"Next: {command('finetune', *given, f'pretrained={folder}')}")


if __name__ == "__main__":
    main()
