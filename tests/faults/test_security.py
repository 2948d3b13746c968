"""Files and names from others: contained, never executed; secrets stay out of what is written."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import pickle
import shutil
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import NonTensorData, TensorDict

from o3f.adapters import load_agent
from o3f.collection.behaviours import GaussianMLP
from o3f.errors import CheckpointError, ConfigError
from o3f.runs.checkpoint import checkpoints, load_component, load_latest, save
from o3f.runs.counters import Counters
from o3f.runs.files import sha256
from o3f.runs.folder import RunFolder
from o3f.runs.identity import read_settings
from o3f.training.load import load_run
from recipes import evaluate
from tests.support.boxes import Box
from tests.support.recipe_runs import ROOT, SHORT, TINY, command, run, settings

NAMES = ["../up", "/etc", "a/b", "..", ".hidden", "", "a b", "é", "nul\0", "x" * 101, "a\n", None, 3]
NAMES += ["..\\up", "a\u2044b", "a\u202eb", "~", "$HOME", "C:", "*"]


@pytest.mark.parametrize("name", NAMES)
def test_f47_names_that_are_not_one_folder_name_are_refused(config, name, tmp_path):
    for bad in ({"name": name}, {"task": {"name": name}}, {"exploration": {"kind": name}}):
        with pytest.raises(ConfigError, match="cannot be part of a folder name"):
            RunFolder.open({**config, **bad})
    assert list(tmp_path.iterdir()) == []


def test_f47_names_on_the_command_line_stay_below_the_root(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for override in ("name=../../escaped", f"name={place}/escaped", "task.name=../escaped", "exploration.kind=../x"):
        assert command("finetune", *TINY, override) == 2, override
        assert "cannot be part of a folder name" in capsys.readouterr().err
    assert not list(place.rglob("*escaped*"))


def test_f47_a_symbolic_link_out_of_the_root_is_refused(config, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/first").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="symbolic link"):
        RunFolder.open(config)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")  # the root itself may be one
    RunFolder.open({**config, "runs": str(tmp_path / "link")}).close()


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


def test_f48_the_evil_object_is_evil(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "victim")))
    assert (tmp_path / "victim").exists()


def pickled(victim: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"tensor": Evil(victim)}, file)
    return file.getvalue()


def non_tensor(folder: Path) -> bytes:
    """What tensordict unpickles when it reads an archive."""
    data = TensorDict({"tensor_00000000": NonTensorData(Evil(folder / "victim"))}, [])
    data.save(folder / "state.tdz", archive=True)
    (folder / "victim").unlink(missing_ok=True)  # writing reads it back
    return (folder / "state.tdz").read_bytes()


def forge(file: Path, change: Callable[[dict[str, bytes]], None], **options: Any) -> None:
    """Change the members of a checkpoint, and make digest and inventory fit."""
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    manifest = json.loads(members["manifest.json"])
    for record in manifest["components"].values():
        path = record["path"]
        record["files"] = [name.removeprefix(f"{path}/") for name in members if name.startswith(f"{path}/")]
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(file, "w", **options) as new:
        for name, data in members.items():
            new.writestr(name, data)
    Path(f"{file}.sha256").write_text(sha256(file))


def evil_torch_payload(members: dict[str, bytes], folder: Path) -> None:
    members["components/0000-box/state.pt"] = pickled(folder / "victim")


def evil_non_tensor(members: dict[str, bytes], folder: Path) -> None:
    members["components/0000-box/state.tdz"] = non_tensor(folder)


def evil_folder(members: dict[str, bytes], folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(non_tensor(folder))) as archive:
        for name in archive.namelist():
            members[f"components/0000-box/state/{name}"] = archive.read(name)


@pytest.mark.parametrize("attack", [evil_torch_payload, evil_non_tensor, evil_folder])
def test_f48_a_forged_checkpoint_is_never_unpickled(
    attack: Callable[[dict[str, bytes], Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    save(folder, 1, {"box": Box(1)})
    save(folder, 2, {"box": Box(2)})
    forge(checkpoints(folder)[1], lambda members: attack(members, tmp_path))
    box = Box(0)
    with pytest.warns(UserWarning, match="does not belong into a checkpoint|not plain tensors"):
        assert load_latest(folder, {"box": box}) == {"step": 1}
    assert box.value == 1
    assert not (tmp_path / "victim").exists()


def test_f48_tensors_of_another_type_are_not_read(tmp_path: Path) -> None:
    """A class named in the description is looked up when an archive is read."""

    def rename(members: dict[str, bytes]) -> None:
        inner = io.BytesIO(members["components/0000-box/state.tdz"])
        with zipfile.ZipFile(inner) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        parts["meta.json"] = json.dumps({**json.loads(parts["meta.json"]), "_type": "<class 'other.Type'>"}).encode()
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
        members["components/0000-box/state.tdz"] = inner.getvalue()

    save(tmp_path, 1, {"box": Box(1)})
    forge(checkpoints(tmp_path)[0], rename)
    with pytest.warns(UserWarning, match="it holds a <class 'other.Type'>, not plain"), pytest.raises(CheckpointError):
        load_component(tmp_path, "box")


def test_f48_without_the_check_the_forged_checkpoint_would_do_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above is not passed by an attack that never worked."""
    monkeypatch.setattr("o3f.runs.archives.check_archive", lambda path: None)
    save(tmp_path / "checkpoints", 1, {"box": Box(1)})
    forge(checkpoints(tmp_path / "checkpoints")[0], lambda members: evil_non_tensor(members, tmp_path))
    with warnings.catch_warnings(), contextlib.suppress(CheckpointError):
        warnings.simplefilter("ignore")
        load_latest(tmp_path / "checkpoints", {"box": Box(0)})
    assert (tmp_path / "victim").exists()


