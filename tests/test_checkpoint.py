"""A checkpoint comes back exactly, or not at all."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from o3f import files
from o3f.checkpoint import checkpoints, load_component, load_latest, save
from o3f.errors import CheckpointError
from o3f.stateful import StateOf


class Box:
    """A component with one tensor, whose methods can be made to fail or to draw random numbers."""

    def __init__(self, value: float, on_load=lambda: None):
        self.tensor = torch.full((3, 2), float(value))
        self.on_load = on_load

    def state_dict(self):
        return {"tensor": self.tensor.clone()}

    def load_state_dict(self, state):
        self.tensor = state["tensor"]
        self.on_load()

    @property
    def value(self) -> float:
        assert (self.tensor == self.tensor[0, 0]).all()
        return self.tensor[0, 0].item()


def steps_in(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step_")) for path in checkpoints(folder)]


def in_child(work) -> int:
    """Run ``work`` in a forked process; its exit code, or minus the signal that ended it."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode


def test_everything_comes_back_exactly(tmp_path):
    rows = TensorDict({"action": torch.rand(5, 2), "next": {"reward": torch.rand(5, 1)}}, [5])
    state = {
        "float32": torch.tensor([0.1, float("nan"), -0.0]),
        "scalar": torch.tensor(1 / 3, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "numpy": np.array([1.5, 2.5], dtype=np.float32),
        "exact": 0.1 + 0.2,
        "large": 2**70,
        3: (None, "text", [1, 2]),
        "rows": rows,
    }
    received = {}
    save(
        tmp_path,
        7,
        {"state": StateOf(lambda: state, received.update), "counters": {"episode": 4}},
        {"env": "a"},
    )
    counters = {"episode": 0, "stale": 1}
    metadata = load_latest(tmp_path, {"state": StateOf(dict, received.update), "counters": counters})
    assert metadata == {"env": "a", "step": 7}
    assert counters == {"episode": 4}
    assert list(received) == list(state)
    for key in ("float32", "scalar", "empty", "flags"):
        assert received[key].dtype == state[key].dtype
        torch.testing.assert_close(received[key], state[key], rtol=0, atol=0, equal_nan=True)
    np.testing.assert_array_equal(received["numpy"], state["numpy"], strict=True)
    assert (received["exact"], received["large"], received[3]) == (state["exact"], state["large"], state[3])
    assert torch.equal(received["rows"]["next"]["reward"], rows["next", "reward"])


def train(net, optimiser, counters, steps):
    while counters["step"] < steps:
        optimiser.zero_grad()
        net(torch.randn(8, 4) * np.random.rand() + random.random()).square().mean().backward()  # noqa: NPY002
        optimiser.step()
        counters["step"] += 1


def agent():
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    return net, torch.optim.Adam(net.parameters(), lr=1e-2), {"step": 0}


def test_a_resumed_run_ends_bit_equal(tmp_path):
    net, optimiser, counters = agent()
    train(net, optimiser, counters, 20)
    save(tmp_path, 20, {"net": net, "optimiser": optimiser, "counters": counters})
    train(net, optimiser, counters, 40)

    other, other_optimiser, other_counters = agent()  # draws initial weights: the streams are elsewhere now
    load_latest(tmp_path, {"net": other, "optimiser": other_optimiser, "counters": other_counters})
    assert other_counters == {"step": 20}
    train(other, other_optimiser, other_counters, 40)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.rand()), random.random()  # noqa: NPY002


def test_random_streams_are_restored_last_and_saving_leaves_them_alone(tmp_path):
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(1)
    expected = draws()
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(1)
    save(tmp_path, 0, {"z": Box(1)})
    assert draws() == expected
    # "z" comes after "rng" in the alphabet and draws while it is restored.
    load_latest(tmp_path, {"z": Box(0, on_load=draws)})
    assert draws() == expected


