"""Export a run's policy: python recipes/export.py run=RUN to=FOLDER.

The folder holds ``model.safetensors``, ``policy.pt2`` (a ``torch.export`` program from raw observations to actions in
the environment's units), ``policy.json`` and a card, and needs no part of this package. ``optimistic=true`` adds
``optimistic.pt2``, the choice among candidates. ``to=policy.npz`` writes the file that collect can act with.
"""

from __future__ import annotations

from o3f.cli.recipe import answer_first, recipe, require

if __name__ == "__main__":
    answer_first("export", __file__)  # before the imports below, which take seconds

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from o3f import export
from o3f.adapters import load_agent
from o3f.algorithms import Learner
from o3f.collection.behaviours import gaussian_mlp_from_actor
from o3f.errors import optional
from o3f.modules import OptimisticActor
from o3f.runs.checkpoint import FOLDERS, load_metadata
from o3f.training import build
from o3f.training.exploration import move_to
from o3f.training.load import load_run


@recipe("export")
def main(config: DictConfig) -> None:
    """Write a folder, or an .npz file; either is compared with the policy before it is there."""
    for key in ("optimistic", "overwrite"):
        require(isinstance(config[key], bool), f"{key} must be true or false, found {config[key]!r}.")
    require(isinstance(config.run, str), f"run must be a run folder, found {config.run!r}.")
    require(isinstance(config.to, str) and bool(config.to), f"to must be a folder or a file .npz, found {config.to!r}.")
    target = Path(config.to)
    export.check_destination(target, overwrite=config.overwrite)
    if target.suffix == ".npz":
        export_npz(config, target)
    else:
        export_folder(config, target)


def given_run(config: DictConfig) -> tuple[DictConfig, Learner]:
    """Return the run's settings and its learner."""
    agent = None if config.agent is None else load_agent(config.agent)
    return load_run(config.run, config.checkpoint, agent)


def export_npz(config: DictConfig, target: Path) -> None:
    """Copy the weights into one file that needs NumPy alone."""
    trained, learner = given_run(config)
    gaussian_mlp_from_actor(learner.policy).save(target)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB, the policy of {config.run}")
    print(f"Next: python recipes/collect.py task=custom task.env.id={trained.task.env.id} \\")
    print(f"  task.dataset.id=me/mine-v0 task.behaviour.kind=npz task.behaviour.path={target}")


def export_folder(config: DictConfig, target: Path) -> None:
    """Write weights and programs, read them back, compare them with the run, and only then show the folder."""
    safetensors = optional("safetensors.torch", "export")
    trained, learner = given_run(config)
    learner.policy.to("cpu")
    interface = export.Interface.of(build.env_config(trained))
    network = export.plain_policy(learner.policy)
    limit = export.max_change(trained, len(interface.low))
    programs: dict[str, export.PolicyProgram] = {"policy.pt2": export.PolicyProgram(network, interface, limit)}
    actors: dict[str, TensorDictModuleBase] = {"policy.pt2": learner.policy}
    if config.optimistic:
        actors["optimistic.pt2"] = actor = chooser(config, trained, learner)
        programs["optimistic.pt2"] = export.OptimisticProgram(network, interface, actor)
    observations, source = export.real_observations(trained, learner)
    with export.staged_folder(target) as folder:
        numbers: dict[str, Tensor] = {}
        parity: dict[str, Any] = {"observations": len(observations), "source": source, "tolerance": export.TOLERANCE}
        latency: dict[str, Any] = {"threads": 1, "batch": 1}
        for name, program in programs.items():
            numbers |= export.weights(program)
            export.save_program(program, folder / name)
            loaded = torch.export.load(folder / name).module()
            parity[name] = export.check_parity(name, loaded, program, actors[name], observations)
            latency |= export.latencies(name, loaded, program, actors[name], observations)
        safetensors.save_file(numbers, folder / "model.safetensors")
        contents = {
            **export.run_facts(config.run, config.checkpoint, trained, learner),
            **export.describe_interface(interface, trained),
            "normalisation": export.normalisation(programs["policy.pt2"]),
            "limits": export.describe_limits(trained),
            "programs": {name: export.describe_program(program) for name, program in programs.items()},
            "weights": export.describe_weights(numbers),
            "parity": parity,
            "latency": latency,
        }
        manifest = export.write_manifest(folder, contents)
        (folder / "README.md").write_text(export.card_text(manifest, network), encoding="utf-8")
    report(target, manifest)


def chooser(config: DictConfig, trained: DictConfig, learner: Learner) -> OptimisticActor:
    """Return the critics' choice as the run made it at the step of the checkpoint, where a schedule had come to."""
    actor = build.chooser(trained, learner)
    actor.to("cpu")
    move_to(actor, trained.get("schedule"), load_metadata(Path(config.run) / FOLDERS[config.checkpoint])["step"])
    return actor


def report(target: Path, manifest: dict[str, Any]) -> None:
    """Say what was written, how exact it is and how long a decision takes."""
    parity = manifest["parity"]
    print(f"{target}: {', '.join(sorted(path.name for path in target.iterdir()))}")
    print(f"compared with the run on {parity['observations']} observations: {parity['source']}")
    for name in manifest["programs"]:
        found = parity[name]
        ties = f", {found['ties']} ties left out" if found["ties"] else ""
        print(f"{name}: largest difference {found['max_abs_difference']:.1e} of half the action range{ties}")
    for name, times in manifest["latency"].items():
        if isinstance(times, dict):
            print(f"decision, {name}: median {times['median_us']:.0f} µs, p99 {times['p99_us']:.0f} µs (one thread)")
    print(f"How to load it: {target / 'README.md'}")


if __name__ == "__main__":
    main()