def test_f48_a_pickle_in_place_of_a_checkpoint_stops_the_run(
    pretrained: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it stands in a folder that a run starts from or that is evaluated."""
    shutil.copytree(pretrained.removeprefix("pretrained="), "theirs")
    for file in checkpoints("theirs/checkpoints"):
        file.write_bytes(pickled(place / "victim"))
        Path(f"{file}.sha256").write_text(sha256(file))
    for work in (
        lambda: command("finetune", *SHORT, "pretrained=theirs"),
        lambda: evaluate.evaluate_run(Path("theirs"), settings("evaluate", "run=theirs")),
    ):
        with warnings.catch_warnings(), contextlib.suppress(CheckpointError):
            warnings.simplefilter("ignore")
            assert work() == 3
    assert "none of the 2 checkpoints in theirs/checkpoints can be read" in capsys.readouterr().err
    assert not Path("victim").exists()


def test_f48_an_exported_policy_is_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "policy.npz", w0=np.array([Evil(tmp_path / "victim")], dtype=object))
    with pytest.raises(ValueError, match=r"policy\.npz"):
        GaussianMLP.load(tmp_path / "policy.npz")
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Evil(tmp_path / "victim")))
    with pytest.raises(ValueError, match=r"raw\.npz"):
        GaussianMLP.load(tmp_path / "raw.npz")
    assert not (tmp_path / "victim").exists()


def test_f48_an_agent_in_an_npz_file_is_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "agent.npz", **{"policy.fc0.weight": np.array([Evil(tmp_path / "victim")], dtype=object)})
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Evil(tmp_path / "victim")))
    for name in ("agent.npz", "raw.npz"):
        with pytest.raises(ConfigError, match=rf"{name} is no readable \.npz file"):
            load_agent(str(tmp_path / name))
    assert not (tmp_path / "victim").exists()


def test_f48_archives_hold_no_pickle(tmp_path):
    file = save(tmp_path, 3, {"net": torch.nn.Linear(2, 2), "counters": Counters(step=1)})
    with zipfile.ZipFile(file) as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".json", ".tdz"}


BANNED_IMPORTS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "hydra.utils.instantiate"}
BANNED_CALLS |= {"instantiate", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load", "torch.package"}


def faults(source: str) -> Iterator[str]:
    """The unsafe ways of reading that a program has in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [module.split(".")[0]] if module else [each.name.split(".")[0] for each in node.names]
            yield from (f"import {name}" for name in names if name in BANNED_IMPORTS)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if name in BANNED_CALLS:
                yield name
            if name == "torch.load" and options.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if name.endswith("np.load") and options.get("allow_pickle") != "False":
                yield "np.load without allow_pickle=False"
            if name.startswith("subprocess.") and options.get("shell", "False") != "False":
                yield "a shell"


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "import cloudpickle as c", "import joblib"),
        *("torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f)", "np.load(f, allow_pickle=True)"),
        *("yaml.load(f)", "eval(x)", "exec(x)", "hydra.utils.instantiate(c)", "subprocess.run(x, shell=True)"),
    ],
)
def test_f48_the_search_for_unsafe_reading_finds_it(source: str) -> None:
    assert list(faults(source))