def test_the_newest_are_kept_and_a_later_step_is_forgotten(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, {"box": Box(step)})
    assert steps_in(tmp_path) == [20, 30]
    checkpoints(tmp_path)[-1].write_bytes(b"")
    box = Box(0)
    with pytest.warns(UserWarning, match="step_000000000030"):
        assert load_latest(tmp_path, {"box": box}) == {"step": 20}
    save(tmp_path, 25, {"box": Box(25)})
    assert steps_in(tmp_path) == [20, 25]
    files_of_each = [f"step_0000000000{step}.ckpt{end}" for step in (20, 25) for end in ("", ".sha256")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest", *files_of_each]
    save(tmp_path, 26, {"box": Box(26)}, keep=1)
    assert steps_in(tmp_path) == [26]


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def flip_tensor(file: Path) -> None:
    """Flip a bit of the stored number itself."""
    data = file.read_bytes()
    number = torch.full((6,), 2.0).numpy().tobytes()
    assert data.count(number) == 1
    file.write_bytes(data.replace(number, torch.full((6,), 3.0).numpy().tobytes()))


DAMAGE = {
    "flip": flip,
    "flip_tensor": flip_tensor,
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-100]),
    "grown": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "empty": lambda file: file.write_bytes(b""),
    "digest_missing": lambda file: Path(f"{file}.sha256").unlink(),
    "digest_cut": lambda file: Path(f"{file}.sha256").write_text("abc"),
    "digest_binary": lambda file: Path(f"{file}.sha256").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_newest_falls_back_and_none_good_stops(tmp_path, damage):
    for step in (1, 2):
        save(tmp_path, step, {"box": Box(step)})
    damage(checkpoints(tmp_path)[1])
    box = Box(0)
    with pytest.warns(UserWarning, match=r"step_000000000002\.ckpt is damaged"):
        assert load_latest(tmp_path, {"box": box}) == {"step": 1}
    assert box.value == 1
    checkpoints(tmp_path)[0].write_bytes(b"damaged too")
    box, before = Box(0), torch.get_rng_state()
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(CheckpointError, match=r"none of the 2 checkpoints .* delete the run folder") as caught,
    ):
        load_latest(tmp_path, {"box": box})
    assert caught.value.exit_code == 3
    assert box.value == 0
    assert torch.equal(before, torch.get_rng_state())


def test_a_matching_digest_over_an_unreadable_archive_falls_back(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, {"box": Box(step)})
    newest = checkpoints(tmp_path)[1]
    flip_tensor(newest)
    Path(f"{newest}.sha256").write_text(files.sha256(newest))
    box = Box(0)
    with pytest.warns(UserWarning, match="damaged"):
        load_latest(tmp_path, {"box": box})
    assert box.value == 1


def test_a_restore_that_fails_half_way_changes_nothing(tmp_path):
    def refuse():
        raise ValueError("wrong shape")

    save(tmp_path, 5, {"first": Box(5), "second": Box(5), "third": Box(5)})
    boxes = {"first": Box(1), "second": Box(2), "third": Box(3)}
    attempts = []
    boxes["second"].on_load = lambda: attempts or (attempts.append(1), refuse())
    before = torch.get_rng_state()
    with pytest.raises(CheckpointError, match=r"component 'second' refuses .*step 5.*: wrong shape"):
        load_latest(tmp_path, boxes)
    assert [box.value for box in boxes.values()] == [1, 2, 3]
    assert torch.equal(before, torch.get_rng_state())


def test_a_network_of_another_size_is_left_as_it_was(tmp_path):
    save(tmp_path, 5, {"net": torch.nn.Linear(3, 4), "box": Box(5)})
    net, box = torch.nn.Linear(3, 5), Box(0)
    weight = net.weight.detach().clone()
    with pytest.raises(CheckpointError, match="size mismatch"):
        load_latest(tmp_path, {"box": box, "net": net})
    assert torch.equal(net.weight, weight)
    assert box.value == 0


def test_missing_components_and_folders_are_named(tmp_path):
    assert load_latest(tmp_path / "nothing", {"box": Box(0)}) is None
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_component(tmp_path, "box")
    save(tmp_path, 5, {"box": Box(5)})
    with pytest.raises(CheckpointError, match=r"no component \['learner'\]; it has \['box', 'rng'\]"):
        load_latest(tmp_path, {"learner": Box(0)})
    with pytest.raises(ValueError, match="'rng' is the name"):
        save(tmp_path, 5, {"rng": Box(0)})


