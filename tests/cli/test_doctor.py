"""The doctor tells what works and what to do about the rest, and one broken thing hides no other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch

from o3f.cli.doctor import datasets, machine, packages, precision, simulators
from o3f.cli.doctor.findings import Check, Finding, examine, report


def found(check: Check) -> dict[str, tuple[str, str]]:
    """State and advice by text."""
    return {finding.text: (finding.state, finding.todo) for finding in examine(check)}


def only(check: Check, start: str) -> tuple[str, str, str]:
    """State, text and advice of the finding whose text begins so."""
    ((text, (state, todo)),) = [item for item in found(check).items() if item[0].startswith(start)]
    return state, text, todo


def test_the_command_says_that_the_core_works(shared_datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
    done = subprocess.run([sys.executable, "-m", "o3f.doctor"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[-1] == "The core works."
    assert f"ok      torchrl {metadata.version('torchrl')}" in lines
    assert "ok      an update on cpu gives finite numbers" in lines
    assert any(re.match(r"(ok|note) .*precision=medium.*\b[0-9.]+x as fast.*relative error", line) for line in lines)
    assert any(line.startswith("ok      me/reacher-v0: 300 steps, Reacher-v5, 0.") for line in lines)
    assert any("HalfCheetah-v5" in line and "steps a second" in line for line in lines)
    assert "-> python recipes/collect.py task=hopper/random" in lines
    assert "-> python recipes/collect.py task=hopper/medium task.behaviour.path=YOUR_POLICY.npz" in lines
    assert "-> python recipes/collect.py task=halfcheetah/quickstart" in lines
    assert "-> python recipes/pretrain.py task=kitchen/mixed dataset.download=true" in lines


def test_a_check_that_fails_hides_no_other_and_only_the_core_counts() -> None:
    said: list[str] = []

    def broken() -> Iterator[Finding]:
        yield Finding("ok", "first")
        raise OSError("no such thing\nmore")

    def fine() -> Iterator[Finding]:
        yield Finding("missing", "second", "get it")

    assert report({"Core": lambda: [Finding("note", "zero")]}, {"A": broken, "B": fine}, said.append) == 0
    assert said[:3] == ["Core", "  note    zero", "A"]
    assert said[3:5] == ["  ok      first", "  broken  broken: OSError: no such thing"]
    assert said[5:] == ["B", "  missing second", "          -> get it", "The core works."]
    assert report({"A": broken}, {}, said.append) == 1
    assert report({"B": fine}, {}, said.append) == 1
    assert said[-1].startswith("The core does not work")


def test_the_tested_versions_are_those_installed() -> None:
    free = {"python", "numpy", "tensorboard"}  # not bounded to the minor that was tested: newer ones are no fault
    minors = {name: ".".join(metadata.version(name).split(".")[:2]) for name in packages.TESTED.keys() - free}
    assert minors == {name: version for name, version in packages.TESTED.items() if name not in free}


@pytest.mark.parametrize(
    ("version", "state", "said"),
    [
        ("2.13.1", "ok", "torch 2.13.1"),
        ("2.9.0", "note", "torch 2.9.0 (tested with 2.13)"),
        ("2.14.0", "broken", "torch 2.14.0, expected <2.14,>=2.9"),
        (None, "missing", "torch is not installed"),
    ],
)
def test_versions(version: str | None, state: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def pretend(name: str) -> str:
        if name == "torch" and version is None:
            raise metadata.PackageNotFoundError(name)
        return version if name == "torch" and version is not None else real(name)

    monkeypatch.setattr(metadata, "version", pretend)
    state_found, text, todo = only(packages.check_core_packages, said)
    assert (state_found, text) == (state, said)
    assert todo == (packages.install_line() if state in ("missing", "broken") else "")


def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    state, text, todo = only(packages.check_core_packages, "minari")
    assert (state, todo) == ("broken", packages.install_line())
    assert "cannot be imported (ModuleNotFoundError" in text
    assert only(packages.check_core_packages, "numpy")[0] == "ok"


def test_an_extra_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def pretend(name: str) -> str:
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", pretend)
    lines = ["torch>=2", 'scipy>=1 ; extra == "plots"', 'matplotlib>=3 ; extra == "plots"', 'rich ; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    monkeypatch.setattr(metadata, "metadata", lambda name: SimpleNamespace(get_all=lambda key: ["plots", "dev"]))
    assert found(packages.check_extras) == {
        "plots: scipy is not installed": ("missing", packages.install_line("plots"))
    }


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ('{"dir_info": {"editable": true}, "url": "file:///a/o3f"}', 'pip install -e "/a/o3f[video]"'),
        (None, 'pip install "o3f[video]"'),
    ],
)
def test_the_line_to_install_fits_how_it_is_installed(
    source: str | None, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: SimpleNamespace(read_text=lambda file: source))
    assert packages.install_line("video") == line


def test_an_update_without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = SimpleNamespace(update=lambda batches: {"loss": torch.tensor(float("nan"))})
    monkeypatch.setattr(machine, "make_learner", lambda *_: learner)
    assert only(machine.check_torch, "an update")[0] == "broken"


def test_the_random_streams_are_left_alone() -> None:
    before = torch.get_rng_state()
    examine(machine.check_torch)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("seconds", "state", "said"),
    [
        (0.5, "note", r"precision=medium: 2\.00x as fast here in matrix products \(relative error \d"),
        (
            1.0,
            "ok",
            r"no gain here from precision=medium \(1\.00x as fast, relative error .*\): leave precision=highest",
        ),
        (1.25, "ok", r"no gain here from precision=medium \(0\.80x as fast"),
    ],
)
def test_a_lower_precision_is_advised_where_it_pays(
    seconds: float, state: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, cost = [0.0], {"highest": 1.0, "medium": seconds}
    real = torch.baddbmm

    def product(*operands: torch.Tensor) -> torch.Tensor:
        assert torch.get_num_threads() == 1
        clock[0] += cost[torch.get_float32_matmul_precision()]
        return real(*operands)

    monkeypatch.setattr(precision, "ROUNDS", 3)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch, "baddbmm", product)
    ((text, found_state),) = [(text, state) for text, (state, _) in found(precision.check_precision).items()]
    assert (found_state, bool(re.match(said, text))) == (state, True), text


def test_the_precision_is_measured_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried = torch.baddbmm, []

    def coarse(*operands: torch.Tensor) -> torch.Tensor:
        """As on a CPU with bf16 instructions."""
        tried.append(torch.get_float32_matmul_precision())
        if tried[-1] == "medium" and operands[0].dtype == torch.float32:
            operands = (operands[0], *(operand.bfloat16().float() for operand in operands[1:]))
        return real(*operands)

    monkeypatch.setattr(precision, "ROUNDS", 2)
    monkeypatch.setattr(torch, "baddbmm", coarse)
    threads, streams = torch.get_num_threads(), torch.get_rng_state()
    torch.set_float32_matmul_precision("high")
    try:
        (text,) = found(precision.check_precision)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert re.search(r"relative error 2\.\de-03", text)
    assert set(tried) == {"highest", "medium"}
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), streams)


def test_a_disk_nearly_full_and_a_folder_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none" / "yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_200_000_000))
    state, text, todo = only(machine.check_disk, "runs")
    assert (state, "1.2 GB free" in text, "runs=FOLDER" in todo) == ("note", True, True)
    assert "MINARI_DATASETS_PATH=FOLDER" in only(machine.check_disk, "datasets")[2]
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    assert only(machine.check_disk, "runs")[0] == "broken"
    assert not (tmp_path / "none").exists()


def test_no_secret_of_the_environment_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret-value")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = found(machine.check_torch)
    assert told["OMP_NUM_THREADS=1"] == ("note", "")
    assert not any("secret-value" in text for text in told)


def test_a_dataset_cut_short_is_named_beside_the_good_ones(
    shared_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert found(datasets.check_datasets)[f"0 in {tmp_path}"][0] == "note"
    for name in ("good", "cut", "bare"):
        shutil.copytree(shared_datasets / "me/reacher-v0", tmp_path / f"me/{name}-v0")
    (file,) = (tmp_path / "me/cut-v0/data").glob("*.hdf5")
    file.write_bytes(file.read_bytes()[:5000])
    shutil.rmtree(tmp_path / "me/bare-v0/data")
    (tmp_path / "me/bare-v0/data").mkdir()
    assert only(datasets.check_datasets, "3 in")[0] == "ok"
    assert only(datasets.check_datasets, "me/good-v0: 300 steps, Reacher-v5")[0] == "ok"
    for name in ("cut", "bare"):
        state, _, todo = only(datasets.check_datasets, f"me/{name}-v0: ")
        assert (state, todo) == ("broken", f"delete {tmp_path}/me/{name}-v0 and get it again")


def test_a_dataset_of_another_simulator_is_told(
    shared_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    shutil.copytree(shared_datasets / "me/reacher-v0", tmp_path / "me/old-v0")
    file = tmp_path / "me/old-v0/data/metadata.json"
    described = json.loads(file.read_text())
    file.write_text(json.dumps(described | {"requirements": ["mujoco<3", "numpy<1", "absent>1", "?"]}))
    state, text, todo = only(datasets.check_datasets, "me/old-v0: ")
    assert (state, todo) == ("note", "which versions change numbers: docs/versions.md")
    assert text.endswith("MB; asks for mujoco<3")


def test_many_datasets_do_not_take_for_ever(shared_datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
    monkeypatch.setattr(datasets, "PATIENCE", -1.0)
    assert found(datasets.check_datasets)["1 more were not opened, to be quick"] == ("note", "")


def test_simulators_that_are_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulators, "_installed", lambda package: False)
    for check, extra in [
        (simulators.check_mujoco, "mujoco"),
        (simulators.check_kitchen, "robotics"),
        (simulators.check_rendering, "video"),
    ]:
        ((state, todo),) = found(check).values()
        assert (state, todo) == ("missing", packages.install_line(extra))
    monkeypatch.undo()

    def fails(*_: Any) -> None:
        raise ValueError("XML Error: bad model")

    monkeypatch.setattr(gym, "make", fails)
    assert only(simulators.check_mujoco, "check_mujoco: ValueError: XML Error: bad model")[0] == "broken"
    monkeypatch.setattr(metadata, "version", lambda package: "3.12.1")
    state, _, todo = only(simulators.check_kitchen, "FrankaKitchen-v1 with mujoco 3.12.1: ValueError")
    assert (state, todo) == ("broken", 'pip install "mujoco<3.12"')
    monkeypatch.setattr(metadata, "version", lambda package: "3.11.0")
    assert only(simulators.check_kitchen, "FrankaKitchen")[2] == packages.install_line("robotics")


@pytest.mark.parametrize(
    ("chosen", "works", "state", "todo"),
    [
        (None, [None, "egl"], "ok", ""),
        ("glfw", ["osmesa"], "note", "export MUJOCO_GL=osmesa"),
        (None, [], "note", "install a driver with EGL, or: apt-get install libosmesa6"),
    ],
)
def test_rendering(
    chosen: str | None, works: list[str | None], state: str, todo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if chosen:
        monkeypatch.setenv("MUJOCO_GL", chosen)
    monkeypatch.setattr(simulators, "_start", lambda name: name)
    monkeypatch.setattr(simulators, "_rendered", lambda process, timeout: process in works)
    assert only(simulators.check_rendering, "films")[::2] == (state, todo)


def test_a_renderer_that_hangs_or_dies_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulators, "_RENDER", "import time; time.sleep(60)")
    assert not simulators._rendered(simulators._start(None), 0.2)
    monkeypatch.setattr(simulators, "_RENDER", "import os; os.abort()")
    assert not simulators._rendered(simulators._start("egl"), 30.0)
    monkeypatch.setattr(simulators, "_RENDER", "import os; print('rendered', os.environ['MUJOCO_GL'])")
    assert simulators._rendered(simulators._start("osmesa"), 30.0)


@pytest.mark.parametrize("loads", [True, False])
def test_torchrls_compiled_part(loads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        assert name == "torchrl._torchrl"
        if not loads:
            raise ImportError("/somewhere/torchrl/_torchrl.so: undefined symbol: _ZN5torch")

    monkeypatch.setattr(packages.importlib, "import_module", load)
    findings = list(packages.check_compiled_part())
    assert [finding.state for finding in findings] == ([] if loads else ["note"])
    assert loads or "(_torchrl.so: undefined symbol): TorchRL's prioritised buffers do not work" in findings[0].text
