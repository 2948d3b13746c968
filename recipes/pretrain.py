"""Offline pre-training: python recipes/pretrain.py task=hopper/medium algorithm=iql seed=0."""

from __future__ import annotations

from omegaconf import DictConfig

from o3f.cli.commands import command, given_overrides
from o3f.cli.recipe import recipe
from o3f.training.lanes import complete, lane_configs
from o3f.training.offline import pretrain


@recipe("pretrain")
def main(config: DictConfig) -> None:
    """Train on the dataset alone and say what to do next."""
    folders = complete([pretrain(each) for each in lane_configs(config)])
    print(f"Pre-trained: {', '.join(map(str, folders))}")
    found = () if config.num_lanes > 1 else (f"pretrained={folders[0]}",)  # each lane finds its own
    given = [each for each in given_overrides() if not each.startswith("algorithm.actor_decay_steps=")]  # it is over
    print(f"Next: {command('finetune', *given, *found)}")


if __name__ == "__main__":
    main()
