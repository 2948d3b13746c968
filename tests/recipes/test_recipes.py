"""The recipes do what they say: pre-train, fine-tune in every way, refuse what does not fit."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensordict import TensorDict
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.data import RewardRule, load_minari, make_buffer
from o3f.data.rows import allocate_rows
from o3f.envs import EnvConfig, episode_seed
from o3f.errors import CheckpointError, ConfigError
from o3f.evaluation.episodes import evaluate
from o3f.runs.counters import Counters
from o3f.training import build
from o3f.training.exploration import make_actor
from tests.support import recipe_runs as runs
from tests.support.recipe_runs import REACHER, TINY, command, part, rows, run, same, settings

RULE = RewardRule(0.5, -1.0)
SCRATCH = ["dataset=none", "online.random_steps=20"]
ARMS = [
    ["exploration=optimistic"],
    ["exploration=optimistic", "exploration.omega=1", "exploration.centre=sample_per_candidate"],
    ["exploration=optimistic", "exploration.sigma=[0.1, 0.3]", "exploration.clip_margin=0.01"],
    ["exploration=noise"],
    ["exploration=matched_noise"],
    ["exploration=random_rank"],
    ["exploration=random_rank", "exploration.per=episode"],
    ["exploration=policy", "online.online_fraction=0.5", "online.updates_per_step=2"],
    [*SCRATCH, "algorithm=iql"],
    [*SCRATCH, "algorithm=sac", "exploration=policy"],
]


pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture(scope="module")
def pretrained(shared_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished pre-training, shared by the tests that do not touch it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(shared_datasets))
        return str(run("pretrain", *TINY, f"runs={tmp_path_factory.mktemp('shared')}"))


def loaded(config: Any, **sizes: Any) -> Any:
    """The buffer that a run should have, made without the recipes' code."""
    return load_minari("me/reacher-v0", batch_size=config.offline.batch_size, reward=RULE, **sizes)


def raw_return(learner: Any) -> float:
    return float(evaluate(learner.policy, EnvConfig("Reacher-v5"), episodes=1, seed=1000).returns.mean())


def test_pretraining_is_the_learner_on_batches_of_the_dataset() -> None:
    folder = run("pretrain", *TINY, "seed=3")
    config = settings("pretrain", *TINY, "seed=3")
    learner, buffer, expected = build.learner(config), loaded(config), []
    torch.manual_seed(3)
    for step in range(1, 21):
        batch = buffer.sample()
        metrics = learner.update([batch])
        if step % 5 == 0:
            metrics["critic/largest"] = learner.critic(batch)["state_action_value"].detach().abs().max()
            expected += [(step, f"train/{tag}", float(value)) for tag, value in metrics.items()]
    assert same(part(folder, "learner"), learner.state_dict())
    expected += [(20, "eval/return", raw_return(learner)), (20, "eval/length", 50.0)]
    assert rows(folder) == expected
    scores = {"step": 20, "return": raw_return(learner), "length": 50.0}
    assert json.loads((folder / "done.json").read_text()) == scores
    assert folder == Path("runs/default/Reacher-v5-iql-offline/seed3")


