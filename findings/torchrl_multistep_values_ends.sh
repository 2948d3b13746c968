#!/usr/bin/env bash
# TorchRL's n-step returns (MultiStep after a collector, MultiStepTransform in a buffer) and its own value targets.
# Expected: what leads to the end of an episode within n steps is worth its rewards; nothing is added for the end. MultiStep
#           says that all of "next" moves by up to n steps, and that "nonterminal" tells which steps do not end.
# Seen:     the next observation moves to the end, the done flags stay those of the first step (MultiStepTransform says that it
#           leaves them alone, and not what follows): of n transitions that end, n - 1 take the value of a state that no update
#           trains. What is learned depends on how the network was initialised, back to the start of the episode.
#           "nonterminal" is false for the last step alone. done_keys=[] makes the targets right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY' 2>&1 | grep -v INFO
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, MultiStep, TensorDictReplayBuffer
from torchrl.envs.transforms import MultiStepTransform
from torchrl.modules import ValueOperator
from torchrl.objectives.value import TD0Estimator

print({name: version(name) for name in ("torch", "torchrl", "tensordict")})
CELLS, GAMMA, N = 5, 0.9, 3
true = torch.tensor([sum(GAMMA**step for step in range(CELLS - cell)) for cell in range(CELLS)])

cell = torch.arange(CELLS).repeat(4)  # four episodes: five steps, a reward of 1 each, and the last one is terminal
end, no = (cell == CELLS - 1)[:, None], torch.zeros(20, 1, dtype=torch.bool)
after = {"observation": cell + 1, "reward": torch.ones(20, 1), "done": end, "terminated": end, "truncated": no}
steps = TensorDict({"observation": cell, "done": no, "terminated": no, "truncated": no, "next": after}, [20])


def stored(**kwargs):
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(20), transform=MultiStepTransform(N, GAMMA, **kwargs), batch_size=1)
    buffer.extend(steps.clone())
    return buffer[:]


def learned(batch, initial):
    """A table of values, which after 50 sweeps does not change any more."""
    table = torch.nn.Embedding.from_pretrained(torch.full((CELLS + 1, 1), initial), freeze=False)
    estimator = TD0Estimator(gamma=GAMMA, value_network=ValueOperator(table, in_keys=["observation"]))
    for _ in range(50):
        targets = estimator.value_estimate(batch.clone())
        table.weight.data[:CELLS] = torch.stack([targets[batch["observation"] == each].mean(0) for each in range(CELLS)])
    return table.weight.data[:CELLS, 0]


kinds = {"one step": steps, "MultiStep": MultiStep(GAMMA, N)(steps.clone()), "MultiStepTransform": stored()}
kinds["MultiStepTransform, done_keys=[]"] = stored(done_keys=[])
print("true values", [round(float(value), 2) for value in true])
for kind, batch in kinds.items():
    zero, twenty = learned(batch, 0.0), learned(batch, 20.0)
    print(f"{kind}: from 0", [round(float(v), 2) for v in zero], "from 20", [round(float(v), 2) for v in twenty])
    torch.testing.assert_close(zero, true)
    wrong = [0, 2, 3] if kind in ("MultiStep", "MultiStepTransform") else []
    assert ((twenty - true).abs() > 1).nonzero().flatten().tolist() == wrong
assert kinds["MultiStep"]["nonterminal"][:CELLS].flatten().tolist() == [True] * 4 + [False]
print("As found: give MultiStepTransform done_keys=[] where an episode may end by itself.")
PY
