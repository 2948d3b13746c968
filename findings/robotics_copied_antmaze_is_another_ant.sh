#!/usr/bin/env bash
# AntMaze of Gymnasium-Robotics with an ant of one's own (xml_file), copied or sent to another process.
# Expected: the copy has the same robot. AntMaze is made to be pickled: it keeps its arguments for that.
# Seen:     xml_file is not among them. The copy is Gymnasium's own ant, here of a tenth of the mass, and does not say so;
#           spaces and names are the same. So the same actions lead elsewhere in the copy.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q gymnasium==1.4.0 gymnasium-robotics==1.4.2 mujoco==3.11.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import copy
import warnings
from importlib.metadata import version
from pathlib import Path

warnings.filterwarnings("ignore")
import gymnasium as gym
import gymnasium.envs.mujoco
import gymnasium_robotics
import numpy as np

print({name: version(name) for name in ("gymnasium", "gymnasium-robotics", "mujoco", "numpy")})
gym.register_envs(gymnasium_robotics)
ant = Path(gymnasium.envs.mujoco.__file__).parent / "assets/ant.xml"
heavy = ant.read_text().replace('density="5.0"', 'density="50.0"')
Path("heavy.xml").write_text(heavy)

plain = gym.make("AntMaze_UMaze-v5").unwrapped
own = gym.make("AntMaze_UMaze-v5", xml_file=str(Path("heavy.xml").absolute())).unwrapped
copied = copy.deepcopy(own)
mass = {name: float(env.ant_env.model.body_mass.sum()) for name, env in (("plain", plain), ("own", own), ("copy", copied))}
end = {}
for name, env in (("own", own), ("copy", copied)):
    env.reset(seed=0)
    for _ in range(20):
        end[name] = env.step(np.ones(8, np.float32))[0]["observation"]
print("mass:", {name: round(value, 3) for name, value in mass.items()})
print("after 20 equal steps, own and copy are apart by", round(float(np.abs(end["own"] - end["copy"]).max()), 2))
assert mass["own"] > 9 * mass["plain"]
assert mass["copy"] == mass["plain"]
assert np.abs(end["own"] - end["copy"]).max() > 0.1
print("As found: copy the call of gymnasium.make, not what it returned.")
PY
