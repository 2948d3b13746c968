"""Fine-tuning with TorchRL's Trainer.

First the dataset:   python recipes/collect.py task=halfcheetah/random
Then:                python docs/examples/torchrl_trainer.py
"""

from __future__ import annotations

from typing import Any

from torchrl.checkpoint import Checkpoint, GlobalRNGState
from torchrl.collectors import Collector
from torchrl.trainers import Trainer

from o3f import OptimisticActor, load_minari
from o3f.algorithms import make_learner
from o3f.envs import EnvConfig, make_env
from o3f.training.torchrl.hooks import LearnerStepper, OfflineOnlineHook


def build(
    env_id: str = "HalfCheetah-v5",
    dataset_id: str = "o3f/halfcheetah/random-v0",
    *,
    offline_steps: int = 2_000,
    online_steps: int = 1_000,
    folder: str = "trainer",
    **hyper_parameters: Any,
) -> Trainer:
    """LAPO: twenty steps of the critics for each of the policy's, on dataset and new transitions alike."""
    buffer = load_minari(dataset_id, online_capacity=online_steps, batch_size=512)
    env = make_env(EnvConfig(env_id), seed=0)
    sizes = [env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]]
    learner = make_learner("lapo", *sizes, hyper_parameters)
    learner.prepare(buffer[:])
    actor = OptimisticActor(learner.policy, learner.critic, num_candidates=100, sigma=0.2)

    checkpoint = Checkpoint()
    checkpoint.register("rng", GlobalRNGState())
    trainer = Trainer(
        collector=Collector(
            env, actor, frames_per_batch=1, total_frames=online_steps, auto_register_policy_transforms=False
        ),
        total_frames=online_steps,
        frame_skip=1,
        optim_steps_per_batch=1,
        loss_module=learner.loss,
        optimization_stepper=LearnerStepper(learner),
        checkpoint=checkpoint,
        save_trainer_file=folder,
        save_trainer_interval=online_steps,
        progress_bar=False,
    )
    OfflineOnlineHook(buffer, updates_per_step=20, offline_steps=offline_steps).register(trainer)
    return trainer


if __name__ == "__main__":
    trainer = build()
    trainer.train()
    print(f"Trained on {trainer.collected_frames} transitions. Continue with trainer.load_from_file('trainer').")
