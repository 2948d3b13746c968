"""A run folder belongs to one configuration and to one process at a time."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from o3f.errors import CheckpointError, ConfigError
from o3f.runs import folder as runs
from o3f.runs.checkpoint import save
from o3f.runs.counters import Counters
from o3f.runs.folder import RunFolder
from o3f.runs.identity import config_difference, run_path


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
        save(run.checkpoints, 5, {"counters": Counters(step=5)})
    with pytest.raises(ConfigError, match=r"resume=never, but .* holds a run"):
        RunFolder.open({**config, "resume": "never"})
    RunFolder.open({**config, "resume": "must"}).close()


def test_a_finished_run_keeps_its_scores(config):
    with RunFolder.open(config) as run:
        assert run.scores is None
        run.finish({"score": 0.1 + 0.2, "step": 4})
    with RunFolder.open({**config, "resume": "must"}) as run:
        assert run.scores == {"score": 0.1 + 0.2, "step": 4}


def test_a_finished_run_does_not_go_on_with_what_is_allowed_to_change(config):
    with RunFolder.open(config) as run:
        run.finish({"score": 1.0, "step": 4})
    longer = {**config, "task": {"name": "hopper-medium", "sigma": 0.3}, "resume_allow": ["task.sigma"]}
    with pytest.warns(UserWarning, match=r"is finished and stays what it is.*task.sigma: 0.2 -> 0.3.*name="):
        RunFolder.open(longer).close()
    assert OmegaConf.load(run_path(config) / "config.yaml").task.sigma == 0.2


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


@pytest.mark.parametrize("seed", [-1, 1.5, "../3", True, None])
def test_seeds_that_are_no_seed_are_refused(config, seed):
    with pytest.raises(ConfigError, match="seed must be a whole number"):
        RunFolder.open({**config, "seed": seed})
