"""What is added takes the files that CONTRIBUTING says: an algorithm (TD3+BC), a scorer, a metric, as a user's own."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor, nn

from o3f.algorithms import ALGORITHMS
from o3f.objectives.ranges import COUNTS, RANGES
from o3f.runs.tags import TAGS
from o3f.training.exploration import KINDS, choosing, make_actor
from recipes.finetune import finetune_in_folder
from tests.algorithms import test_learner_contract as contract
from tests.support.iql_cases import make_batch
from tests.support.learners import make
from tests.support.recipe_runs import ROOT, TINY, rows
from tests.support.td3_bc.learner import TD3BCLearner

OWN = Path(__file__).parents[1] / "support/td3_bc"
SHORTER = ["offline.steps=4", "offline.evaluate_every=4", "offline.batch_size=4", "online.steps=10"]
NUMBERS = {"alpha": "[0, inf)", "policy_noise": "[0, inf)", "noise_clip": "[0, inf)"}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's entries: the learner by its name, and the ranges of what is new."""
    monkeypatch.setitem(ALGORITHMS, "td3_bc", TD3BCLearner)
    for name, interval in NUMBERS.items():
        monkeypatch.setitem(RANGES, name, interval)
    monkeypatch.setattr("o3f.objectives.ranges.COUNTS", COUNTS | {"actor_every"})
    return


