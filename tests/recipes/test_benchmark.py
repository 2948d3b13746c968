"""The benchmark: its plain learners are ours, its workers answer or fail visibly, its figures fit together."""

from __future__ import annotations

import json
import os
import runpy
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import check, online_loop, ours, products, report
from benchmarks.data import DISCOUNT, transitions
from benchmarks.plain_cql import PlainCQL
from benchmarks.plain_iql import PlainIQL
from benchmarks.plain_networks import Arrays, bootstrap, follow, mlp
from benchmarks.process import Worker
from tests.support.recipe_runs import ROOT

#: The benchmark is no part of the wheel: it is found from the root of a clone.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}

# ------------------------------------------------------------------------------------------ the same work


@pytest.mark.parametrize("workload", check.CHECKED)
def test_plain_learners_give_our_parameters(workload: str) -> None:
    assert check.difference(workload, 5) < check.TOLERANCE


def test_the_check_sees_a_learner_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.plain_iql.EXPECTILE", 0.8)
    assert check.difference("iql2", 5) > 10 * check.TOLERANCE


def test_the_check_sees_targets_that_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.plain_awac.follow", lambda *_: None)
    before = check.difference("awac", 0)
    assert before == 0
    assert 1e-7 < check.difference("awac", 5) < 1e-3  # a Polyak step is small


@pytest.mark.parametrize("workload", check.CHECKED)
def test_every_parameter_and_target_is_compared(workload: str) -> None:
    learner = check.learner_for(workload)
    trained = sum(
        p.numel() for adam in learner.optimisers.values() for group in adam.param_groups for p in group["params"]
    )
    with_targets: list[Any] = [learner.critic]
    if workload == "lapo_full":
        with_targets += [learner.loss.actor_network, learner.loss.decoder_network]
    targets = sum(p.numel() for network in with_targets for p in network.parameters())
    assert sum(p.numel() for p in check.parameters_of(learner)) == trained + targets


def test_data_ends_and_terminates() -> None:
    columns = transitions(3_000)
    assert columns["observation"].shape == (3_000, 17)
    assert columns["action"].shape == (3_000, 6)
    assert all(columns[name].dtype == np.float32 for name in ("observation", "action", "reward", "next_observation"))
    np.testing.assert_array_equal(columns["next_observation"][:-1], columns["observation"][1:])
    assert np.abs(columns["action"]).max() < 1
    assert not (columns["terminated"] & columns["truncated"]).any()
    ends = columns["terminated"] | columns["truncated"]
    assert ends[999::1000].all()
    assert 10 < columns["terminated"].sum() < 60


def test_parts_of_the_plain_learners() -> None:
    columns = transitions(100)
    state, action, reward, following, alive = Arrays(columns).sample(1_000)
    rows = [int((torch.as_tensor(columns["observation"]) == s).all(1).nonzero()) for s in state]
    assert len(set(rows)) > 90
    torch.testing.assert_close(action, torch.as_tensor(columns["action"])[rows])
    torch.testing.assert_close(reward, torch.as_tensor(columns["reward"])[rows, 0])
    torch.testing.assert_close(following, torch.as_tensor(columns["next_observation"])[rows])
    assert alive.tolist() == [0.0 if columns["terminated"][row, 0] else 1.0 for row in rows]
    assert bootstrap(torch.tensor(1.0), torch.tensor([1.0, 0.0]), torch.tensor(2.0)).tolist() == pytest.approx(
        [1 + 2 * DISCOUNT, 1.0]
    )
    target, network = mlp(1, 1), mlp(1, 1)
    torch.nn.init.constant_(next(target.parameters()), 0.0)
    torch.nn.init.constant_(next(network.parameters()), 4.0)
    follow([target], [network], 0.25)
    assert next(target.parameters()).item() == 1.0


# ------------------------------------------------------------------------------------------- the workers


def settings(**changes: Any) -> dict[str, Any]:
    return {"file": "plain", "package": "torch", "python": None, "options": {}, **changes}


def test_a_worker_measures_what_it_is_asked() -> None:
    worker = Worker(settings(), "iql2")
    worker.wait_until_warm()
    assert (worker.state, worker.cases) == ("measured", ["update"])
    worker.ask("update", 0.1)
    worker.ask("update", 0.1)
    worker.close()
    assert len(worker.answers["update"]) == 2
    for answer in worker.answers["update"]:
        assert 0.5 < answer["cpu_ms"] < 1_000
        assert answer["wall_ms"] > 0.5 * answer["cpu_ms"]  # one thread; both clocks are coarse
        assert 100 < answer["peak_mb"] < 2_000


def test_the_loop_steps_an_environment_and_updates() -> None:
    step, update = online_loop.stepper("optimistic", updates=2)
    assert [step(), step(), update()] == [2, 2, 2]  # updates
    assert online_loop.stepper("policy", updates=0)[0]() == 1  # a step without any


