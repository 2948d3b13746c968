"""Offline pre-training, for the recipe of that name and for fine-tuning runs, which start from it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from o3f.algorithms import Learner, learner_type
from o3f.envs.seeds import seed_streams
from o3f.errors import ConfigError, O3FError, first_lines, require
from o3f.runs.checkpoint import load_component
from o3f.runs.counters import Counters
from o3f.runs.files import read_json
from o3f.runs.folder import RunFolder
from o3f.runs.identity import (
    FREE_KEYS,
    LATER_KEYS,
    config_difference,
    identity,
    leaves,
    plain,
    read_settings,
    run_path,
)
from o3f.training import build
from o3f.training.checks import check_offline
from o3f.training.compiling import settle_compile
from o3f.training.loop import Training

#: How pre-training is watched, saved and computed, which changes nothing in its result but the last bits.
WATCHING_KEYS = frozenset(
    {
        *("evaluation.episodes", "evaluation.seed", "evaluation.q_bias_episodes"),
        *("guard.on_nonfinite", "guard.patience", "guard.max_rollbacks", "guard.max_q_ratio"),
        *("offline.evaluate_every", "offline.checkpoint_every", "offline.log_every", "algorithm.compile"),
    }
)

#: Of the task, what only collecting uses.
ACTING_KEYS = frozenset({"task.sigma", "task.centre"})

#: Parts of a fine-tuning configuration that its pre-training does not depend on.
ONLINE_KEYS = (
    *("exploration", "online", "pretrained", "agent", "schedule", "offline_algorithm", "transfer"),
    *("collector", "num_workers"),
)


def pretrain(config: DictConfig, *, timeout: float = 0.0) -> Path:
    """Train a learner on a dataset alone, or go on where an earlier process stopped.

    Args:
        config: ``conf/pretrain.yaml``.
        timeout: seconds to wait for another process that trains the same run; -1 waits for ever.

    Returns:
        The run folder, with the learner in its newest checkpoint.

    Raises:
        ConfigError: a value is out of its range, or there is no dataset.
    """
    check_offline(config)
    require(config.dataset.id != "none", "pre-training needs a dataset: dataset=minari dataset.id=NAMESPACE/NAME-v0.")
    config = settle_compile(config)
    with RunFolder.open(config, timeout=timeout) as run:
        if run.scores is None:
            run.finish(_train(config, run))
        return run.path


def pretrain_shared(config: DictConfig, data: Mapping[str, Any]) -> Path:
    """Pre-train what a fine-tuning configuration starts from, once for all runs that start from the same.

    A run of the same settings on the same data serves, whatever its name; one that is not finished is waited for, or
    gone on with. Otherwise the run's name is a digest of everything the pre-training depends on, but the seed. One line
    says what is started from, or trained, and why.

    Args:
        config: ``conf/finetune.yaml``.
        data: facts about the dataset, its hash above all: another dataset of the same name is another pre-training.

    Returns:
        The run folder.
    """
    offline = plain(OmegaConf.masked_copy(config, [str(key) for key in config if key not in ONLINE_KEYS]))
    offline["algorithm"] = offline_algorithm(plain(config))
    folder, differences = _nearest(offline, data)
    if folder is not None and not differences:
        if (folder / "done.json").exists():
            print(f"starts from {folder}, pre-trained before")
            return folder
        print(f"starts from {folder}, which has begun with the same settings: waits for its end, or goes on with it")
        return pretrain(OmegaConf.create(_as_begun(offline, folder)), timeout=-1)
    offline |= {"resume": "auto", "resume_allow": [], "name": "pretrained"}
    facts = identity(offline, FREE_KEYS | WATCHING_KEYS | ACTING_KEYS | {"seed"})
    content = {key: value for key, value in data.items() if key != "reward_scale"}  # of earlier versions, too
    digest = hashlib.sha256(json.dumps([facts, content], sort_keys=True, default=str).encode()).hexdigest()
    offline |= {"name": f"pretrained-{digest[:10]}"}
    why = f"{folder} differs in {', '.join(differences[:3])}" if folder else f"there is none like it in {config.runs}"
    print(
        f"pre-trains first: {offline['offline']['steps']:,} updates of {offline['algorithm']['name']} on"
        f" {data.get('dataset')}, into {run_path(offline)}, for {why}"
    )
    return pretrain(OmegaConf.create(offline), timeout=-1)


def offline_algorithm(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the algorithm to pre-train with; where it is another one, its networks are those of the online one."""
    online = dict(settings["algorithm"])
    if not settings.get("offline_algorithm"):
        return online
    shared = learner_type(online["name"]).shared_keys
    return {**settings["offline_algorithm"], **{key: online[key] for key in shared}}