class PlainLoop:
    """Fine-tuning written down a second time: Gymnasium, no collector, no wrappers, no run folder."""

    def __init__(self, config: Any, pretrained: str | None) -> None:
        self.config, online = config, config.online
        self.learner = build.learner(config)
        sizes = {"online_capacity": online.steps, "online_fraction": online.online_fraction}
        if pretrained is None:
            self.buffer = make_buffer(None, batch_size=config.offline.batch_size, **sizes)
        else:
            self.learner.load_state_dict(part(Path(pretrained), "learner"))
            self.buffer = loaded(config, **sizes)
        self.spec = Bounded(-1.0, 1.0, (2,))
        critic, exploration = self.learner.critic, config.exploration
        self.actor = make_actor(self.learner.policy, critic, exploration, self.spec)
        self.returns: list[float] = []
        torch.manual_seed(config.seed + 1)
        env = gymnasium.make("Reacher-v5")
        while self.buffer.write_count < online.steps:
            self.episode(env, episode_seed(config.seed, len(self.returns)))

    def episode(self, env: Any, seed: int) -> None:
        observation, _ = env.reset(seed=seed)
        first, done, total, online = True, False, 0.0, self.config.online
        while not done and self.buffer.write_count < online.steps:
            seen = torch.tensor(observation, dtype=torch.float32)
            action = self.act(TensorDict({"observation": seen, "is_init": torch.tensor([first])}, []))
            observation, reward, terminated, truncated, _ = env.step(action.numpy())
            done, first, total = terminated or truncated, False, total + float(np.float32(reward))
            self.store(seen, action, observation, reward, terminated, truncated)
            if self.buffer.write_count > online.random_steps:
                self.learner.update([self.buffer.sample() for _ in range(online.updates_per_step)])
        if done:
            self.returns.append(total)

    def act(self, seen: TensorDict) -> torch.Tensor:
        if self.buffer.write_count < self.config.online.random_steps:
            return self.spec.rand()
        with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
            return self.actor(seen)["action"]

    def store(self, seen: Any, action: Any, after: Any, reward: float, terminated: bool, truncated: bool) -> None:
        row = allocate_rows(1, len(seen), len(action))
        row["observation"][0], row["action"][0] = seen, action
        row["next", "observation"][0] = torch.tensor(after, dtype=torch.float32)
        row["next", "reward"][0] = RULE(torch.tensor(reward, dtype=torch.float32))
        row["next", "terminated"][0], row["next", "truncated"][0] = terminated, truncated
        row["next", "done"][0] = terminated or truncated
        self.buffer.extend(row)


@pytest.mark.parametrize("arm", ARMS, ids=" ".join)
def test_finetuning_is_act_store_update(arm: list[str], pretrained: str) -> None:
    """Rows (what was executed, the rule applied once), parameters, returns and scores, bit for bit."""
    overrides = [*TINY, "seed=2", *([] if "dataset=none" in arm else [f"pretrained={pretrained}"]), *arm]
    folder = run("finetune", *overrides)
    config = settings("finetune", *overrides)
    plain = PlainLoop(config, None if config.dataset.id == "none" else pretrained)
    stored = part(folder, "buffer")
    expected = plain.buffer[len(plain.buffer) - 60 :].to_dict()
    assert same(stored["rows"], expected)
    assert len(expected["action"]) == stored["written"] == 60
    assert expected["action"].abs().max() <= 1.0
    assert same(part(folder, "learner"), plain.learner.state_dict())
    assert part(folder, "state") == asdict(Counters(step=60, episode=1, saved=60))
    assert rows(folder, "rollout/return") == [(50, "rollout/return", plain.returns[0])]
    assert rows(folder, "eval/return")[-1] == (60, "eval/return", raw_return(plain.learner))
    assert [step for step, *_ in rows(folder, "eval/return")] == [0, 30, 60]
    learned = [step for step, *_ in rows(folder, "train/loss/critic")]
    assert learned == list(range(config.online.random_steps + 5, 61, 5))


def test_without_a_dataset_nothing_is_loaded_or_pretrained() -> None:
    folder = run("finetune", *TINY, *SCRATCH, "task.dataset.id=me/absent-v0")
    assert json.loads((folder / "env.json").read_text())["dataset_hash"] is None
    assert [path.name for path in Path("runs").iterdir()] == ["default"]


def test_memory_mapped_storage_changes_nothing(pretrained: str) -> None:
    memory = run("finetune", *TINY, f"pretrained={pretrained}", "name=memory")
    memmap = run("finetune", *TINY, f"pretrained={pretrained}", "name=memmap", "dataset.storage=memmap")
    runs.assert_same_run(memory, memmap)


def test_tensorboard_shows_what_the_csv_files_hold(pretrained: str) -> None:
    folder = run("finetune", *TINY, f"pretrained={pretrained}")
    runs.assert_each_step_once(folder)
    runs.assert_each_step_once(Path(pretrained))
    losses = {f"train/loss/{name}" for name in ("value", "actor", "critic")}
    assert losses | {"eval/return", "eval/length", "rollout/return", "train/critic/std"} <= {
        tag for _, tag, _ in rows(folder)
    }
    events = EventAccumulator(str(folder)).Reload()
    (text,) = events.Tensors("config/text_summary")
    assert "hidden_sizes" in text.tensor_proto.string_val[0].decode()


