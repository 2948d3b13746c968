"""What every learner in the table of algorithms keeps to, whatever it learns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from o3f.algorithms import ALGORITHMS
from o3f.runs.checkpoint import load_latest, save
from o3f.runs.tags import TAGS
from tests.support.iql_cases import make_batch
from tests.support.learners import CASES, NAMES, OPTIONS, blocks, make
from tests.support.recipe_runs import ROOT, same

#: Written by a recipe or the guard, and not by the learners.
ELSEWHERE = {"train/critic/largest", "train/left_out"}
every_case = pytest.mark.parametrize(("name", "options"), CASES)


def train(learner: Any, count: int, start: int = 0) -> dict[str, torch.Tensor]:
    """Metrics of the last of so many updates."""
    return [learner.update(block) for block in blocks(count, start)][-1]


@every_case
def test_resumes_bit_for_bit_from_a_checkpoint(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    straight = make(name, **options)
    torch.manual_seed(3)
    for coefficient in straight.coefficients.values():  # as a schedule has left them
        coefficient.mul_(0.9)
    train(straight, 3)
    save(tmp_path, 3, {"learner": straight})
    expected = train(straight, 3, start=10)
    resumed = make(name, **options)
    resumed.prepare(make_batch(40, seed=7))
    train(resumed, 2, start=30)  # whatever it did before must be forgotten
    load_latest(tmp_path, {"learner": resumed})
    assert same(train(resumed, 3, start=10), expected)
    assert same(resumed.state_dict(), straight.state_dict())
    assert resumed.updates == straight.updates == 12
    assert same(resumed.coefficients, straight.coefficients)


@every_case
def test_learns_the_same_whether_it_reports_or_not(name: str, options: dict[str, Any]) -> None:
    ends = []
    for report in (True, False):
        learner = make(name, **options)
        metrics = [learner.update(block, report=report) for block in blocks(3)]
        assert [bool(each) for each in metrics] == [report] * 3
        ends.append((learner.state_dict(), torch.get_rng_state()))
    assert same(*ends)


@every_case
def test_reports_plain_numbers_that_are_documented_as_its_own(name: str, options: dict[str, Any]) -> None:
    learner = make(name, **options)
    metrics = train(learner, 1)
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
    found = {f"train/{tag}" for tag in metrics}
    assert found - TAGS.keys() == set()
    said = {tag for tag in TAGS if tag.startswith("train/") and has(TAGS[tag].runs, name, options)} - ELSEWHERE
    assert found == said
    assert learner.update([]) == {}
    assert learner.updates == 2


def has(runs: str, name: str, options: dict[str, Any]) -> bool:
    """Whether a tag's ``runs``, as in ``"iql, cql with lagrange"``, are about an algorithm with these options."""
    chosen = {*options, *(value for value in options.values() if isinstance(value, str))}
    named = {name, *(f"{name} with {each}" for each in chosen)}
    return runs == "all" or not named.isdisjoint(runs.split(", "))


@pytest.mark.parametrize("name", NAMES)
def test_leaves_batches_as_they_are(name: str) -> None:
    (block,) = blocks(1)
    before = [batch.clone() for batch in block]
    make(name, **OPTIONS.get(name, {})).update(block)
    for batch, old in zip(block, before, strict=True):
        assert set(batch.keys(True, True)) == set(old.keys(True, True))
        assert (batch == old).all()


@pytest.mark.parametrize("name", NAMES)
def test_learners_that_loaded_one_state_do_not_share_it(name: str) -> None:
    source, twin = make(name), make(name)
    train(source, 2)
    twin.load_state_dict(source.state_dict())
    before = copy.deepcopy(source.state_dict())
    train(twin, 2, start=10)
    assert same(source.state_dict(), before)
    assert not same(twin.state_dict(), before)


@pytest.mark.parametrize("name", NAMES)
def test_asks_its_hooks(name: str) -> None:
    """For V(s') once a batch; and the policy follows a further term of its loss, on the last batch at least."""
    learner: Any = make(name)
    asked: list[int] = []
    learner.next_value = lambda batch: asked.append(len(batch)) or torch.zeros(len(batch))
    train(learner, 1)
    assert asked == [5, 3]
    twins: list[Any] = [make(name), make(name)]
    pull = next(parameter for parameter in twins[1].policy.parameters() if parameter.requires_grad)
    twins[1].actor_term = lambda batch: 1e3 * pull.square().sum()
    for twin in twins:
        torch.manual_seed(1)
        train(twin, 1)
    assert not same(twins[0].policy.state_dict(), twins[1].policy.state_dict())
    assert same(dict(twins[0].critic.named_parameters()), dict(twins[1].critic.named_parameters()))


def test_every_algorithm_has_its_file_with_its_hyper_parameters() -> None:
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf/algorithm").glob("*.yaml")}
    assert files.keys() == ALGORITHMS.keys()
    for name, settings in files.items():
        fields = ALGORITHMS[name].config_type.__dataclass_fields__.keys()
        assert settings["name"] == name
        assert settings.keys() - {"name", "batch_size", "updates_per_step", "offline_steps"} == fields, name
