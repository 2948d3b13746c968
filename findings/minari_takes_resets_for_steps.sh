#!/usr/bin/env bash
# Minari's DataCollector around Gymnasium's Autoreset, and how to tell such data from sound ones.
# Expected: every recorded transition is one that an action made.
# Seen:     every episode but the first begins with a reset that was recorded as a step: from the last observation of the
#           episode before to the first of this one, with the action that was ignored, and reward 0. Nothing marks it but
#           that the first observation equals the last of the episode before, bit for bit. But so it does where a
#           StepDataCallback cut an environment that goes on, with reward 0, too: those transitions are real. What differs is
#           how far the first step leads: as far as from one episode to another, or as far as a step does.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'minari[create,hdf5]==0.5.4' pillow==13.0.0 gymnasium==1.4.0 numpy==2.4.6
cd "$work" && "$work/venv/bin/python" - <<'PY'
import os
import warnings
from importlib.metadata import version

warnings.filterwarnings("ignore")
os.environ["MINARI_DATASETS_PATH"] = os.path.join(os.getcwd(), "datasets")
import gymnasium as gym
import minari
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import Autoreset

print({name: version(name) for name in ("minari", "gymnasium", "numpy")})


class Line(gym.Env):
    """A point and a goal on a line; reward 1 at the goal, which ends the episode or, where it goes on, moves."""

    observation_space = spaces.Box(-9, 9, (2,), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, goes_on):
        self.goes_on = goes_on

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.point, self.goal = self.np_random.uniform(-3, 3, 2)
        return np.array([self.point, self.goal]), {}

    def step(self, action):
        self.point += 0.1 * float(action[0])
        hit = abs(self.point - self.goal) < 0.1
        observation = np.array([self.point, self.goal])
        if hit and self.goes_on:
            self.goal = self.np_random.uniform(-3, 3)
        return observation, float(hit), hit and not self.goes_on, False, {"hit": hit}


class CutAtHits(minari.StepDataCallback):
    def __call__(self, env, **step):
        data = super().__call__(env, **step)
        return {**data, "truncated": data["truncated"] or bool(step["info"].get("hit"))}


def look(name, env, **arguments):
    recorder = minari.DataCollector(env, **arguments)
    now, _ = recorder.reset(seed=0)
    for _ in range(600):
        now, *_ = recorder.step(np.sign(now[1:] - now[:1]).astype(np.float32))
    episodes = list(recorder.create_dataset(f"line/{name}-v0").iterate_episodes())
    pairs = list(zip(episodes, episodes[1:]))
    equal = sum(a.observations[-1].tobytes() == b.observations[0].tobytes() for a, b in pairs)
    without = sum(b.rewards[0] == 0 for _, b in pairs)
    far = np.mean([abs(b.observations[1, 0] - b.observations[0, 0]) for _, b in pairs])
    print(f"{name:9s} {len(pairs)} later episodes: begin with an earlier end {equal}, with reward 0 {without}; mean way {far:.2f}")
    return len(pairs), equal, without, far


count, equal, without, far = look("autoreset", Autoreset(Line(goes_on=False)))
assert count == equal == without > 10
assert far > 0.5  # no step leads further than 0.1
count, equal, without, far = look("cut", Line(goes_on=True), step_data_callback=CutAtHits)
assert count == equal > 10
assert without >= count - 1
assert far <= 0.1001
print("As found: equal ends and reward 0 are not enough; compare the way of the first step, too.")
PY