def test_the_run_of_the_pretrain_recipe_is_used_where_it_is_the_same() -> None:
    offline = run("pretrain", *TINY)
    folder = run("finetune", *TINY)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["default"]
    named = run("finetune", *TINY, f"pretrained={offline}", "name=named")
    assert same(part(folder, "learner"), part(named, "learner"))
    run("finetune", *TINY, "seed=1")
    run("finetune", *TINY, "algorithm.discount=0.9", "name=other")
    assert len(list(Path("runs").glob("pretrained-*/*/*"))) == 2


def test_two_processes_share_one_pretraining(tmp_path: Path) -> None:
    arms = ["exploration=noise", "exploration=policy"]
    processes = [runs.start("finetune", *TINY, arm, "online.steps=10") for arm in arms]
    printed = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert sum("step 20:" in text for text in printed) == 1, printed
    (shared,) = Path("runs").glob("pretrained-*/*/seed0")
    runs.assert_each_step_once(shared)
    start = part(shared, "learner")["updates"]
    assert start == 20
    folders = [tmp_path / f"runs/default/Reacher-v5-iql-{arm}/seed0" for arm in ("noise", "policy")]
    expected = (0, *rows(shared, "eval/return")[-1][1:])
    assert [rows(folder, "eval/return")[0] for folder in folders] == [expected] * 2
    assert [part(folder, "learner")["updates"] for folder in folders] == [30, 30]
    for text, folder in zip(printed, folders, strict=True):
        assert f"Fine-tuned: {folder.relative_to(tmp_path)}" in text
        assert f"python recipes/evaluate.py run={folder.relative_to(tmp_path)} episodes=100" in text


def test_other_data_or_offline_settings_are_another_pretraining(
    shared_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shared_datasets, copy)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(copy))
    short = ["offline.steps=1", "offline.batch_size=4", "online.steps=1", "exploration=policy"]

    def pretrainings() -> int:
        return len(list(Path("runs").glob("pretrained-*/*/*")))

    run("finetune", *TINY, *short)
    run("finetune", *TINY, *short, "name=other", "exploration=noise", "online.steps=2", "threads=2")
    assert pretrainings() == 1
    run("finetune", *TINY, *short, "name=again", "algorithm.expectile=0.8")
    assert pretrainings() == 2
    run("finetune", *TINY, *short, "name=again", "seed=1")
    assert pretrainings() == 3
    run("pretrain", *TINY, *short[:2], "name=renewed")  # on the old data: not what the new data start from
    run("collect", *REACHER, "steps=100", "seed=9", "overwrite=true")
    run("finetune", *TINY, *short, "name=renewed")
    assert pretrainings() == 4


def test_another_configuration_in_the_folder_is_refused(pretrained: str, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*TINY, f"pretrained={pretrained}"]
    run("finetune", *overrides)
    assert command("finetune", *overrides, "exploration.sigma=0.3") == 2
    assert "exploration.sigma: 0.2 -> 0.3" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["pretrain", "finetune"])
