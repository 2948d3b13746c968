"""evaluation.optimistic: the critics' choice plays the policy's episodes, and no number of the run is another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from o3f.evaluation.episodes import evaluate
from o3f.runs.tags import TAGS
from o3f.training import build
from o3f.training.load import load_run
from tests.support.recipe_runs import PARTS, SHORT, part, rows, run, same


def test_it_is_told_beside_the_policy_and_changes_nothing(place: Path) -> None:
    overrides = [*SHORT, "exploration.sigma=0.3", "task.score={min: -50, max: 0}"]
    plain = run("finetune", *overrides, "name=plain")
    told = run("finetune", *overrides, "name=told", "evaluation.optimistic=true")
    assert all(same(part(plain, name), part(told, name)) for name in PARTS)
    assert (plain / "done.json").read_bytes() == (told / "done.json").read_bytes()
    chosen = [row for row in rows(told) if row[1].startswith("eval_optimistic/")]
    assert [row for row in rows(told) if row not in chosen] == rows(plain)
    assert {tag for _, tag, _ in chosen} == {f"eval_optimistic/{name}" for name in ("return", "length", "score")}
    assert {tag for _, tag, _ in chosen} <= TAGS.keys()
    assert [step for step, _, _ in rows(told, "eval_optimistic/return")] == [
        step for step, _, _ in rows(told, "eval/return")
    ]

    config, learner = load_run(told)
    config.evaluation.optimistic = False
    actor = build.chooser(config, learner)
    actor.optimistic_eval = True
    again = evaluate(actor, build.env_config(config), episodes=config.evaluation.episodes, seed=config.evaluation.seed)
    assert rows(told, "eval_optimistic/return")[-1][2] == pytest.approx(again.returns.mean(), abs=1e-9)
    assert rows(told, "eval/return")[-1][2] != rows(told, "eval_optimistic/return")[-1][2]


def test_whether_the_choice_is_evaluated_is_no_part_of_what_a_run_is(place: Path) -> None:
    folder = run("finetune", *SHORT, "exploration=noise")
    assert run("finetune", *SHORT, "exploration=noise", "evaluation.optimistic=true") == folder
    pretrained = run("pretrain", *SHORT[:-1], "name=offline", "evaluation.optimistic=true")
    assert len(rows(pretrained, "eval_optimistic/return")) == len(rows(pretrained, "eval/return")) > 0