def toy(*overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        searched = f"hydra.searchpath=[file://{OWN / 'conf'}]"
        return compose("finetune", overrides=[searched, *TINY, "algorithm=td3_bc", *overrides])


def published_step(learner: TD3BCLearner, batches: list, noises: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The authors' two steps (TD3_BC.py), with torch's Adam on copies: weights of the policy and of the critics."""
    config = learner.config
    policy, critic = copy.deepcopy(learner.policy.module), copy.deepcopy(learner.critic)
    target_policy, target_critic = copy.deepcopy(policy), copy.deepcopy(critic)
    optimisers = [torch.optim.Adam(each.parameters(), lr=config.learning_rate) for each in (critic, policy)]

    def values(network: nn.Module, observation: Tensor, action: Tensor) -> Tensor:
        return network.values(torch.cat([observation, action], -1))  # type: ignore[operator, no-any-return]

    for number, (batch, noise) in enumerate(zip(batches, noises, strict=True), start=1):
        following, alive = batch["next"], (~batch["next", "terminated"]).float().squeeze(-1)
        with torch.no_grad():
            action = (target_policy(following["observation"]) + (0.2 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
            value = values(target_critic, following["observation"], action).min(-1).values
            target = batch["next", "reward"].squeeze(-1) + 0.99 * alive * value
        q = values(critic, batch["observation"], batch["action"])
        optimisers[0].zero_grad()
        sum(nn.functional.mse_loss(q[:, j], target) for j in range(2)).backward()  # type: ignore[union-attr]
        optimisers[0].step()
        if number % 2 == 0:
            pi = policy(batch["observation"])
            rise = values(critic, batch["observation"], pi)[:, 0]
            loss = -2.5 / rise.abs().mean().detach() * rise.mean() + nn.functional.mse_loss(pi, batch["action"])
            optimisers[1].zero_grad()
            loss.backward()
            optimisers[1].step()
            for network, held in ((policy, target_policy), (critic, target_critic)):
                for one, other in zip(network.parameters(), held.parameters(), strict=True):
                    other.data.lerp_(one.data, config.tau)
    return list(policy.parameters()), list(critic.parameters())


def test_its_updates_are_the_published_ones() -> None:
    learner = make("td3_bc", learning_rate=1e-2)
    assert isinstance(learner, TD3BCLearner)
    batches = [make_batch(9, seed=seed) for seed in range(4)]
    torch.manual_seed(5)
    noises = [torch.randn(9, 2) for _ in batches]
    expected = published_step(learner, batches, noises)
    torch.manual_seed(5)
    learner.update(batches)
    found = list(learner.policy.parameters()), list(learner.critic.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_keeps_the_contract_of_every_learner(tmp_path: Path) -> None:
    contract.test_resumes_bit_for_bit_from_a_checkpoint("td3_bc", {}, tmp_path)
    contract.test_learns_the_same_whether_it_reports_or_not("td3_bc", {})
    contract.test_reports_plain_numbers_that_are_documented_as_its_own("td3_bc", {})
    contract.test_leaves_batches_as_they_are("td3_bc")
    contract.test_learners_that_loaded_one_state_do_not_share_it("td3_bc")
    contract.test_asks_its_hooks("td3_bc")


def test_runs_by_its_name_with_o3fs_choice(place: Path) -> None:
    """A configuration folder of the user's own, and no change here: pre-trained, fine-tuned, scheduled."""
    path, scores = finetune_in_folder(toy(*SHORTER, "schedule=linear", "+schedule.to.algorithm.alpha=1.0"))
    assert path.parent.name == "Reacher-v5-td3_bc-optimistic"
    assert math.isfinite(scores["return"])
    assert [step for step, _, _ in rows(path, "train/loss/actor")][-1] == 10


def test_contributing_counts_the_files_of_a_change() -> None:
    """Those that TD3+BC has, the table, and what it adds to existing lists: as many as CONTRIBUTING says."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    said = {match[1]: (int(match[2]), match[3]) for match in re.finditer(r"^\| (.+?) \| (\d+): (.+) \|$", text, re.M)}
    own = {"loss.py": "objectives/<name>.py", "learner.py": "algorithms/<name>.py"}
    own["conf/algorithm/td3_bc.yaml"] = "conf/algorithm/<name>.yaml"
    files = {path.relative_to(OWN).as_posix() for path in OWN.rglob("*") if path.suffix in (".py", ".yaml")}
    assert files - {"__init__.py"} == own.keys()
    count, places = said["an algorithm"]
    wanted = {*own.values(), "objectives/__init__.py", "algorithms/__init__.py", "objectives/ranges.py"}
    assert wanted <= {*re.findall(r"`([^`]+)`", places)}
    limits = {"an algorithm": 8, "a scorer, sampler or selector": 4, "a hyper-parameter": 3, "a file format": 3}
    limits |= {"a logged metric": 2, "a task": 1}
    assert said.keys() == limits.keys()
    for change, limit in limits.items():
        count, places = said[change]
        assert count <= limit, change


class LowestScore(TensorDictModuleBase):
    """A scorer of a user's own: the lowest critic's value, times ``factor``."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.in_keys, self.out_keys = ["candidate_values"], ["scores"]
        self.factor = factor

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the scores ``[*B, N]``."""
        return tensordict.set("scores", self.factor * tensordict.get("candidate_values").amin(-1))


def test_a_scorer_is_its_class_and_an_entry_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its name in modules/__init__.py and its file in conf/exploration: four."""
    options = ("num_candidates", "sigma", "centre", "factor")
    monkeypatch.setitem(KINDS, "lowest", (choosing("scorer", LowestScore, "factor"), options))
    learner: Any = make("iql")
    exploration = {"kind": "lowest", "num_candidates": 30, "sigma": 0.3, "centre": "mean", "factor": 2.0}
    actor: Any = make_actor(learner.policy, learner.critic, exploration, learner.policy.spec["action"])
    states, candidates = make_batch(6).select("observation"), 2 * torch.rand(6, 30, 2) - 1
    everywhere = states.unsqueeze(-1).expand(6, 30).set("action", candidates)
    lowest = learner.critic(everywhere)["state_action_value"].amin(-1)
    torch.testing.assert_close(actor.score(states, candidates), 2.0 * lowest)


def test_a_metric_of_one_algorithm_is_named_where_it_is_computed_and_in_the_list() -> None:
    package = ROOT / "components/o3f"
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    own = {tag.removeprefix("train/") for tag, about in TAGS.items() if about.runs.split(" ")[0] in ALGORITHMS}
    assert {"vae/divergence", "cql/gap"} <= own
    for name in own:
        named = {path.name for path, text in sources.items() if f'{name}"' in text}
        assert len(named) == 2, (name, named)