def _nearest(settings: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[Path | None, list[str]]:
    """Return the run of any name that differs least from these settings and data, and in what (there -> here).

    Of equal ones a finished run comes first, then the one of the settings' own name. None where there is no run of the
    task, the algorithm and the seed.
    """
    own = run_path(settings)
    found = [own, *sorted(Path(settings["runs"]).glob(f"*/{own.parent.name}/{own.name}"))]
    compared = [(folder, _differences(folder, settings, data)) for folder in dict.fromkeys(found)]
    known = [(folder, differences) for folder, differences in compared if differences is not None]
    return min(known, key=lambda each: (len(each[1]), not (each[0] / "done.json").exists()), default=(None, []))


def _differences(folder: Path, settings: Mapping[str, Any], data: Mapping[str, Any]) -> list[str] | None:
    """In what a run is another pre-training; None where it has not begun, or cannot be read: it serves nobody."""
    try:
        theirs = read_settings(folder / "config.yaml")
        facts = {"reward_scale": data.get("reward_scale"), **read_json(folder / "env.json")}  # not written down before
    except (O3FError, OSError):
        return None
    if theirs.get("name") != folder.parent.parent.name:
        return None
    theirs = {key: value for key, value in theirs.items() if key not in ONLINE_KEYS}  # from an experiment file
    free = FREE_KEYS | WATCHING_KEYS | ACTING_KEYS | {"name"}
    same_rows = data.get("dataset_hash") is not None and facts.get("dataset_hash") == data["dataset_hash"]
    told = {key: value for key, value in data.items() if not (same_rows and key == "dataset")}  # whatever a file's name
    other_data = [f"{key}: {facts.get(key)} -> {value}" for key, value in told.items() if facts.get(key) != value]
    return other_data + config_difference(theirs, settings, free_keys=free)


def _as_begun(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings as the run in ``folder`` was begun with them: its name, and how it is watched."""
    theirs = read_settings(folder / "config.yaml")
    begun = OmegaConf.create(dict(settings))
    for key, value in leaves(theirs).items():
        if key in WATCHING_KEYS | ACTING_KEYS | {"name"} or key.split(".")[0] in ONLINE_KEYS:
            OmegaConf.update(begun, key, value, force_add=True)
    for key in (WATCHING_KEYS | ACTING_KEYS) & LATER_KEYS.keys() - leaves(theirs).keys():
        OmegaConf.update(begun, key, LATER_KEYS[key], force_add=True)
    return {**plain(begun), "resume": "auto", "resume_allow": []}


def load_pretrained(learner: Learner, folder: str | Path, config: DictConfig, data: Mapping[str, Any]) -> None:
    """Give a learner the state of another run's, which must be finished and have the same hyper-parameters.

    Only ``algorithm.actor_decay_steps`` and ``compile`` may differ, and SAC may start from CQL (``transfer`` says
    what it takes over beside policy and critics). Another environment or reward rule only warns.

    Args:
        learner: built from ``config``.
        folder: the other run's folder.
        config: the configuration of the run that begins.
        data: facts about its dataset; ``reward_scale`` is there where it was measured.

    Raises:
        ConfigError: there is no such run, it is not finished, or its agent is another one; the message says
            in what.
    """
    file = Path(folder) / "config.yaml"
    require(file.exists(), f"pretrained={folder} is no run folder: it has no config.yaml.")
    require(
        (Path(folder) / "done.json").exists(),
        f"pretrained={folder} is not finished: start the command that began it again, and it will go on.",
    )
    theirs, ours = read_settings(file), plain(config)
    other = theirs["algorithm"]["name"] in learner.starts_from
    changed = _difference("algorithm", theirs, ours) if not other else []
    require(
        not changed,
        f"pretrained={folder} holds another agent (there -> here):\n  " + "\n  ".join(changed) + "\n"
        "To change a coefficient online, start with its offline value and use schedule=abrupt or linear.",
    )
    changed = _difference("task.env", theirs, ours) + _difference("task.reward", theirs, ours)
    scales = [facts.get("reward_scale") for facts in (read_json(Path(folder) / "env.json"), data)]
    if None not in scales and scales[0] != scales[1]:
        changed.append(f"measured task.reward.scale: {scales[0]:.6g} -> {scales[1]:.6g}")
    trained_in = "was trained in another environment (there -> here):\n  " + "\n  ".join(changed)
    state = load_component(Path(folder) / "checkpoints", "learner")
    configured = {name: value.clone() for name, value in learner.coefficients.items()}
    try:
        if other:
            transfer = ours["transfer"]
            learner.start_from(state, copy_targets=transfer["targets"], copy_optimisers=transfer["optimisers"])
        else:
            learner.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        why = f"; it {trained_in}" if changed else ""
        raise ConfigError(f"pretrained={folder} has networks of other sizes{why}\n{first_lines(error)}") from error
    for name, value in learner.coefficients.items():  # a schedule may have moved the other run's
        value.copy_(configured[name])
    decay = ours["algorithm"].get("actor_decay_steps")
    require(
        decay is None or learner.updates < decay,
        f"algorithm.actor_decay_steps={decay} leaves the actor no learning rate after the {learner.updates} updates of"
        f" pretrained={folder}: give algorithm.actor_decay_steps=null.",
    )
    if changed:
        warnings.warn(f"pretrained={folder} {trained_in}", stacklevel=2)


def _difference(key: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What differs below a dotted key, that matters to a trained agent."""
    pair: list[Any] = [theirs, ours]
    for part in key.split("."):
        pair = [settings[part] for settings in pair]
    before, after = ({key: settings} for settings in pair)
    return config_difference(before, after, free_keys=FREE_KEYS | {"algorithm.actor_decay_steps", "algorithm.compile"})


def _train(config: DictConfig, run: RunFolder) -> dict[str, Any]:
    learner = build.learner(config)
    buffer, rule, facts = build.buffer(config, folder=run.path / "storage")
    run.record_environment(**facts)
    seed_streams(config.seed)
    training = Training(config, "offline", run, learner, buffer, rule, Counters())
    if not training.resume():
        learner.prepare(buffer[:])
    with training:
        while training.steps_left:
            training.next_step()
            training.update([buffer.sample().to(config.device)])
            training.end_step()
    return training.scores
