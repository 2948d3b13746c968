#!/usr/bin/env bash
# torch.compile loses what a graph writes in place into a float64 tensor without dimensions, on a CPU.
# Expected: a counter of any shape and type is changed by a compiled function as by the function itself.
# Seen:     the one of shape () and float64 stays 0 with the aot_eager and inductor backends; float32, or shape (1,), is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import platform

import torch


def count(total: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    total.add_(values.sum())
    return values * 2


print("torch", torch.__version__, "python", platform.python_version())
seen = {}
for backend in ("eager", "aot_eager"):
    for shape in ((), (1,)):
        for dtype in (torch.float64, torch.float32):
            torch.compiler.reset()
            compiled = torch.compile(count, backend=backend, fullgraph=True)
            total, values = torch.zeros(shape, dtype=dtype), torch.ones(3, dtype=dtype)
            compiled(total, values)
            compiled(total, values)
            seen[backend, shape, dtype] = float(total)
            print(f"{backend:10s} shape {str(shape):5s} {str(dtype):14s} two calls that each add 3 leave {float(total)}")
wrong = [key for key, value in seen.items() if value != 6.0]
assert wrong == [("aot_eager", (), torch.float64)], wrong
print("As found: the write into the float64 number is lost without a word.")
PY
