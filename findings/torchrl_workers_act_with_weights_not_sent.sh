#!/usr/bin/env bash
# TorchRL's collectors in several processes, and an optimiser that steps between two batches (or during one).
# Expected: workers act with the weights of the last update_policy_weights_(), and policy_version says which.
# Seen:     the collector moves the caller's own parameters into shared memory, so every optimiser step is in the workers at
#           once, sent or not. policy_version stays 0, and one batch of MultiAsyncCollector holds steps of several policies.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 gymnasium==1.4.0 numpy==2.4.6
cat > "$work/collect.py" <<'PY'
import time
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import MultiAsyncCollector, MultiSyncCollector
from torchrl.envs import GymEnv


class Constant(nn.Module):
    """An action that is a parameter."""

    def __init__(self):
        super().__init__()
        self.action = nn.Parameter(torch.zeros(1))

    def forward(self, observation):
        return self.action.expand(*observation.shape[:-1], 1).clone()


class Slow(GymEnv):
    """As slow as a robot, so that an optimiser steps while a batch is collected."""

    def _step(self, tensordict):
        time.sleep(0.01)
        return super()._step(tensordict)


def make():
    return Slow("Pendulum-v1")


def collect(kind, batches):
    policy = TensorDictModule(Constant(), ["observation"], ["action"])
    optimiser = torch.optim.SGD(policy.parameters(), lr=1.0)
    before = policy.module.action.is_shared()
    collector = kind([make, make], policy, frames_per_batch=100, total_frames=100 * batches, track_policy_version=True)
    print(kind.__name__, "- the parameter is in shared memory, before and after:", before, policy.module.action.is_shared())
    seen = []
    for batch in collector:
        actions = sorted({round(float(action), 2) for action in batch["action"].flatten()})
        versions = sorted(set(batch["policy_version"].flatten().tolist()))
        print("  actions of a batch", actions, "versions", versions)
        seen.append((actions, versions))
        time.sleep(0.3)  # a learner at work
        policy.module.action.grad = torch.full((1,), -0.25)
        optimiser.step()  # the action is 0.25, 0.5, ... now; nothing is sent
    collector.shutdown()
    return seen


if __name__ == "__main__":
    print({name: version(name) for name in ("torch", "torchrl", "gymnasium")})
    sync = collect(MultiSyncCollector, 4)
    several = collect(MultiAsyncCollector, 8)
    assert [actions for actions, _ in sync] == [[0.0], [0.25], [0.5], [0.75]]
    assert all(versions == [0] for _, versions in sync + several)
    assert any(len(actions) > 1 for actions, _ in several)
    print("As found: to hold weights back, give the collector a copy of the policy and send the weights yourself.")
PY
cd "$work" && "$work/venv/bin/python" collect.py
