"""Faults of the environment and of the policy that acts in it, numbered as in docs/reliability.md."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict.nn import TensorDictModule
from torchrl.envs.utils import check_env_specs

from o3f.cli.signals import StopSignals
from o3f.data import end_episode, make_buffer
from o3f.envs import EnvConfig, episode_seed, flat_observation, make_env, make_gym_env
from o3f.errors import ActionError, EnvironmentFailure, EvaluationError
from o3f.evaluation import video
from o3f.evaluation.episodes import evaluate
from o3f.evaluation.video import record_video
from o3f.runs.counters import Counters
from o3f.training import reporting
from recipes import evaluate as evaluate_recipe
from recipes import finetune
from tests.support import recipe_runs as runs
from tests.support.faulty_envs import Faulty
from tests.support.recipe_runs import TINY, assert_same_run, part, rows, run, run_stopped, same
from tests.support.rows import make_rows

FAULTY = "faulty/Env-v0"
ACTION = np.array([0.25], dtype=np.float32)
#: Fine-tuning from scratch in an environment of which two fifths of the episodes fail at the third of six steps.
ONLINE = [
    *(
        "task=custom",
        f"task.env.id={FAULTY}",
        "task.name=faulty",
        "task.dataset.id=none",
        "dataset=none",
        "debug=toy",
        "algorithm=sac",
    ),
    *(
        "exploration=policy",
        "online.random_steps=5",
        "online.steps=60",
        "evaluation.seed=3",
        "+task.env.kwargs.share=0.4",
    ),
]


@pytest.fixture(autouse=True)
def _fresh_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(flat_observation, "_TOLD", set())
    Faulty.made = 0
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def faulty(max_failures: int | None = 3, counters: Counters | None = None, **kwargs: Any) -> Any:
    return make_gym_env(EnvConfig(FAULTY, kwargs=kwargs), seed=0, max_failures=max_failures, counters=counters)


FAILURES = {
    "raise": r"ConnectionError in step, .*faulty_envs.py:\d+\): motor 3 does not answer",
    "nonfinite": r"not finite after action \[0.25\]: observation \[1\] .flat indices., reward 3.0",
    "reward": r"not finite after action \[0.25\]: observation \[\] .flat indices., reward inf",
    "outside": r"outside its space after action \[0.25\]: \[1000000.0\] at \[0\].*stated are .* to \[50.0",
    "shape": r"has shape \(1,\), expected",
    "old": "not enough values to unpack",
}


def assert_cut(how: str) -> None:
    """The third step is no transition: NaN, truncated, at the last observation; then a new environment."""
    counters = Counters()
    env = faulty(how=how, counters=counters)
    first = env.unwrapped
    env.reset()
    good = [env.step(ACTION) for _ in range(2)]
    with pytest.warns(
        RuntimeWarning, match=rf"failed in step 3 of its episode, after action \[0.25\] .*{FAILURES[how]}"
    ):
        observation, reward, terminated, truncated, _ = env.step(ACTION)
    assert [step[1] for step in good] == [1.0, 2.0]
    assert observation.tolist() == good[1][0].tolist()
    assert np.isnan(reward)
    assert (terminated, truncated) == (False, True)
    assert counters == Counters(failures=1, failures_in_a_row=1)
    observation, _ = env.reset()
    assert env.unwrapped is not first
    assert observation[0] == 0.0
    expected = np.random.default_rng(episode_seed(0, 1)).random()
    assert observation[1] == np.float32(expected)  # the next episode, not the same again


@pytest.mark.parametrize("how", ["raise", "old"])
def test_f29_an_exception_cuts_the_episode_and_makes_the_environment_anew(how: str) -> None:
    assert_cut(how)


@pytest.mark.parametrize("how", ["nonfinite", "reward", "outside", "shape"])
def test_f32_a_value_that_cannot_be_cuts_the_episode(how: str) -> None:
    assert_cut(how)


def test_f32_values_at_the_bounds_of_the_space_are_none() -> None:
    env = faulty(how="none", end=60)
    env.reset()
    assert [env.step(ACTION)[0][0] for _ in range(50)][-1] == 50.0
    with pytest.warns(RuntimeWarning, match=r"\[51.0\] at \[0\]"):
        env.step(ACTION)


@pytest.mark.filterwarnings("ignore:The environment failed")
def test_f29_failures_in_a_row_end_the_run() -> None:
    env = faulty(max_failures=3)
    for _ in range(2):
        env.reset()
        for _ in range(3):
            result = env.step(ACTION)
        assert result[3]
    env.reset()
    env.step(ACTION)
    env.step(ACTION)
    with pytest.raises(EnvironmentFailure, match=r"motor 3(?s:.*)failure 3 in a row.*online.max_env_failu"):
        env.step(ACTION)


@pytest.mark.filterwarnings("ignore:The environment failed")
def test_f29_an_episode_that_ends_by_itself_starts_the_count_anew() -> None:
    counters = Counters(failures=7, failures_in_a_row=2)
    env = faulty(share=0.5, counters=counters)
    seen = []
    for episode in range(12):
        env.reset()
        fails = np.random.default_rng(episode_seed(0, episode)).random() < 0.5
        if fails and counters.failures_in_a_row == 2:
            counters.failures_in_a_row = 0
        before = counters.failures_in_a_row
        truncated = terminated = False
        while not (truncated or terminated):
            _, _, terminated, truncated, _ = env.step(ACTION)
        seen.append(truncated)
        assert truncated == fails
        assert counters.failures_in_a_row == (before + 1 if fails else 0)
    assert counters.failures == 7 + sum(seen)
    assert 0 < sum(seen) < 12


def test_f29_a_reset_is_tried_again_with_the_same_seed() -> None:
    counters = Counters()
    env = faulty(how="reset", at=2, counters=counters)
    with pytest.warns(RuntimeWarning, match=rf"failed in reset\(seed={episode_seed(0, 2)}\).*the simulator is gone"):
        starts = [float(env.reset()[0][1]) for _ in range(4)]
    expected = [np.float32(np.random.default_rng(episode_seed(0, episode)).random()) for episode in range(4)]
    assert starts == expected
    assert (counters, Faulty.made) == (Counters(), 2)
    broken = faulty(how="reset", at=0)
    with pytest.warns(RuntimeWarning, match="in reset"), pytest.raises(EnvironmentFailure, match="3 in a row"):
        broken.reset()


@pytest.mark.parametrize("num_offline", [0, 2])
def test_f29_the_newest_row_becomes_the_end_of_its_episode(num_offline: int) -> None:
    buffer = make_buffer(make_rows(num_offline) if num_offline else None, online_capacity=3)
    end_episode(buffer)  # nothing is online: the dataset is not touched
    for written in range(1, 6):
        row = make_rows(1, first=10 * written)
        for key in ("done", "terminated", "truncated"):
            row["next", key].fill_(False)
        buffer.extend(row)
        before = buffer[:].clone()
        end_episode(buffer)
        newest = num_offline + (written - 1) % 3
        before["next", "truncated"][newest] = before["next", "done"][newest] = True
        assert same(buffer[:].to_dict(), before.to_dict())
    row = make_rows(1, first=99)
    row["next", "terminated"].fill_(True)
    row["next", "done"].fill_(True)
    buffer.extend(row)
    before = buffer[:].clone()
    end_episode(buffer)  # a terminal state stays one
    assert same(buffer[:].to_dict(), before.to_dict())


@pytest.mark.filterwarnings("ignore:The environment failed")
@pytest.mark.parametrize("how", ["raise", "nonfinite"])
def test_f29_f32_what_a_run_stores_when_the_environment_fails(how: str, place: Path) -> None:
    folder = run("finetune", *ONLINE, f"+task.env.kwargs.how={how}")
    state, stored = part(folder, "state"), part(folder, "buffer")["rows"]
    length = 0
    expected: list[tuple[float, bool, bool]] = []  # reward, terminated, truncated
    for episode in range(state["episode"] + 1):
        fails = np.random.default_rng(episode_seed(0, episode)).random() < 0.4
        last = 2 if fails else 6
        expected += [(step, step == 6, fails and step == 2) for step in range(1, last + 1)]
        length += last + fails
    expected = expected[: len(stored["action"])]
    after = stored["next"]
    found = zip(*(after[key].flatten().tolist() for key in ("reward", "terminated", "truncated")), strict=True)
    assert list(found) == expected
    failures = state["failures"]
    assert failures == len(rows(folder, "rollout/failures")) >= 3
    assert part(folder, "buffer")["written"] == len(expected) == 60 - failures
    assert part(folder, "learner")["updates"] == 60 - 5 - sum(step > 5 for step, *_ in rows(folder, "rollout/failures"))
    returns = [value for _, _, value in rows(folder, "rollout/return")]
    assert set(returns) == {21.0}  # of whole episodes, and not the 3.0 of those that a failure cut
    assert len(returns) == state["episode"] - failures


@pytest.mark.filterwarnings("ignore:The environment failed")
def test_f29_a_run_with_failures_goes_on_exactly(place: Path) -> None:
    undisturbed = run("finetune", *ONLINE, "runs=undisturbed")
    for moment in (27, 19):
        run_stopped(StopSignals, "check", moment, *ONLINE)
    folder = run("finetune", *ONLINE)
    assert_same_run(undisturbed, folder)
    runs.assert_each_step_once(folder)


@pytest.mark.filterwarnings("ignore:The environment failed")
def test_f29_a_run_ends_where_every_episode_fails(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*ONLINE, "task.env.kwargs.share=1.0", "evaluation.episodes=1", "online.max_env_failures=2"]
    with pytest.warns(RuntimeWarning, match="Step 0 has no score, and training goes on"):
        assert runs.command("finetune", *arguments) == 1
    message = capsys.readouterr().err
    assert "motor 3 does not answer" in message
    assert "failure 2 in a row" in message
    with pytest.raises(ValueError, match=r"online.max_env_failures must be a whole number in \[1, inf\), found 0"):
        run("finetune", *ONLINE, "online.max_env_failures=0")


@pytest.mark.parametrize("value", [np.nan, 1.01, -np.inf])
@pytest.mark.parametrize("max_failures", [None, 3])
def test_f33_a_bad_action_never_reaches_the_environment(value: float, max_failures: int | None) -> None:
    env = faulty(max_failures=max_failures)
    env.reset()
    with pytest.raises(ActionError, match=r"Action \[.*\] is not in \[-1, 1\]: it was not sent"):
        env.step(np.array([value]))
    assert env.unwrapped.received == []


@pytest.mark.parametrize("exploration", ["policy", "noise", "optimistic"])
def test_f33_a_run_with_poisoned_weights_stops(exploration: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights turn to NaN in the middle of training; the environment sees none of their actions."""
    received: list[Any] = []
    learners: list[Any] = []
    build, store = finetune.build.learner, finetune.with_rule
    step = Faulty.step
    monkeypatch.setattr(Faulty, "step", lambda self, action: (received.append(action), step(self, action))[1])

    def poisoned_after_20_steps(transition: Any, rule: Any, before: float) -> Any:
        if len(received) == 20:
            for parameter in learners[0].policy.parameters():
                parameter.data.fill_(torch.nan)
        return store(transition, rule, before)

    monkeypatch.setattr(finetune.build, "learner", lambda *given: learners.append(build(*given)) or learners[0])
    monkeypatch.setattr(finetune, "with_rule", poisoned_after_20_steps)
    with pytest.raises((ActionError, RuntimeError), match=r"not in \[-1, 1\]: it was not sent|score NaN"):
        run("finetune", *ONLINE, "task.env.kwargs.share=0", f"exploration={exploration}", "algorithm=iql")
    assert len(received) == 20
    assert np.isfinite(received).all()
    assert ActionError.exit_code == 5


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("old", r"- step returned 4 values, expected observation, reward, terminated, truncated and info"),
        ("flag", r"- terminated is 1.0 \(float\), expected True or False"),
        ("rewards", r"- the reward is array.*expected one number"),
        ("shape", r"- step returned an observation of shape \(1,\), its space has \(2,\)"),
    ],
)
def test_f34_what_an_environment_returns_is_looked_at_first(how: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"faulty/Env-v0 does not keep to Gymnasium's interface:\n{message}"):
        make_env(EnvConfig(FAULTY, kwargs={"how": how, "at": 1}), seed=0)


