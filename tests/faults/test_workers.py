"""Environments in processes of their own that die, hang or fail, and the end of the command that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from o3f.collection import Step
from o3f.collection.noting import raise_noted
from o3f.errors import EnvironmentFailure
from o3f.training import build
from tests.support import recipe_runs as runs
from tests.support.faulty_envs import Faulty
from tests.support.recipe_runs import part, run
from tests.support.workers import TWO, at_step, forked, seen

__all__ = ["Faulty", "forked", "seen"]  # the environment is registered where it is imported

FAULTY = [
    *("task=custom", "task.env.id=faulty/Env-v0", "task.name=faulty", "task.dataset.id=none", "dataset=none"),
    *("debug=toy", "algorithm=sac", "exploration=policy", "collector=multi_sync", "online.steps=60"),
    *("online.max_env_failures=2", "evaluation.seed=3"),
]


def kill_one(workers: Any) -> None:
    os.kill(workers._collector.procs[1].pid, signal.SIGKILL)


@pytest.mark.usefixtures("forked")
def test_f30_a_killed_worker_costs_its_episode_and_the_newest_weights_act_in_the_new_ones(
    place: Path, seen: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the tenth pair of steps one is killed; after 19 of the new ones, the policy is set to 0.

    Sigma, 0 after 50 steps, is a buffer that the schedule changes in place.
    """
    policies: list[Any] = []
    make_actor = build.make_actor

    def noted(policy: Any, *rest: Any) -> Any:
        policies.append(policy)
        return make_actor(policy, *rest)

    def set_to_zero(_: Any) -> None:
        for parameter in policies[0].parameters():
            parameter.data.zero_()

    monkeypatch.setattr(build, "make_actor", noted)
    at_step(monkeypatch, {10: kill_one, 30: set_to_zero})
    sigma = ["schedule=linear", "schedule.steps=50", "+schedule.to.exploration.sigma=0.0", "exploration.centre=mean"]
    with pytest.warns(
        RuntimeWarning, match="lost after step 18: .*worker 1 .*exit code -9.*\n.*anew.*1 in a row; 3 end"
    ):
        folder = run("finetune", *TWO, "exploration=optimistic", *sigma, "online.warmup_steps=115")
    state, stored = part(folder, "state"), part(folder, "buffer")["rows"]
    assert (state["step"], state["starts"], len(stored["action"])) == (120, 2, 120)
    truncated = stored["next"]["truncated"].flatten().nonzero().flatten().tolist()
    assert truncated == [16, 17, 116, 117]  # the episodes that were cut, and two that ended by themselves
    assert not torch.equal(seen[0].transition["observation"], seen[18].transition["observation"])
    actions = torch.cat([step.transition["action"] for step in seen])
    assert (actions[:56] != 0).all()
    assert torch.equal(actions[56:114], torch.zeros(58, 2))  # 19 pairs after the nine of the first start


@pytest.mark.usefixtures("forked")
def test_f30_workers_that_die_again_and_again_end_the_run_and_it_can_go_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*TWO, "online.steps=60", "online.checkpoint_every=10", "online.max_env_failures=2"]
    with monkeypatch.context() as patch:
        at_step(patch, {9: kill_one, 12: kill_one})
        with (
            pytest.warns(RuntimeWarning, match="lost after step 16"),
            pytest.raises(EnvironmentFailure, match=r"lost after step 20: .*exit code -9[^$]*That was time 2 in a row"),
        ):
            run("finetune", *settings)
    state = part(run("finetune", *settings), "state")
    assert (state["step"], state["starts"]) == (60, 3)  # two before the checkpoint of step 20, and this one


@pytest.mark.usefixtures("forked")
def test_f31_hung_workers_are_killed_and_started_anew(place: Path) -> None:
    """One episode hangs; where all do, two times in a row end the run."""
    hanging = [*FAULTY, "+task.env.kwargs.how=hang", "collector.timeout=2"]
    with pytest.warns(RuntimeWarning, match=r"lost after step 28: no answer within 2 seconds \(collector.timeout\)"):
        folder = run("finetune", *hanging, "+task.env.kwargs.share=0.1", "seed=19")
    assert (part(folder, "state")["step"], len(part(folder, "buffer")["rows"]["action"])) == (60, 60)
    began = time.monotonic()
    with (
        pytest.warns(RuntimeWarning, match="Time 1 in a row; 2 end the run"),
        pytest.raises(EnvironmentFailure, match="lost after step 8: no answer within 2 seconds"),
    ):
        run("finetune", *hanging, "name=all")
    assert time.monotonic() - began < 60


@pytest.mark.usefixtures("forked")
@pytest.mark.filterwarnings("ignore:Step 0 has no score")
def test_f89_a_failing_environment_of_a_worker_is_told_and_not_taken_for_a_dead_one(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """TorchRL turns warnings off in its processes, and the process prints a trace of what ends it."""
    with (
        pytest.warns(RuntimeWarning, match=r"^Worker [01]: The environment failed in step 3 .*\n.*Failure 1 in a row"),
        pytest.raises(
            EnvironmentFailure, match=r"^The environment failed in step 3 .*: motor 3 does not answer\n.*2 in"
        ),
    ):
        run("finetune", *FAULTY, "+task.env.kwargs.how=raise")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("forked")
def test_f89_an_environment_that_cannot_be_made_in_a_worker_is_told_with_its_place(place: Path) -> None:
    with pytest.raises(
        EnvironmentFailure,
        match=r"^The environment of worker 0: faulty/Env-v0 could not be made with .*OSError in .*faulty_envs",
    ):
        run("finetune", *FAULTY, "+task.env.kwargs.how=second")


def test_an_error_of_another_kind_keeps_its_name(tmp_path: Path) -> None:
    raise_noted(tmp_path)
    (tmp_path / "1").write_text("KeyError\n'joint'\n")
    with pytest.raises(RuntimeError, match="worker 1: KeyError: 'joint'"):
        raise_noted(tmp_path)


@pytest.mark.usefixtures("forked")
def test_f30_a_signal_ends_run_and_workers(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(monkeypatch, {8: lambda _: os.kill(os.getpid(), signal.SIGTERM)})
    assert runs.command("finetune", *TWO) == 143
    assert "stopped by SIGTERM after step 15" in capsys.readouterr().err
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("forked")
def test_f31_hung_workers_end_with_a_run_that_is_killed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(monkeypatch, {3: lambda _: Path("third step").touch()})
    arguments = (*FAULTY, "+task.env.kwargs.how=hang", "collector.timeout=1000")
    process = multiprocessing.get_context("fork").Process(target=run, args=("finetune", *arguments))
    process.start()
    while not Path("third step").exists():
        assert process.is_alive()
        time.sleep(0.05)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) == 2
    time.sleep(1.0)
    process.kill()
    process.join()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "orphans"
        time.sleep(0.05)
