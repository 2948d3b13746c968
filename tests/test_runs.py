"""A run folder belongs to one configuration and to one process at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from o3f import runs
from o3f.checkpoint import save
from o3f.errors import CheckpointError, ConfigError, ResourceError
from o3f.run_config import config_difference, run_path
from o3f.runs import RunFolder


@pytest.fixture
def config(tmp_path):
    return {
        "runs": str(tmp_path / "runs"),
        "name": "first",
        "task": {"name": "hopper-medium", "sigma": 0.2},
        "algorithm": {"name": "iql", "expectile": 0.7},
        "exploration": {"kind": "optimistic", "sigma": 0.2},
        "seed": 3,
        "resume": "auto",
        "threads": 1,
    }


def begin(config):
    """Open the folder and log something: from now on it holds a run."""
    with RunFolder.open(config) as run:
        (run.path / "metrics.csv").write_text("step,tag,value\n")


def test_the_folder_follows_from_the_configuration(config, tmp_path):
    assert run_path(config) == tmp_path / "runs/first/hopper-medium-iql-optimistic/seed3"
    del config["exploration"]
    assert run_path(config) == tmp_path / "runs/first/hopper-medium-iql-offline/seed3"


def test_the_resolved_configuration_is_written_before_anything_else(config):
    config["algorithm"]["sigma"] = "${task.sigma}"
    with RunFolder.open(OmegaConf.create(config)) as run:
        written = (run.path / "config.yaml").read_text()
        assert "$" not in written
        assert OmegaConf.to_container(OmegaConf.create(written)) == {
            **config,
            "algorithm": {"name": "iql", "expectile": 0.7, "sigma": 0.2},
        }
        assert run.checkpoints == run.path / "checkpoints"


def test_another_configuration_is_refused_with_the_differences(config):
    begin(config)
    other = {
        **config,
        "algorithm": {"name": "iql", "temperature": 3.0},
        "task": {"name": "hopper-medium", "sigma": 0.1},
    }
    with pytest.raises(ConfigError) as caught:
        RunFolder.open(other)
    assert str(caught.value).splitlines()[1:4] == [
        "  task.sigma: 0.2 -> 0.1",
        "  algorithm.expectile: 0.7 -> (absent)",
        "  algorithm.temperature: (absent) -> 3.0",
    ]
    assert "name=" in str(caught.value)
    assert caught.value.exit_code == 2
    RunFolder.open(config).close()  # the refusal let go of the lock and changed nothing


def test_what_failed_before_it_began_is_not_in_the_way(config):
    with RunFolder.open({**config, "threads": 7, "dataset": {"id": "mistyped"}}) as run:
        run.record_environment(dataset_hash="abc")
    with RunFolder.open({**config, "resume": "never"}) as run:
        assert "mistyped" not in (run.path / "config.yaml").read_text()
        run.record_environment(dataset_hash="xyz")
        assert json.loads((run.path / "env.json").read_text())["dataset_hash"] == "xyz"


@pytest.mark.parametrize("result", ["metrics.csv", "done.json", "checkpoints/step_000000000005.ckpt"])
def test_any_result_protects_a_run(config, result):
    with RunFolder.open(config) as run:
        run.checkpoints.mkdir()
        (run.path / result).touch()
    with pytest.raises(ConfigError, match=r"task\.sigma: 0\.2 -> 0\.1"):
        RunFolder.open({**config, "task": {"name": "hopper-medium", "sigma": 0.1}})


def test_documented_keys_may_differ(config):
    begin(config)
    for change in ({"threads": 2}, {"resume": "auto", "progress": False}, {"dataset": {"download": True}}):
        RunFolder.open({**config, **change}).close()
    with pytest.raises(ConfigError, match=r"dataset\.id: \(absent\) -> b"):
        RunFolder.open({**config, "dataset": {"id": "b"}})
    RunFolder.open({**config, "dataset": {"id": "b"}}, free_keys={"dataset.id"}).close()


@given(
    st.recursive(
        st.one_of(
            st.integers(),
            st.floats(allow_nan=False),
            st.booleans(),
            st.text("abc-1e.", max_size=5),
            st.none(),
        ),
        lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text("abc", min_size=1), child, max_size=3),
        max_leaves=8,
    )
)
def test_a_configuration_read_back_is_the_same_configuration(value):
    config = {"value": value}
    again = runs.plain(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(config))))
    assert config_difference(config, again) == []


def test_resume_must_and_never(config):
    with pytest.raises(ConfigError, match="resume must be auto, must or never, found 'maybe'"):
        RunFolder.open({**config, "resume": "maybe"})
    with pytest.raises(CheckpointError, match=r"resume=must, but .* holds no checkpoint"):
        RunFolder.open({**config, "resume": "must"})
    assert not run_path(config).exists()
    with RunFolder.open({**config, "resume": "never"}) as run:
        save(run.checkpoints, 5, {"counters": {"step": 5}})
    with pytest.raises(ConfigError, match=r"resume=never, but .* holds a run"):
        RunFolder.open({**config, "resume": "never"})
    RunFolder.open({**config, "resume": "must"}).close()


def test_a_finished_run_keeps_its_scores(config):
    with RunFolder.open(config) as run:
        assert run.scores is None
        run.finish({"score": 0.1 + 0.2, "returns": [1.5, 2.5]})
    with RunFolder.open({**config, "resume": "must"}) as run:
        assert run.scores == {"score": 0.1 + 0.2, "returns": [1.5, 2.5]}


def test_env_json_tells_versions_and_facts(config):
    with RunFolder.open(config) as run:
        run.record_environment(dataset="d", dataset_hash="abc")
        (run.path / "metrics.csv").touch()
        written = json.loads((run.path / "env.json").read_text())
        assert written["torch"] == torch.__version__
        assert (written["seed"], written["dataset_hash"]) == (3, "abc")
        assert written["threads"] == torch.get_num_threads()
        run.record_environment(dataset="d", dataset_hash="abc")  # the same again: no complaint
        with pytest.raises(ConfigError, match="dataset_hash: abc -> xyz"):
            run.record_environment(dataset="d", dataset_hash="xyz")


def test_another_version_or_thread_count_only_warns(config, monkeypatch):
    here = runs.provenance()
    with RunFolder.open(config) as run:
        run.record_environment()
        (run.path / "metrics.csv").touch()
        monkeypatch.setattr(runs, "provenance", lambda: {**here, "torch": "9.9", "threads": 77})
        with pytest.warns(UserWarning, match=r"torch: .* -> 9\.9, threads: .* -> 77.*not bit-exact"):
            run.record_environment()
        assert json.loads((run.path / "env.json").read_text())["torch"] == here["torch"]


def test_no_secret_of_the_process_is_written(config, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "very-secret-token")
    with RunFolder.open(config) as run:
        run.record_environment()
        assert all("very-secret-token" not in file.read_text() for file in run.path.iterdir())


@pytest.mark.parametrize(
    "name", ["../up", "/etc", "a/b", "..", ".hidden", "", "a b", "é", "nul\0", "x" * 101, "a\n", None, 3]
)
def test_names_that_are_not_one_folder_name_are_refused(config, name, tmp_path):
    for bad in ({"name": name}, {"task": {"name": name}}, {"exploration": {"kind": name}}):
        with pytest.raises(ConfigError, match="cannot be part of a folder name"):
            RunFolder.open({**config, **bad})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [-1, 1.5, "../3", True, None])
def test_seeds_that_are_no_seed_are_refused(config, seed):
    with pytest.raises(ConfigError, match="seed must be a whole number"):
        RunFolder.open({**config, "seed": seed})


def test_a_symbolic_link_out_of_the_root_is_refused(config, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/first").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="symbolic link"):
        RunFolder.open(config)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")  # the root itself may be one
    RunFolder.open({**config, "runs": str(tmp_path / "link")}).close()


def test_the_stage_of_a_killed_save_is_swept_at_the_start(config):
    with RunFolder.open(config) as run:
        (run.checkpoints / ".stage/half").mkdir(parents=True)
    with RunFolder.open(config) as run:
        assert list(run.checkpoints.iterdir()) == []


HOLD = """
import json, sys, time
from o3f.runs import RunFolder
run = RunFolder.open(json.loads(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_with_the_pid_and_a_dead_one_is_no_obstacle(config):
    with RunFolder.open(config), pytest.raises(ResourceError, match=f"in use by process {os.getpid()} on"):
        RunFolder.open(config)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, json.dumps(config)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ResourceError, match=f"in use by process {holder.pid} on") as caught:
            RunFolder.open(config)
        assert caught.value.exit_code == 4
        start = time.monotonic()
        with pytest.raises(ResourceError):
            RunFolder.open(config, timeout=0.3)
        assert time.monotonic() - start >= 0.3
        holder.send_signal(signal.SIGKILL)
    with RunFolder.open(config) as run:
        assert (run.path / ".owner").read_text().startswith(f"{os.getpid()} ")


def test_a_root_that_cannot_be_written_fails_with_its_path(config, tmp_path):
    Path(config["runs"]).write_text("a file where the folder should be")
    with pytest.raises(OSError, match=str(tmp_path)):
        RunFolder.open(config)