def test_f34_what_it_raises_is_left_to_the_run() -> None:
    make_env(EnvConfig(FAULTY, kwargs={"how": "raise", "at": 1}), seed=0, max_failures=3)


def test_f34_sound_environments_pass_as_they_pass_torchrls_check() -> None:
    for config in (EnvConfig("Hopper-v5", frame_skip=2), EnvConfig("Pendulum-v1", max_episode_steps=9)):
        check_env_specs(make_env(config, seed=0, max_failures=3))


STILL = TensorDictModule(lambda observation: torch.zeros_like(observation[..., :1]), ["observation"], ["action"])


def test_f35_an_environment_that_fails_in_an_evaluation_costs_a_score_only(place: Path) -> None:
    """Every third episode of training fails, none of the evaluation's until the second one."""
    for how, message in (("raise", "motor 3"), ("nonfinite", "not finite")):
        with pytest.raises(EvaluationError, match=f"Evaluation stopped in episode 0 at step 2: .*{message}"):
            evaluate(STILL, EnvConfig(FAULTY, kwargs={"how": how}), episodes=2, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        evaluated = reporting.evaluate
        calls = iter([True, False, True])

        def sometimes(*args: Any, **kwargs: Any) -> Any:
            if next(calls):
                return evaluated(*args, **kwargs)
            raise EvaluationError("Evaluation stopped in episode 1 at step 4: no display")

        patch.setattr(reporting, "evaluate", sometimes)
        quiet = ["task.env.kwargs.share=0"]
        with pytest.warns(RuntimeWarning, match="Step 30 has no score, and training goes on.*no display"):
            disturbed = run("finetune", *ONLINE, *quiet, "name=disturbed")
    undisturbed = run("finetune", *ONLINE, *quiet)
    assert [step for step, *_ in rows(undisturbed, "eval/return")] == [0, 30, 60]
    assert [step for step, *_ in rows(disturbed, "eval/return")] == [0, 60]
    for name in set(runs.PARTS) - {"best"}:
        assert same(part(disturbed, name), part(undisturbed, name)), name


def test_f35_without_ffmpeg_there_is_one_warning_and_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert record_video(STILL, EnvConfig(FAULTY), tmp_path / "counter.mp4", seed=0) is None
    assert len(caught) == 1
    assert 'pip install "o3f[video]"' in str(caught[0].message)


def test_f35_the_score_is_computed_where_the_film_cannot_be(
    pretrained: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    folder = pretrained.removeprefix("pretrained=")
    with pytest.warns(RuntimeWarning, match="No video was recorded"):
        evaluate_recipe.main(runs.settings("evaluate", f"run={folder}", "episodes=2", f"video={place}/films"))
    (score,) = json.loads(Path(folder, "evaluation.json").read_text())["acting"].values()
    assert len(score["returns"]) == 2
    assert f"{score['return']:.1f} ± {score['return_std']:.1f}" in capsys.readouterr().out


def test_f35_a_broken_renderer_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("no OpenGL context")

    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setattr(Faulty, "render", fail)
    monkeypatch.setattr(video, "_blind", [])
    before = torch.get_rng_state()
    config, film = EnvConfig(FAULTY, kwargs={"how": "none"}), tmp_path / "counter.mp4"
    with pytest.warns(RuntimeWarning, match=r"no OpenGL context.*MUJOCO_GL.*No further film is made in this process"):
        assert record_video(STILL, config, film, seed=0) is None
    assert torch.equal(before, torch.get_rng_state())
    made = Faulty.made
    assert record_video(STILL, config, film, seed=0) is None  # and no warning, which would be an error
    assert Faulty.made == made  # the second try of what draws could end the process


def test_f36_evaluation_on_or_off_changes_nothing(pretrained: str, place: Path) -> None:
    often = run("finetune", *TINY, pretrained, "online.evaluate_every=7", "evaluation.patience=100", "name=often")
    never = ["online.evaluate_every=1000", "evaluation.episodes=2", "evaluation.seed=5"]
    seldom = run("finetune", *TINY, pretrained, *never, "name=seldom")
    for name in set(runs.PARTS) - {"best"}:
        assert same(part(often, name), part(seldom, name)), name
    trained = [[row for row in rows(folder) if "eval" not in row[1]] for folder in (often, seldom)]
    assert trained[0] == trained[1]
    assert len(rows(often, "eval/return")) == 10
    assert len(rows(seldom, "eval/return")) == 2


def test_f36_an_environment_may_draw_from_the_global_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Faulty.reset

    def reset(self: Faulty, **kwargs: Any) -> Any:
        np.random.random(3)  # noqa: NPY002
        torch.randn(3)
        return original(self, **kwargs)

    monkeypatch.setattr(Faulty, "reset", reset)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    evaluate(STILL, EnvConfig(FAULTY, kwargs={"share": 0.0}), episodes=3, seed=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index, union-attr]  # noqa: NPY002
