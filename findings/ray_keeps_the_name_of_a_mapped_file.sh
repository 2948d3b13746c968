#!/usr/bin/env bash
# Ray's object store and a TensorDict, in ordinary, shared or mapped memory.
# Expected: what ray.put was given does not change any more; a copy of shared memory does not call itself shared.
# Seen:     of a TensorDict in mapped files the store keeps the names of the files. Whoever writes into one, also a task that
#           was given it as an argument, changes what the next ray.get returns, and the caller's own rows. A TensorDict in
#           shared memory is copied, and its copy, which is nobody else's, still says that it is shared.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q ray==2.60.0 torch==2.13.0 tensordict==0.14.3 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import os
import tempfile
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
import ray
import torch
from tensordict import TensorDict

print({name: version(name) for name in ("ray", "torch", "tensordict")})
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)


@ray.remote
def write(rows):
    rows["reward"].fill_(7.0)
    return rows.is_shared(), rows.is_memmap()


def rows():
    return TensorDict({"reward": torch.ones(2)}, [2])


kinds = {"ordinary": rows(), "shared": rows().share_memory_(), "mapped": rows().memmap_(tempfile.mkdtemp(dir=os.getcwd()))}
found = {}
for name, mine in kinds.items():
    stored = ray.put(mine)
    shared, mapped = ray.get(write.remote(stored))
    found[name] = (mine["reward"].tolist(), ray.get(stored)["reward"].tolist(), shared, mapped)
    print(f"{name}: a task wrote 7; the caller has {found[name][0]}, the store gives {found[name][1]}; in the task shared {shared}, mapped {mapped}")
ray.shutdown()
assert found["ordinary"] == ([1.0, 1.0], [1.0, 1.0], False, False)
assert found["shared"] == ([1.0, 1.0], [1.0, 1.0], True, False)
assert found["mapped"] == ([7.0, 7.0], [7.0, 7.0], False, True)
print("As found: put a clone() of mapped rows, also because another machine does not have the file.")
PY
