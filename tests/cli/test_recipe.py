"""A recipe's command line: what fits runs, what does not fails at once with a message that helps."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from o3f.errors import check_keys, did_you_mean, require, require_range

CONF = {
    "train.yaml": """
defaults:
  - task: hopper/medium
  - algorithm: iql
  - _self_
seed: 0
batch_size: 8
copied: ${task.sigma}
environment:
  kwargs: {}
""",
    "task/hopper/medium.yaml": "name: hopper-medium\nsigma: 0.2\n",
    "task/halfcheetah/medium.yaml": "name: halfcheetah-medium\nsigma: 0.1\n",
    "algorithm/iql.yaml": "name: iql\nexpectile: 0.7\n",
    "algorithm/lapo.yaml": "name: lapo\nlatent_size: 4\n",
    "threads.yaml": "threads: 3\n",
    "asking.yaml": 'needed: ???\nother: {also: "???"}\n',
}
RECIPE = """
import errno
from omegaconf import OmegaConf
from o3f.cli.recipe import recipe, require_range
from o3f.errors import CheckpointError

@recipe("{name}")
def main(config):
    {body}

if __name__ == "__main__":
    main()
"""
SHOW = "print('ran', OmegaConf.to_container(config))"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Write a recipe, run it as a script in an empty folder; the exit code, output and errors."""
    for name, text in CONF.items():
        (tmp_path / "project/conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project/conf" / name).write_text(text)
    script = tmp_path / "project/recipes/train.py"
    script.parent.mkdir()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which the command sets: restored after the test

    def execute(*arguments: str, body: str = SHOW, name: str = "train") -> tuple[int, str, str]:
        script.write_text(RECIPE.format(name=name, body=body))
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(script), run_name="__main__")
        assert list((tmp_path / "empty").iterdir()) == []
        captured = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, captured.out, captured.err

    return execute


def ran(output: str) -> list[dict]:
    return [eval(line.removeprefix("ran ")) for line in output.splitlines() if line.startswith("ran ")]


def test_the_configuration_is_composed_resolved_and_nothing_else_is_printed(run):
    code, output, errors = run("task=halfcheetah/medium", "algorithm.expectile=0.9", "+environment.kwargs.x=1")
    assert (code, errors) == (0, "")
    assert output.count("\n") == 1
    assert ran(output) == [
        {
            "task": {"name": "halfcheetah-medium", "sigma": 0.1},
            "algorithm": {"name": "iql", "expectile": 0.9},
            "seed": 0,
            "batch_size": 8,
            "copied": 0.1,
            "environment": {"kwargs": {"x": 1}},
        }
    ]


@pytest.mark.parametrize("option", [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_options_may_stand_between_overrides(run, tmp_path, option, place):
    (tmp_path / "mine/algorithm").mkdir(parents=True)
    (tmp_path / "mine/algorithm/own.yaml").write_text("name: own\n")
    option = [each.replace("mine", str(tmp_path / "mine")) for each in option]
    overrides = ["algorithm=own", "seed=3"]
    code, output, errors = run(*overrides[:place], *option, *overrides[place:])
    assert (code, errors) == (0, "")
    (config,) = ran(output)
    assert (config["algorithm"], config["seed"]) == ({"name": "own"}, 3)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_another_primary_configuration_may_be_named_anywhere(run, tmp_path, place):
    overrides = ["seed=3", "batch_size=4"]
    (tmp_path / "project/conf/other.yaml").write_text("defaults: [train, _self_]\nbatch_size: 2\n")
    code, output, errors = run(*overrides[:place], "--config-name", "other", *overrides[place:])
    assert (code, errors) == (0, "")
    assert (ran(output)[0]["seed"], ran(output)[0]["batch_size"]) == (3, 4)


@pytest.mark.parametrize("arguments", [("seed=0,1,2", "-m"), ("-m", "seed=0,1,2")])
def test_a_sweep_runs_every_job_and_writes_nothing(run, arguments):
    code, output, errors = run(*arguments)
    assert (code, errors) == (0, "")
    assert [config["seed"] for config in ran(output)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["expectle=0.8"], "expectle: no such key. Did you mean algorithm.expectile?"),
        (["algorithm.expectle=0.8"], "algorithm.expectle: no such key. Did you mean algorithm.expectile?"),
        (["batchsize=4"], "batchsize: no such key. Did you mean batch_size?"),
        (["taks=hopper/medium"], "taks: no such key. Did you mean task?"),
        (["task.sgima=1"], "task.sgima: no such key. Did you mean task.sigma?"),
        (
            ["task=halfcheeta/medium"],
            "task=halfcheeta/medium: no such choice. Did you mean halfcheetah/medium?",
        ),
        (["algorithm=lapoo"], "algorithm=lapoo: no such choice. Did you mean lapo?"),
        (["algorithm=xyz"], "algorithm=xyz: no such choice. There are: iql, lapo."),
        (["algorithm=lapo", "algorithm.latent_sise=2"], "Did you mean algorithm.latent_size?"),
        (["algorithm=lapo", "algorithm.expectile=0.8"], "algorithm.expectile: no such key."),
        (["algorithm=iql,lapooo", "-m"], "algorithm=lapooo: no such choice. Did you mean lapo?"),
        (["sede=0,1", "-m"], "sede: no such key. Did you mean seed?"),
        (["seed=0,1"], "--multirun"),
        (["seed=a=b"], "cannot read 'seed=a=b'"),
        (["seed=~/my data/a=b.npz"], "If the value is this text: 'seed=\"/"),
        (["seed=["], "cannot read 'seed=['"),
    ],
)
def test_a_wrong_command_line_is_explained(run, arguments, message):
    code, output, errors = run(*arguments)
    assert code == 2
    assert output == ""
    assert message in errors
    assert errors.startswith("error: ")
    assert "Traceback" not in errors