def test_a_missing_package_is_not_installed() -> None:
    worker = Worker(settings(file="nothing", package="no_such_package"), "iql2")
    worker.wait_until_warm()
    worker.close()
    assert (worker.state, worker.reason, worker.cases) == ("not installed", "no_such_package", [])


@pytest.mark.parametrize(
    ("changes", "workload", "reason"),
    [
        ({"file": "no_such_file"}, "iql2", "ModuleNotFoundError: No module named 'benchmarks.no_such_file'"),
        ({}, "no_such_work", "KeyError: 'no_such_work'"),
        ({"python": "/no/such/python"}, "iql2", "No such file or directory"),
        ({"options": {"speed": 9}}, "iql2", "TypeError"),
    ],
)
def test_a_worker_that_cannot_start_fails_with_its_last_line(
    changes: dict[str, Any], workload: str, reason: str
) -> None:
    worker = Worker(settings(**changes), workload)
    worker.wait_until_warm()
    worker.ask("update", 0.1)
    worker.close()
    assert worker.state == "failed"
    assert reason in worker.reason
    assert worker.cases == []


def test_a_worker_that_dies_between_questions_fails() -> None:
    worker = Worker(settings(), "iql2")
    worker.wait_until_warm()
    worker.ask("update", 0.01)
    worker.kill()
    worker.ask("update", 0.01)
    worker.close()
    assert (worker.state, worker.reason) == ("failed", "exit code -9")
    assert report.results_of("iql2", {"plain": worker}, "plain") == [
        {"workload": "iql2", "case": "", "contender": "plain", "state": "failed", "reason": "exit code -9"}
    ]


# --------------------------------------------------------------------------------------------- the figures


class Answered:
    """A worker whose answers are given."""

    def __init__(self, **cpu: list[float]) -> None:
        self.state, self.reason, self.cases = "measured", "", list(cpu)
        self.answers = {
            case: [{"cpu_ms": ms, "wall_ms": 2 * ms, "peak_mb": 100 + ms} for ms in rounds]
            for case, rounds in cpu.items()
        }


def test_ratios_are_paired_by_round() -> None:
    workers = {"ours": Answered(update=[1.0, 2.0, 10.0]), "other": Answered(update=[3.0, 4.0, 15.0])}
    ours, other = report.results_of("iql2", workers, "ours")
    assert ours["ratio"]["rounds"] == [1.0, 1.0, 1.0]
    assert other["ratio"]["rounds"] == [3.0, 2.0, 1.5]
    assert other["ratio"]["median"] == 2.0  # the ratio of the medians, too; the mean ratio is 2.17
    assert other["ratio"]["low"] == pytest.approx(1.6)
    assert other["ratio"]["high"] == pytest.approx(2.8)
    assert (other["cpu_ms"]["median"], other["wall_ms"]["median"], other["peak_mb"]) == (4.0, 8.0, 115.0)
    assert report.rows([other]) == [["iql2", "other", "4", "250", "2.00", "1.60-2.80", "8", "115"]]


def test_without_the_reference_there_are_figures_but_no_ratios() -> None:
    (entry,) = report.results_of("iql2", {"other": Answered(update=[3.0])}, "ours")
    assert "ratio" not in entry
    assert report.rows([entry])[0][3:6] == ["333", "", ""]


def test_comparisons_within_a_contender() -> None:
    actor = Answered(**{"actor call": [3.0, 9.0, 5.0], "scoring": [1.0, 2.0, 4.0]})
    (entry,) = report.comparisons_of("actor", {"ours": actor})
    assert entry["rounds"] == [2.0, 7.0, 1.0]
    assert report.comparison_rows([entry])[0][2] == "2.00 ms"
    names = [f"{part}, {n} a step" for n in (1, 20) for part in ("loop", "learner")]
    loop = Answered(**dict(zip(names, ([10.0], [8.0], [5.0], [4.9]), strict=True)))
    shares = report.comparisons_of("loop", {"ours": loop})
    assert [entry["median"] for entry in shares] == pytest.approx([0.8, 0.98])
    assert report.comparison_rows(shares)[1][2] == "98.0 %"


def test_markdown() -> None:
    assert report.markdown(["a", "b", "c"], [["x|y", "1", "2"]]) == (
        "| a | b | c |\n| --- | --- | --: |\n| x\\|y | 1 | 2 |\n"
    )


@pytest.mark.parametrize("workload", ["iql2", "cql"])
def test_products_are_those_of_the_plain_version(workload: str) -> None:
    """In multiplications and additions, counted by torch in one and by the factors' shapes in the other.

    Our CQL evaluates its policy once less.
    """
    plain_learner = {"iql2": lambda: PlainIQL(2), "cql": PlainCQL}[workload]()
    batch = Arrays(transitions()).sample(256)
    plain_learner.update(batch)
    with FlopCounterMode(display=False) as counter:
        plain_learner.update(batch)
    update = ours.learning(workload)["update"]
    update()
    with products.Recorder() as recorder:
        update()
    count = sum(
        2 * first.shape[:-1].numel() * second.shape[-2] * second.shape[-1] for first, second, _ in recorder.products
    )
    assert count == pytest.approx(counter.get_total_flops(), rel={"iql2": 1e-6, "cql": 0.02}[workload])
    for first, second, out in recorder.products:
        assert out.shape == (first @ second).shape


