"""Finished runs are evaluated, exported and collected with."""

from __future__ import annotations

import json
from pathlib import Path

import minari
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.collection.behaviours import GaussianMLP
from o3f.errors import ConfigError
from o3f.evaluation.episodes import evaluate as play
from o3f.training import build
from o3f.training.load import load_run
from recipes import collect, evaluate, export
from tests.support.recipe_runs import REACHER, TINY, make_dataset, run, settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "datasets"))
        make_dataset()
        return run("pretrain", *TINY, f"runs={folder}/runs")


def test_the_report_is_the_evaluation(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main(settings("evaluate", f"run={trained}", "episodes=3", "seed=5", "optimistic=true"))
    report = json.loads((trained / "evaluation.json").read_text())
    config, learner = load_run(trained)
    expected = play(learner.policy, build.env_config(config), episodes=3, seed=5).returns
    plain, optimistic = report["acting"]["policy"], report["acting"]["optimistic"]
    assert plain["returns"] == expected.tolist()
    assert plain["return"] == pytest.approx(expected.mean())
    assert plain["length"] == 50.0
    best = report["acting"]["best_of_n"]
    assert len({tuple(each["returns"]) for each in (plain, optimistic, best)}) == 3
    assert f"{expected.mean():.1f} ± {expected.std():.1f}" in capsys.readouterr().out


def test_the_best_of_n_is_never_of_lower_value_than_the_policys_own_action(trained: Path) -> None:
    config, learner = load_run(trained)
    config.task.sigma = 3.0  # nearly all candidates lie in corners: often the policy's own action is the best
    states = TensorDict({"observation": torch.randn(200, 10)}, [200])
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        own = learner.policy(states.clone())
        chosen = evaluate.best_of_n(config, learner)(states.clone())
        values = [learner.critic(each)["state_action_value"].mean(-1) for each in (own, chosen)]
    kept = (own["action"] == chosen["action"]).all(-1)
    assert 0 < kept.sum() < 200
    assert (values[1] >= values[0]).all()
    assert (values[1] > values[0])[~kept].all()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run folder"):
        evaluate.main(settings("evaluate", f"run={tmp_path}"))


def test_an_exported_policy_acts_the_same_and_collects(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "policy.npz"
    export.main(settings("export", f"run={trained}", f"to={file}"))
    _, learner = load_run(trained)
    observations = torch.randn(5, 10)
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        actions = learner.policy(TensorDict({"observation": observations}, [5]))["action"]
    np.testing.assert_allclose(GaussianMLP.load(file).mode(observations.numpy()), actions, atol=1e-5)

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    behaviours = {"npz": file, "run": trained}
    recorded = {}
    for kind, path in behaviours.items():
        behaviour = [
            f"task.behaviour.kind={kind}",
            f"task.behaviour.path={path}",
            "task.behaviour.sample=false",
        ]
        collect.main(settings("collect", *REACHER, *behaviour, f"task.dataset.id=me/{kind}-v0", "steps=50"))
        (episode,) = minari.load_dataset(f"me/{kind}-v0").iterate_episodes()
        recorded[kind] = episode.actions
    np.testing.assert_allclose(recorded["npz"], recorded["run"], atol=1e-4)
