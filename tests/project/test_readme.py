"""What the README shows runs as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

from o3f.modules import Normaliser
from tests.support.minari_datasets import datasets_folder, make_episodes, write_dataset

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
FAULTS = (Path(__file__).parents[2] / "docs/reliability.md").read_text(encoding="utf-8")


def test_the_compose_example_trains_and_fits_on_a_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, latent = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 19
    datasets_folder(monkeypatch, tmp_path)
    with gymnasium.make("HalfCheetah-v5") as env:
        spaces: dict[str, Any] = {
            "observation_space": env.observation_space,
            "action_space": env.action_space,
        }
        flat = gymnasium.spaces.Box(-1.0, 1.0, (17,))
        episodes = make_episodes([40, 40], observation_space=flat, action_space=spaces["action_space"])
    write_dataset("o3f/halfcheetah/random-v0", episodes, **spaces)

    assert code.count("1_000") == 2
    run: dict[str, Any] = {}
    setup, loop = code.replace("1_000", "12").split("\nfor transition in")
    exec(setup, run)
    before = [parameter.clone() for parameter in run["loss"].critic.parameters()]
    exec("for transition in" + loop, run)
    assert len(run["buffer"]) == 80 + 12
    assert all(not torch.equal(a, b) for a, b in zip(before, run["loss"].critic.parameters(), strict=True))

    exec(latent + "SoftUpdate(loss, tau=0.005)\nlosses = loss(buffer.sample())\nacted = actor(buffer[:5])", run)
    assert set(run["losses"].keys()) == set(run["loss"].out_keys)
    assert run["acted"]["action"].abs().max() <= 1
    for name in ("actor", "encoder", "decoder", "qvalue", "value"):
        inside = [each for each in getattr(run["loss"], f"{name}_network").modules() if isinstance(each, Normaliser)]
        assert inside, name
        assert all(each.loc.abs().max() > 0 for each in inside), name
    shown = capsys.readouterr().out
    assert re.match(
        r"\{'loss_actor': [\d.]+, 'loss_qvalue': [\d.]+, 'loss_value': [\d.]+, 'entropy': [\d.-]+\}\n", shown
    ), shown
    assert f"lists {len(re.findall(r'^[|] [0-9]+ [|] [ABC]', FAULTS, re.MULTILINE))} faults" in README


def test_every_file_and_command_named_exists() -> None:
    root = Path(__file__).parents[2]
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (root / path).exists(), path
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for script in re.findall(r"python (recipes/\w+\.py)", README):
        assert (root / script).exists(), script
