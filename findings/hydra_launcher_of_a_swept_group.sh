#!/usr/bin/env bash
# Hydra and a launcher that is chosen inside the files of a config group, when that group is swept.
# Expected: if every swept file overrides the launcher by the same one, the sweep uses it, or says that it does not.
# Seen:     the jobs run one after another in the parent process, while the configuration of each job names the other launcher.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q hydra-core==1.3.8 hydra-joblib-launcher==1.2.0
cd "$work" && "$work/venv/bin/python" - <<'PY'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

print({name: version(name) for name in ("hydra-core", "hydra-joblib-launcher", "joblib")})
Path("conf/experiment").mkdir(parents=True)
Path("conf/config.yaml").write_text("defaults:\n  - _self_\n  - experiment: null\nx: 0\n")
for name in ("first", "second"):
    text = "# @package _global_\ndefaults:\n  - override /hydra/launcher: joblib\nx: 1\n"
    Path(f"conf/experiment/{name}.yaml").write_text(text)
Path("app.py").write_text("""
import os

import hydra
from hydra.core.hydra_config import HydraConfig

os.environ.setdefault("PARENT", str(os.getpid()))


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    launcher = HydraConfig.get().launcher._target_.rsplit(".", 1)[-1]
    place = "in the parent" if os.environ["PARENT"] == str(os.getpid()) else "in a worker"
    print(f"RAN {place}; its configuration says {launcher}")


main()
""")
seen = {}
for overrides in (("experiment=first", "x=1,2"), ("experiment=first,second",)):
    done = subprocess.run([sys.executable, "app.py", "-m", *overrides], capture_output=True, text=True, check=True)
    seen[overrides] = [line for line in done.stdout.splitlines() if line.startswith("RAN")]
    print(" ".join(overrides), "->", seen[overrides])
one, swept = seen.values()
assert one == ["RAN in a worker; its configuration says JoblibLauncher"] * 2
assert swept == ["RAN in the parent; its configuration says JoblibLauncher"] * 2
print("As found: give the launcher on the command line when the group that chooses it is swept.")
PY
