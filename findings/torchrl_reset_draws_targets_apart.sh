#!/usr/bin/env bash
# TorchRL: after loss.reset_parameters_recursive() the target critics do not equal the critics, each is drawn on its own.
# Before the reset they are equal, as in every algorithm that has target networks. Code that resets an agent now and then
# bootstraps from unrelated targets until the updater has pulled them over (139 updates for half of the way at tau 0.005).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 numpy 2>/dev/null
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys
import torch, tensordict, torchrl
from tensordict.nn import InteractionType, NormalParamExtractor, ProbabilisticTensorDictModule as Prob
from tensordict.nn import ProbabilisticTensorDictSequential as Seq, TensorDictModule as Mod
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss

print("torch", torch.__version__, "torchrl", torchrl.__version__, "tensordict", tensordict.__version__)
torch.manual_seed(0)
body = nn.Sequential(MLP(in_features=3, out_features=4, num_cells=[16]), NormalParamExtractor())
actor = Seq(
    Mod(body, ["observation"], ["loc", "scale"]),
    Prob(["loc", "scale"], ["action"], distribution_class=TanhNormal, default_interaction_type=InteractionType.RANDOM),
)
critic = ValueOperator(MLP(in_features=5, out_features=1, num_cells=[16]), in_keys=["observation", "action"])
loss = SACLoss(actor, critic, action_spec=Bounded(-1.0, 1.0, (2,)))


def apart():
    pairs = zip(
        loss.qvalue_network_params.values(True, True), loss.target_qvalue_network_params.values(True, True), strict=True
    )
    return max(float((one - other).abs().max()) for one, other in pairs)


before = apart()
loss.reset_parameters_recursive()
after = apart()
print(f"largest difference between critics and targets: {before:.3f} before the reset, {after:.3f} after it")
sys.exit(0 if before == 0.0 and after > 0.1 else 1)
PY
echo "as described"