def test_missing_values_are_named(run):
    code, output, errors = run(name="asking")
    assert (code, output) == (2, "")
    assert errors == "error: no value for needed, other.also: give needed=VALUE other.also=VALUE.\n"
    assert run("needed=1", "other.also=2", name="asking")[0] == 0


def test_an_interpolation_that_leads_nowhere_is_a_configuration_error(run):
    code, _, errors = run("batch_size=${task.sgima}")
    assert code == 2
    assert errors.startswith("error: Interpolation key 'task.sgima' not found")
    assert "Traceback" not in errors


def test_a_broken_file_is_a_configuration_error(run, tmp_path):
    (tmp_path / "project/conf/algorithm/iql.yaml").write_text("name: [unclosed")
    code, _, errors = run()
    assert code == 2
    assert "iql.yaml" in errors
    assert "Traceback" not in errors


def test_threads_are_set(run):
    before = torch.get_num_threads()
    try:
        run(name="threads", body="pass")
        assert torch.get_num_threads() == 3
        code, _, errors = run("threads=0", name="threads", body="pass")
        assert (code, errors) == (2, "error: threads must be a whole number in [1, 1024], found 0.\n")
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("require_range(config, 'algorithm.expectile', '(0, 0.5)')", 2, "in (0, 0.5), found 0.7"),
        ("raise CheckpointError('no good checkpoint')", 3, "error: no good checkpoint"),
        ("raise MemoryError('out of memory')", 4, "error: out of memory"),
        ("raise OSError(errno.ENOSPC, 'No space left on device')", 4, "No space left"),
        ("open('/nowhere/file')", 1, "/nowhere/file"),
        ("raise ValueError('the data have holes')", 1, "error: the data have holes"),
        ("raise KeyError('a missing name')", 1, "error: a missing name\n"),
        ("raise KeyboardInterrupt", 130, "interrupted; a run goes on from its last checkpoint"),
    ],
)
def test_errors_for_the_user_are_a_message_and_an_exit_code(run, body, code, message):
    found, _, errors = run(body=body)
    assert found == code
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "body", ["int('x')", "{}['x']", "config.nothing.at.all()", "import torch; torch.ones(2) @ torch.ones(3)"]
)
def test_a_defect_shows_where_it_is(run, body):
    code, _, errors = run(body=body)
    assert code == 1
    assert errors.startswith("error: ")
    assert re.search(r"train\.py:\d+\.\nUnless that is code of your own, it is a fault of o3f", errors)
    trace = Path(re.search(r"please report it, with (\S+)\.\n", errors)[1])
    assert "Traceback" in trace.read_text()
    assert "train.py" in trace.read_text()
    trace.unlink()


def test_called_with_a_configuration_a_recipe_is_a_function(run, tmp_path, capsys):
    run(body=SHOW + "; config.seed == 9 and int('x')")
    main = runpy.run_path(str(tmp_path / "project/recipes/train.py"))["main"]
    config = OmegaConf.create({"seed": 5, "copied": "${seed}"})
    main(config)
    assert ran(capsys.readouterr().out) == [{"seed": 5, "copied": 5}]
    assert OmegaConf.to_container(config) == {"seed": 5, "copied": "${seed}"}
    with pytest.raises(ValueError, match="invalid literal"):
        main(OmegaConf.create({"seed": 9}))


def test_a_recipe_of_an_installed_package_finds_its_configuration(run, tmp_path):
    """As with ``python -m o3f.recipes.finetune`` from a wheel, in an empty folder."""
    run()  # writes the recipe
    os.rename(tmp_path / "project", tmp_path / "package")
    command = [sys.executable, "-W", "error::DeprecationWarning", "-m", "package.recipes.train"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "task=halfcheetah/medium"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert ran(done.stdout)[0]["copied"] == 0.1
    assert list(Path.cwd().iterdir()) == []


def test_range_checks():
    config = {"a": {"b": 0.5}, "n": 3, "text": "abc", "flag": True}
    for interval in ("(0, 1)", "[0.5, 1]", "[0, 0.5]", "(-inf, inf)"):
        require_range(config, "a.b", interval)
    require_range(config, "n", "[1, inf)", integer=True)
    for key, interval, integer in [
        ("a.b", "(0.5, 1)", False),
        ("a.b", "[0, 0.5)", False),
        ("a.b", "[0, 1]", True),
        ("text", "[0, 1]", False),
        ("flag", "[0, 1]", False),
    ]:
        with pytest.raises(ValueError, match=rf"{key} must be a (whole )?number in .*, found"):
            require_range(config, key, interval, integer=integer)
    require(True, "fine")
    with pytest.raises(ValueError, match="not fine"):
        require(False, "not fine")


def test_names_are_suggested():
    check_keys({"a": 1}, ["a", "b"], "here")
    with pytest.raises(ValueError, match=r"exploration\.kind: 'optimistc' is not known\. Did you mean optimistic\?"):
        check_keys({"optimistc": None}, {"optimistic": 1, "noise": 2}, "exploration.kind")
    assert did_you_mean("zzz", []) == " There are: ."