# ----------------------------------------------------------------------------------------------- the recipe


@pytest.mark.slow
def test_the_recipe(tmp_path: Path) -> None:
    less = [
        "rounds=1",
        "seconds=0.05",
        "only=[iql2,scoring]",
        "~contenders.ours_compiled",
        "~contenders.ours_medium",
        "~contenders.jax",
    ]
    overrides = [*less, "contenders.d3rlpy.package=no_such_package"]
    command = [sys.executable, "-m", "benchmarks", *overrides]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "runs/benchmark/benchmark.json").read_text())
    assert 0 <= content["largest_difference_of_plain"]["iql2"] < check.TOLERANCE
    results = {(e["workload"], e["case"], e["contender"]): e for e in content["results"]}
    assert [name for work, case, name in results if (work, case) == ("iql2", "update")] == [
        "ours",
        "torchrl",
        "plain",
        "products",
    ]
    assert results["iql2", "", "d3rlpy"] == {
        "workload": "iql2",
        "case": "",
        "contender": "d3rlpy",
        "state": "not installed",
        "reason": "no_such_package",
    }
    assert results["iql2", "update", "products"]["ratio"]["median"] < 1
    assert len(results) == 5 + 2 * 16
    for entry in content["results"]:
        if entry["state"] == "measured":
            assert_consistent(entry, results[entry["workload"], entry["case"], "ours"])
    assert cells_of(done.stdout, "d3rlpy")[2:] == ["not installed", "", "", "", "", ""]
    assert "| iql2 | d3rlpy | not installed |" in (tmp_path / "runs/benchmark/benchmark.md").read_text()


def assert_consistent(entry: dict[str, Any], ours: dict[str, Any]) -> None:
    for key in ("cpu_ms", "wall_ms", "ratio"):
        assert len(entry[key]["rounds"]) == 1
        assert min(entry[key]["rounds"]) > 0
        assert entry[key]["median"] == pytest.approx(statistics.median(entry[key]["rounds"]))
        assert entry[key]["low"] <= entry[key]["median"] <= entry[key]["high"]
    pairs = zip(entry["cpu_ms"]["rounds"], ours["cpu_ms"]["rounds"], strict=True)
    assert entry["ratio"]["rounds"] == pytest.approx([one / other for one, other in pairs])
    assert entry["peak_mb"] > 100


def cells_of(text: str, contender: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith("│") and contender in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_unknown_names_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "only=[iql3]"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # which the command sets: restored after the test
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("benchmarks", run_name="__main__")
    assert stop.value.code == 2
    assert "iql2" in capsys.readouterr().err


@pytest.mark.parametrize("num_critics", [2, 5])
def test_the_jitted_version_gives_the_plain_parameters(num_critics: int) -> None:
    """In float64, where JAX is installed, which it need not be; the plain version is compared with ours above."""
    pytest.importorskip("jax").config.update("jax_enable_x64", True)
    from benchmarks import with_jax

    torch.manual_seed(0)
    plain = PlainIQL(num_critics)
    with torch.no_grad():
        for tensor in check.parameters_of_plain(plain):
            tensor.data = tensor.data.double()

    def layers(network: Any) -> Any:
        linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
        return [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in linear]

    def stacked(networks: Any) -> Any:
        return [tuple(map(np.stack, zip(*same, strict=True))) for same in zip(*map(layers, networks), strict=True)]

    params = {
        "policy": {"layers": layers(plain.policy), "log_std": plain.log_std.detach().numpy().copy()},
        "value": layers(plain.value),
        "critics": stacked(plain.critics),
    }
    state = with_jax.begin(with_jax.jax.tree.map(with_jax.jnp.asarray, params))
    arrays = Arrays(transitions(2_000))
    for _ in range(20):
        batch = [part.double() for part in arrays.sample(256)]
        plain.update(batch)
        state = with_jax.update(state, tuple(part.numpy() for part in batch))
    pairs = [
        (state["params"]["policy"]["layers"], layers(plain.policy)),
        (state["params"]["policy"]["log_std"], plain.log_std.detach().numpy()),
        (state["params"]["value"], layers(plain.value)),
        (state["params"]["critics"], stacked(plain.critics)),
        (state["targets"], stacked(plain.targets)),
    ]
    for jitted, wanted in pairs:
        compared = with_jax.jax.tree.map(lambda one, other: float(np.abs(one - other).max()), jitted, wanted)
        assert max(with_jax.jax.tree.leaves(compared)) < 1e-7  # Adam divides by gradients that are almost 0