def test_one_component_can_be_read_alone(tmp_path):
    source = torch.nn.Linear(3, 2)
    save(tmp_path, 5, {"learner": source, "box": Box(5)})
    before = torch.get_rng_state()
    state = load_component(tmp_path, "learner")
    assert torch.equal(before, torch.get_rng_state())
    target = torch.nn.Linear(3, 2)
    target.load_state_dict(state)
    assert torch.equal(target.weight, source.weight)
    assert torch.equal(target.bias, source.bias)


def test_a_kill_at_any_moment_of_a_save_leaves_a_good_checkpoint(tmp_path, monkeypatch):
    """Kill at each rename and each fsync: of a new step, and of a step saved again."""
    seen = set()
    for step in (2, 1):
        for kill_at in range(100):
            folder = tmp_path / f"{step}-{kill_at}"
            save(folder, 1, {"box": Box(1)})

            def work(folder=folder, step=step, kill_at=kill_at):
                calls = iter(range(1000))

                def deadly(call):
                    def wrapped(*args, **kwargs):
                        if next(calls) == kill_at:
                            os.kill(os.getpid(), signal.SIGKILL)
                        return call(*args, **kwargs)

                    return wrapped

                for name in ("replace", "fsync"):
                    monkeypatch.setattr(os, name, deadly(getattr(os, name)))
                save(folder, step, {"box": Box(9)})

            exit_code = in_child(work)
            box = Box(0)
            load_latest(folder, {"box": box})
            seen.add((step, exit_code, box.value))
            if exit_code == 0:
                assert box.value == 9
                break
            assert exit_code == -signal.SIGKILL
            save(folder, step, {"box": Box(9)})
            assert {path.suffix for path in folder.iterdir()} == {".ckpt", ".sha256", ""}
            assert len(list(folder.iterdir())) == 2 * len(checkpoints(folder)) + 1
    # Each was killed both before and after the new one took over, and ended by itself.
    assert seen == {(step, *end) for step in (1, 2) for end in ((-9, 1.0), (-9, 9.0), (0, 9.0))}


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path, monkeypatch):
    save(tmp_path, 1, {"box": Box(1)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "fsync", fill)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2, {"box": Box(2)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_cut_short_raises_instead_of_killing_the_process(tmp_path):
    """A file-size limit stands for the full disk: memory-mapped payloads would die of a signal here."""
    save(tmp_path, 1, {"box": Box(1)})

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save(tmp_path, 2, {"net": torch.nn.ParameterList(torch.zeros(20_000) for _ in range(5))})
        except OSError as error:
            os._exit(10 if error.errno == errno.EFBIG else 11)

    assert in_child(work) == 10
    assert steps_in(tmp_path) == [1]
    assert len(list(tmp_path.iterdir())) == 3


def test_files_are_on_the_disk_before_they_are_published(tmp_path, monkeypatch):
    calls = []
    fsync, replace = files.fsync, os.replace
    monkeypatch.setattr(files, "fsync", lambda path: (calls.append(("fsync", path.name)), fsync(path)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (calls.append(("replace", Path(b).name)), replace(a, b)))
    save(tmp_path / "c", 3, {"box": Box(3)})
    published = calls[calls.index(("replace", "step_000000000003.ckpt.sha256")) - 1 :]
    assert published == [
        ("fsync", ".step_000000000003.ckpt.sha256.stage"),
        ("replace", "step_000000000003.ckpt.sha256"),
        ("fsync", "c"),
        ("fsync", "step_000000000003.ckpt"),
        ("replace", "step_000000000003.ckpt"),
        ("fsync", "c"),
        ("fsync", ".newest.stage"),
        ("replace", "newest"),
        ("fsync", "c"),
    ]


def test_archives_hold_no_pickle(tmp_path):
    file = save(tmp_path, 3, {"net": torch.nn.Linear(2, 2), "counters": {"a": 1}})
    with zipfile.ZipFile(file) as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".json", ".tdz"}