def test_unknown_keys_end_with_exit_code_2(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(recipe, *TINY, "algorithm.expectle=0.7") == 2
    assert "Did you mean algorithm.expectile" in capsys.readouterr().err
    assert command(recipe, *TINY, "+algorithm.expectle=0.7") == 2
    assert "nothing would read it. Did you mean algorithm.expectile" in capsys.readouterr().err
    assert command("finetune", *TINY, "+exploration.sgima=0.7") == 2
    assert "nothing would read it. Did you mean exploration.sigma" in capsys.readouterr().err


def test_a_corrected_command_starts_after_a_refusal() -> None:
    with pytest.raises(ConfigError):
        run("finetune", *TINY, *SCRATCH, "exploration.centre=middle")
    with pytest.raises(FileNotFoundError):
        run("finetune", *TINY, "pretrained=none", "dataset.id=me/mistyped-v0")
    assert (run("finetune", *TINY, *SCRATCH) / "done.json").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm=sac"], "algorithm.name: iql -> sac"),
        (["algorithm.hidden_sizes=[16,8]"], "algorithm.hidden_sizes: [16, 16] -> [16, 8]"),
        (["algorithm.num_critics=3"], "algorithm.num_critics: 5 -> 3"),
        (["algorithm.temperature=9"], "algorithm.temperature: 3.0 -> 9"),
        (["task.env.id=Pusher-v5", "dataset=none"], "task.env.id: Reacher-v5 -> Pusher-v5"),
    ],
)
def test_an_agent_of_another_kind_is_refused(overrides: list[str], message: str, pretrained: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run("finetune", *TINY, f"pretrained={pretrained}", *overrides)
    assert f"pretrained={pretrained}" in str(refused.value)
    assert message in str(refused.value)


def test_another_reward_rule_is_told(pretrained: str) -> None:
    with pytest.warns(UserWarning, match=r"task\.reward\.scale: 0\.5 -> 0\.25"):
        run("finetune", *TINY, f"pretrained={pretrained}", "task.reward.scale=0.25", "online.steps=1")


def test_only_finished_runs_are_started_from(pretrained: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pretrained=nowhere is no run folder"):
        run("finetune", *TINY, "pretrained=nowhere")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(pretrained, unfinished)
    (unfinished / "done.json").unlink()
    with pytest.raises(ConfigError, match=r"unfinished is not finished"):
        run("finetune", *TINY, f"pretrained={unfinished}")
    (unfinished / "done.json").write_text("{}")
    shutil.rmtree(unfinished / "checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        run("finetune", *TINY, f"pretrained={unfinished}")


def test_the_decay_of_pretraining_ends_with_it() -> None:
    """A decayed actor's rate must not be carried over to fine-tuning."""
    pretrained = run("pretrain", *TINY, "algorithm.actor_decay_steps=20")
    folder = run("finetune", *TINY, f"pretrained={pretrained}")
    decayed, renewed = (part(each, "learner")["optimisers"]["rest"] for each in (pretrained, folder))
    assert decayed["param_groups"][0]["lr"] < 3e-4 * 0.01
    assert renewed["param_groups"][0]["lr"] == 3e-4
    with pytest.raises(ConfigError, match="no learning rate after the 20 updates"):
        run("finetune", *TINY, f"pretrained={pretrained}", "algorithm.actor_decay_steps=20", "name=without")


def test_a_schedule_of_the_run_before_does_not_go_on(place: Path) -> None:
    """What holds are the coefficients of the configuration, not where another run's schedule had moved them."""
    moved = run("finetune", *TINY, "schedule=abrupt", "+schedule.to.algorithm.expectile=0.9", "name=moved")
    after = run("finetune", *TINY, f"pretrained={moved}", "name=after")
    found = [float(part(folder, "learner")["loss"]["expectile"]) for folder in (moved, after)]
    assert found == pytest.approx([0.9, 0.7])


def test_how_an_agent_was_watched_makes_it_no_other_agent() -> None:
    run("finetune", *TINY)
    run("finetune", *TINY, "exploration=noise", "evaluation.episodes=2", "offline.log_every=7")
    assert len(list(Path("runs").glob("pretrained-*"))) == 1


def test_statistics_come_from_the_dataset_before_the_first_update() -> None:
    """Offline, and where a run from scratch has a dataset; fine-tuning goes on with those of the pre-training."""
    with h5py.File(next(Path(os.environ["MINARI_DATASETS_PATH"]).rglob("main_data.hdf5"))) as file:
        seen = np.concatenate([file[name]["observations"][:-1] for name in file]).mean(0)
    scratch = run("finetune", *TINY, "algorithm=lapo", "pretrained=none", "name=scratch")
    tuned = run("finetune", *TINY, "algorithm=lapo")
    for folder in (scratch, tuned):
        found = part(folder, "learner")["loss"]["actor_network_params.module.normaliser.loc"]
        np.testing.assert_allclose(found, seen, rtol=1e-4, atol=1e-5)
