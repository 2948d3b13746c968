#!/usr/bin/env bash
# TorchRL's reset_parameters_recursive and target networks.
# Expected: a loss whose networks are drawn anew begins as a new one does, with targets equal to the networks.
# Seen:     networks and targets are drawn apart, so the first targets are those of another random network.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss

print({name: version(name) for name in ("torch", "torchrl", "tensordict")})


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 1)

    def forward(self, observation, action):
        return self.linear(torch.cat([observation, action], -1))


torch.manual_seed(0)
network = nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())
policy = ProbabilisticActor(
    TensorDictModule(network, in_keys=["observation"], out_keys=["loc", "scale"]),
    in_keys=["loc", "scale"],
    distribution_class=TanhNormal,
    return_log_prob=True,
)
loss = SACLoss(policy, ValueOperator(Critic(), in_keys=["observation", "action"]), num_qvalue_nets=2)


def distance():
    trained, target = loss.qvalue_network_params, loss.target_qvalue_network_params
    key = ("module", "linear", "weight")
    return float((trained[key] - target[key]).abs().max())


before = distance()
loss.reset_parameters_recursive()
after = distance()
print(f"largest distance of a critic's weight from its target: new loss {before:.3f}, after the reset {after:.3f}")
assert before == 0.0
assert after > 0.1
print("As found: copy the networks into their targets after a reset.")
PY
