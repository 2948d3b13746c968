"""What is set and does nothing: text for true or false, keys that nothing reads, values that are never used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from o3f.cli.keys import Keys, check_choices, keys_of
from o3f.errors import ConfigError
from o3f.runs.folder import RunFolder
from o3f.training import build
from o3f.training.checks import check_batches, check_online
from recipes import collect, figures
from tests.support.recipe_runs import REACHER, ROOT, TINY, command, settings

RECIPES = ("collect", "pretrain", "finetune", "evaluate", "diagnose", "figures", "plot", "export", "quickstart")


def keys(recipe: str) -> Keys:
    found = keys_of(ROOT / "conf", recipe)
    assert found is not None
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_f80_every_switch_of_a_recipe_is_true_or_false(recipe: str) -> None:
    config = settings(recipe)
    keys(recipe).check(config)
    switches = {key for key in keys(recipe).booleans if isinstance(OmegaConf.select(config, key), bool)}
    assert switches == {key for key, value in _values(config) if isinstance(value, bool)}
    for key in switches:
        right = OmegaConf.select(config, key)
        for wrong in ("no", 7, None):
            OmegaConf.update(config, key, wrong)
            with pytest.raises(ConfigError, match=re.escape(f"{key} must be true or false, found {wrong!r}.")):
                keys(recipe).check(config)
        OmegaConf.update(config, key, right)


def _values(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key in config:
        if OmegaConf.is_missing(config, key):
            continue
        value = config[key]
        nested = OmegaConf.is_dict(value)
        found += _values(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return found


def test_f80_the_recipes_ask_before_any_work(place: Path) -> None:
    with pytest.raises(ConfigError, match="overwrite must be true or false, found 'no'"):
        collect.main(settings("collect", *TINY[:3], "overwrite=no"))
    with pytest.raises(ConfigError, match="dry_run must be true or false, found 'off'"):
        figures.main(settings("figures", "dry_run=off"))


def test_f80_null_and_other_kinds_stay_right(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("a: false\nb: null\nc: true\nd: auto\n")
    (tmp_path / "group").mkdir()
    (tmp_path / "main.yaml").write_text("defaults: [one, {group: x}, _self_]\nb: true\n")
    (tmp_path / "group/x.yaml").write_text("switch: true\nkind: false\nopen: {}\n")
    (tmp_path / "group/y.yaml").write_text("switch: ${c}\nkind: fast\nopen: {inner: true}\n")
    found = keys_of(tmp_path, "main")
    assert found is not None
    assert found.booleans == {"a", "c", "group.switch"}
    assert found.known == {"a", "b", "c", "d", "group.switch", "group.kind", "group.open", "group.open.inner"}


@pytest.mark.parametrize(
    ("recipe", "override", "near"),
    [
        ("finetune", "+online.stepz=3", "online.steps"),
        ("pretrain", "++offline.log_evry=3", "offline.log_every"),
        ("finetune", "+dataset.clip_action=true", "dataset.clip_actions"),
        ("collect", "+stepz=3", "steps"),
        ("evaluate", "+online.steps=3", None),
        ("finetune", "+anything={a: 1}", None),
    ],
)
def test_f81_a_key_that_nothing_reads_is_refused(recipe: str, override: str, near: str | None) -> None:
    key = override.lstrip("+").partition("=")[0]
    with pytest.raises(ConfigError) as refused:
        keys(recipe).check(settings(recipe, override))
    assert str(refused.value).startswith(key)
    assert "no such key; nothing would read it." in str(refused.value)
    if near:
        assert f"Did you mean {near}" in str(refused.value)


def test_f81_what_is_read_is_let_in() -> None:
    added = [
        *("+task.env.kwargs.anything=3", "+schedule.to.exploration.sigma=0.1", "+task.env.attributes.gravity=1"),
        *("++algorithm.compile=true", "+size=0.4", "exploration.sigma=${size}", "+task.dataset.rewards=tasks_once"),
    ]
    keys("finetune").check(settings("finetune", *added))


def test_f81_a_mistyped_resume_allow_is_named(config: dict[str, Any]) -> None:
    with RunFolder.open(config) as run:
        run.finish({})
    changed = {**config, "algorithm": {"name": "iql", "expectile": 0.8}}
    with pytest.raises(ConfigError, match=r"resume_allow: 'algorithm.expectle' is not known. Did you mean algorithm\."):
        RunFolder.open({**changed, "resume_allow": ["algorithm.expectle"]})
    with pytest.raises(ConfigError, match="must be a list of keys"):
        RunFolder.open({**changed, "resume_allow": "algorithm.expectile"})


def test_f81_a_share_of_no_row_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"online_fraction=0.01 of offline.batch_size=16 is not one row"):
        check_batches(settings("finetune", *TINY, "online.online_fraction=0.01"))
    for share in ("0", "0.0625", "null"):
        check_batches(settings("finetune", *TINY, f"online.online_fraction={share}"))


@pytest.mark.parametrize("override", ["schedule.steps=5", "transfer.optimisers=true"])
def test_f81_a_setting_of_what_was_not_chosen_is_refused(override: str) -> None:
    config = settings("finetune", *TINY, override)
    with pytest.raises(ConfigError, match=rf"{override} does nothing"):
        check_online(config)


@pytest.mark.parametrize("override", ["+online.steps=3", "+online={sigma: 1}", "+exploration=ucb", "online.steps=3"])
def test_f81_what_only_another_recipe_reads_is_refused(
    override: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("pretrain", *REACHER, override) == 2
    key = override.lstrip("+").partition("=")[0]
    assert f"{key}: pretrain does not read it, another recipe does" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_f81_what_a_recipe_reads_is_let_in_on_its_command_line() -> None:
    given = ["experiment=recommended", "debug=toy", "offline.steps=3", "+task.env.kwargs.a=1", "+task={sigma: 1}"]
    keys("pretrain").check_given(given, "pretrain")
    keys("pretrain").check_given(["+online.steps=3", "offline.steps=${online.steps}"], "pretrain")
    online = ["+algorithm@offline_algorithm=cql", "+schedule.to.algorithm.expectile=1", "+online.steps=3"]
    keys("finetune").check_given([*given, *online], "finetune")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("guard.max_rollbacks=2", "guard.max_rollbacks=2 does nothing with guard.on_nonfinite=stop"),
        ("agent.value_steps=5", "agent.value_steps=5 does nothing: pretrained=auto is no agent of your own"),
    ],
)
def test_f81_a_number_that_is_given_and_not_used_is_refused(
    override: str, told: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("finetune", *TINY, override) == 2
    assert told in capsys.readouterr().err


def test_f81_more_transitions_than_there_are_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for most, told in ((301, True), (300, False)):
        build.buffer(settings("finetune", *TINY, f"dataset.max_transitions={most}"))
        assert (f"max_transitions={most} leaves nothing out: there are 300" in capsys.readouterr().out) == told


def test_f81_final_values_that_are_not_gone_to_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    config = settings("finetune", *TINY, "+schedule.to.algorithm.expectile=0.9")
    learner = build.learner(config)
    build.schedule(config, learner, learner.policy).step(60)
    assert float(learner.coefficients["expectile"]) == pytest.approx(0.7)
    assert "schedule=same: algorithm.expectile in schedule.to is not used" in capsys.readouterr().out


def test_f81_a_launcher_that_comes_too_late_is_an_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/late.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /launcher: joblib\nname: late\n"
    )
    arguments = ["--config-dir", "mine", *TINY, "experiment=late,recommended", "-m"]
    assert command("finetune", *arguments) == 2
    assert "launcher=joblib comes from a file that is chosen for each run by itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given", ["experiment=recomended", "debug=toys", "launcher=jobs", "algorithm@offline_algorithm=cqll"]
)
def test_f81_a_file_that_there_is_not_is_refused(given: str) -> None:
    """Hydra passes over the file of an optional group, so that the run would be another one than was asked for."""
    with pytest.raises(ConfigError, match=f"{given}: there is no such file"):
        check_choices([given], [ROOT / "conf"])
    check_choices(["experiment=recommended", "task=hopper/medium", "experiment=null", "name=x"], [ROOT / "conf"])
