"""Write a run's policy as a small .npz file: python recipes/export.py run=RUN to=policy.npz.

The file serves collect (task.behaviour.kind=npz task.behaviour.path=policy.npz) and needs NumPy alone.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from o3f import build
from o3f.behaviours import gaussian_mlp_from_actor
from o3f.config import recipe


@recipe("export")
def main(config: DictConfig) -> None:
    """Copy the weights; the result is compared with the policy before it is written."""
    trained, learner = build.load_run(config.run, config.checkpoint)
    gaussian_mlp_from_actor(learner.policy).save(config.to)
    print(f"{config.to}: {Path(config.to).stat().st_size / 1000:.0f} kB, the policy of {config.run}")
    print(f"Next: python recipes/collect.py task=custom task.env.id={trained.task.env.id} \\")
    print(f"  task.dataset.id=me/mine-v0 task.behaviour.kind=npz task.behaviour.path={config.to}")


if __name__ == "__main__":
    main()
