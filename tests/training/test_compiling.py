"""algorithm.compile=auto: on where it pays, and for the whole life of a run what it was at the beginning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from o3f.algorithms import IQLLearner, compiled_step, learner
from o3f.errors import ConfigError
from o3f.figures.plan import check_finished
from o3f.runs.folder import RunFolder
from o3f.runs.identity import plain, read_settings
from o3f.training import compiling
from o3f.training.compiling import WORTHWHILE, settle_compile
from tests.support.recipe_runs import SHORT, rows, run, run_stopped, settings

LONG = f"offline.steps={WORTHWHILE}"


pytestmark = pytest.mark.usefixtures("place", "compiler")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a compiler."""
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)


def settled(*overrides: str, recipe: str = "finetune") -> bool:
    found = settle_compile(settings(recipe, "task=halfcheetah/medium", *overrides)).algorithm.compile
    assert isinstance(found, bool)
    return found


@pytest.mark.parametrize(
    ("overrides", "compiled", "why"),
    [
        ([LONG], True, f"there are {WORTHWHILE} of them"),
        ([f"offline.steps={WORTHWHILE - 1}"], False, f"{WORTHWHILE - 1} of them are too few"),
        (["debug=toy"], False, "20 of them are too few"),
        ([LONG, "online.steps=100"], True, ""),  # one decision for all arms that share a pre-training
        ([LONG, "pretrained=none", "online.steps=100"], False, "100 of them are too few"),
        (["offline.steps=1", "pretrained=none", "online.steps=5_000", "online.updates_per_step=2"], True, ""),
        (["dataset=none", "algorithm=sac", LONG], False, "sac was not measured to gain by it with batches of 256"),
        (["algorithm=awac", LONG], True, f"there are {WORTHWHILE} of them"),
        (["algorithm=lapo", LONG], False, "lapo was not measured to gain by it with batches of 512"),
        (["algorithm=lapo", "algorithm.batch_size=256", LONG], True, f"there are {WORTHWHILE} of them"),
        ([LONG, "device=meta"], False, "nothing was measured on device=meta"),
        (["algorithm.compile=false", LONG], False, ""),
        (["algorithm.compile=true", "debug=toy"], True, ""),
    ],
)
def test_where_it_pays(overrides: list[str], compiled: bool, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert settled(*overrides) is compiled
    said = capsys.readouterr().out
    assert why in said
    assert bool(said) == (not any("compile=" in each for each in overrides))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(compiling, "has_compiler", lambda: False)
    assert not settled(LONG)
    assert "gradient steps are not compiled, for there is no C++ compiler" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"^algorithm.compile=true needs a C\+\+ compiler"):
        settled(LONG, "algorithm.compile=true")


@pytest.mark.parametrize("missing", ["compiler", "headers", "torch"])
def test_a_compiler_has_headers_and_a_torch(missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "mine"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(compiled_step.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(compiled_step, "can_compile_steps", lambda: missing != "torch")
    assert compiled_step.has_compiler() is (missing != "torch")
    (compiler if missing == "compiler" else tmp_path / "Python.h").unlink()
    assert not compiled_step.has_compiler()


@pytest.mark.parametrize("begun", [True, False, None])
def test_a_run_keeps_what_it_began_with(begun: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings("finetune", "task=halfcheetah/medium", LONG if not begun else "debug=toy")
    path = begin_with(config, begun)
    assert settle_compile(config).algorithm.compile is bool(begun)
    assert f"for {path} began so" in capsys.readouterr().out


def begin_with(config: Any, compiled: bool | None) -> Path:
    """A run folder whose settings have this ``compile``, or none, as earlier versions wrote them."""
    begun = plain(config)
    begun["algorithm"] |= {"compile": compiled}
    if compiled is None:
        del begun["algorithm"]["compile"]
    with RunFolder.open(begun) as folder:
        return folder.path


def test_a_compiled_run_on_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings("finetune", "task=halfcheetah/medium", LONG)
    path = begin_with(config, True)
    monkeypatch.setattr(compiling, "has_compiler", lambda: False)
    with pytest.raises(ConfigError, match="holds a run with compiled gradient steps") as refused:
        settle_compile(config)
    assert "algorithm.compile=false resume_allow=[algorithm.compile]" in str(refused.value)
    (path / "done.json").write_text("{}")  # then there is nothing left to compile
    assert settle_compile(config).algorithm.compile


def test_a_figure_takes_a_finished_run_of_either_kind() -> None:
    config = settings("finetune", "task=halfcheetah/medium", LONG)
    path = begin_with(config, True)
    (path / "done.json").write_text("{}")
    check_finished(path, plain(config))
    with pytest.raises(ConfigError, match=r"algorithm\.compile: True -> False"):
        check_finished(path, plain(settings("finetune", "task=halfcheetah/medium", LONG, "algorithm.compile=false")))


class Counted:
    """Takes a step as it is, in the place of what compiles it."""

    steps = 0

    def __init__(self, step: Callable[..., Any], _: Any) -> None:
        self._step = step

    def __call__(self, *inputs: Any) -> Any:
        Counted.steps += 1
        return self._step(*inputs)


def test_a_resumed_run_and_its_pretraining(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    eager = run("pretrain", *SHORT)
    assert read_settings(eager / "config.yaml")["algorithm"]["compile"] is False
    monkeypatch.setattr(compiling, "WORTHWHILE", 20)
    monkeypatch.setattr(learner, "CompiledStep", Counted)
    capsys.readouterr()
    whole = run("finetune", *SHORT, "name=whole")
    assert f"starts from {eager}, pre-trained before" in capsys.readouterr().out  # compiled or not, it serves
    assert Counted.steps == 120
    run_stopped(IQLLearner, "update", 90, *SHORT, "name=stopped")
    monkeypatch.setattr(compiling, "WORTHWHILE", 10_000)  # as if it were too short by now
    Counted.steps = 0
    resumed = run("finetune", *SHORT, "name=stopped")
    assert read_settings(resumed / "config.yaml")["algorithm"]["compile"] is True
    assert 0 < Counted.steps < 120
    assert rows(resumed) == rows(whole)
