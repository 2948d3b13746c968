#!/usr/bin/env bash
# prefill_replay_buffer, TorchRL's way from a dataset to one flat buffer for offline-to-online training.
# Expected: as its description says, it copies "the full dataset" where no number is given: every row, once.
# Seen:     it copies as many draws with replacement as there are rows: a third of the rows (1/e) is not in the buffer, others are
#           there several times, and hardly one stands beside its successor. Nothing says so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 torchrl==0.14.1 tensordict==0.14.3 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY' 2>&1 | grep -v INFO
from importlib.metadata import version

import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.data.replay_buffers.offline_to_online import prefill_replay_buffer

print({name: version(name) for name in ("torch", "torchrl", "tensordict")})
torch.manual_seed(0)
count = 5_000
dataset = ReplayBuffer(storage=LazyTensorStorage(count))
dataset.extend(TensorDict({"row": torch.arange(count)}, [count]))
copied = prefill_replay_buffer(ReplayBuffer(storage=LazyTensorStorage(2 * count)), dataset)[:]["row"]
rows, times = copied.unique(return_counts=True)
following = int((copied.diff() == 1).sum())
print(f"{len(copied)} rows copied, {len(rows)} of {count} rows among them, one of them {int(times.max())} times")
print(f"{following} of {count - 1} rows stand before their successor")
assert len(copied) == count
assert abs(len(rows) / count - 0.632) < 0.02
assert times.max() > 4
assert following < 10
print("As found: copy with buffer.extend(dataset[:]).")
PY
