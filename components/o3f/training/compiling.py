"""Whether a run compiles its gradient steps, where ``algorithm.compile=auto`` leaves that to the recipe."""

from __future__ import annotations

import copy
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from o3f.algorithms import learner_type
from o3f.algorithms.compiled_step import has_compiler
from o3f.errors import ConfigError
from o3f.runs.identity import plain, read_settings, run_path

#: Gradient steps from which compiling repays itself; docs/performance.md has the measurement.
WORTHWHILE = 10_000


def settle_compile(config: DictConfig) -> DictConfig:
    """Return a copy in which no ``compile`` is ``auto`` any more; a line says what it became, and why.

    A run that has begun keeps what it began with. A new one compiles where there is a C++ compiler, the algorithm was
    measured to gain by it, and the gradient steps are many: those of pre-training where the run starts with one, so
    that all arms that share it decide alike, else its own.

    Args:
        config: resolved, of a pre-training or a fine-tuning run.

    Raises:
        ConfigError: the steps of an unfinished run are to be compiled, and there is no compiler.
    """
    config = copy.deepcopy(config)
    folder = run_path(plain(config))
    for part in ("algorithm", "offline_algorithm"):
        if config.get(part) and config[part].get("compile") == "auto":
            config[part].compile, why = _settled(config, part, folder)
            done = "compiled" if config[part].compile else "not compiled"
            print(f"{part}.compile=auto: gradient steps are {done}, for {why}.")
    if config.algorithm.get("compile") and config.device == "cpu" and not (folder / "done.json").exists():
        _check_compiler(folder)
    return config


def _settled(config: DictConfig, part: str, folder: Path) -> tuple[bool, str]:
    if (folder / "config.yaml").exists():
        begun = OmegaConf.select(OmegaConf.create(read_settings(folder / "config.yaml")), f"{part}.compile")
        return begun is True, f"{folder} began so"
    name, steps = config[part].name, _steps(config)
    if config[part].batch_size > learner_type(name).compiles_up_to:
        return False, f"{name} was not measured to gain by it with batches of {config[part].batch_size}"
    if config.device != "cpu":
        return False, f"nothing was measured on device={config.device}"
    if steps < WORTHWHILE:
        return False, f"{steps} of them are too few to repay the half minute that it takes (from {WORTHWHILE})"
    if not has_compiler():
        return False, "there is no C++ compiler ($CXX or g++, and Python's headers) that torch could use"
    return True, f"there are {steps} of them; the first one takes half a minute, or seconds where that was done before"


def _steps(config: DictConfig) -> int:
    """The gradient steps that are a run's reason to compile."""
    if "pretrained" not in config or (config.pretrained == "auto" and config.dataset.id != "none"):
        return int(config.offline.steps)
    return int(config.online.steps * config.online.updates_per_step)


def _check_compiler(folder: Path) -> None:
    if has_compiler():
        return
    needs = "needs a C++ compiler ($CXX or g++) and Python's headers, for a torch that compiles steps, as 2.13 does"
    if (folder / "config.yaml").exists():
        raise ConfigError(
            f"{folder} holds a run with compiled gradient steps. To go on with it {needs}, which is not so here."
            " Install them, or go on without: algorithm.compile=false resume_allow=[algorithm.compile]"
        )
    raise ConfigError(f"algorithm.compile=true {needs}, which is not so here. Install them, or give auto or false.")