def test_f48_no_unsafe_reading_in_the_sources() -> None:
    sources = [*(ROOT / "components").rglob("*.py"), *(ROOT / "recipes").rglob("*.py")]
    assert len(sources) > 50
    found = {str(path): list(faults(path.read_text(encoding="utf-8"))) for path in sources}
    assert {path: names for path, names in found.items() if names} == {}


def add(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members[name] = b"x" * 100

    return change


MEMBERS = ["../../victim", "/tmp/victim", "components/0000-box/../../victim", "components/0000-box/.ssh", "victim"]


@pytest.mark.parametrize("name", MEMBERS)
def test_f49_a_member_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    save(tmp_path / "a/b", 1, {"box": Box(1)})
    forge(checkpoints(tmp_path / "a/b")[0], add(name))
    with pytest.warns(UserWarning, match="does not belong into a checkpoint"), pytest.raises(CheckpointError):
        load_component(tmp_path / "a/b", "box")
    assert not list(tmp_path.rglob("*victim*"))


def test_f49_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    def swell(members: dict[str, bytes]) -> None:
        members["components/0000-box/state.json"] = bytes(50_000_000)

    save(tmp_path, 1, {"box": Box(1)})
    file = checkpoints(tmp_path)[0]
    forge(file, swell, compression=zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 100_000
    with pytest.warns(UserWarning, match="does not belong into a checkpoint"), pytest.raises(CheckpointError):
        load_component(tmp_path, "box")


def test_f49_a_link_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1, {"box": Box(1)})
    file = checkpoints(tmp_path)[0]
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(file, "w") as new:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (stat.S_IFLNK if name.endswith(".tdz") else stat.S_IFREG) << 16
            new.writestr(member, data)
    Path(f"{file}.sha256").write_text(sha256(file))
    with pytest.warns(UserWarning, match="does not belong into a checkpoint"), pytest.raises(CheckpointError):
        load_component(tmp_path, "box")


def test_f49_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A bomb without compression: every entry of the list points to the same place."""
    save(tmp_path, 1, {"box": Box(1)})
    file = checkpoints(tmp_path)[0]
    with zipfile.ZipFile(file, "a") as archive:
        (state,) = [member for member in archive.infolist() if member.filename == "components/0000-box/state.tdz"]
        for number in range(50):
            again = zipfile.ZipInfo(f"components/{number:04d}-copy/state.tdz")
            for field in ("header_offset", "file_size", "compress_size", "CRC", "external_attr"):
                setattr(again, field, getattr(state, field))
            archive.filelist.append(again)
        archive._didModify = True
    Path(f"{file}.sha256").write_text(sha256(file))
    with pytest.warns(UserWarning, match="overlap"), pytest.raises(CheckpointError):
        load_component(tmp_path, "box")


FOREIGN = [  # the first ones are appended to a good configuration, under a key that it does not have
    "_target_: pathlib.Path.touch\n_args_: [victim]\n",
    "more: {env: {_target_: os.system, command: touch victim}}\n",
    "more: [1, {name: {_target_: builtins.exec}}]\n",
    "more: {name: '${oc.env:HOME}'}\n",
    "more: !!python/name:os.system\n",
    "!!python/object/apply:os.system ['touch victim']\n",
    "- a list\n",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_f50_nothing_in_a_config_from_elsewhere_is_called_or_looked_up(
    text: str, pretrained: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pretrained.removeprefix("pretrained="), "theirs")
    good = Path("theirs/config.yaml").read_text()
    Path("theirs/config.yaml").write_text(text if text[0] in "!-" else good + text)
    with pytest.raises(ConfigError, match=r"theirs/config\.yaml"):
        load_run("theirs")
    assert command("finetune", *TINY, "pretrained=theirs") == 2
    assert "theirs/config.yaml" in capsys.readouterr().err
    assert not Path("victim").exists()


def test_f50_an_appended_target_does_not_hide_behind_a_good_config(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("seed: 0\nschedule: {to: {deep: [1, {_target_: os.system}]}}\n")
    with pytest.raises(ConfigError, match="'_target_', which no run writes"):
        read_settings(file)


def test_f51_no_secret_of_the_environment_is_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "very-secret-token")
    run("finetune", *TINY)
    files = [path for path in Path("runs").rglob("*") if path.is_file()]
    assert {"config.yaml", "env.json", "metrics.csv", "done.json"} <= {path.name for path in files}
    assert not [path for path in files if b"very-secret-token" in path.read_bytes()]
