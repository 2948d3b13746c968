"""Configuration of the recipes: Hydra, quiet, and with messages a person can act on.

A recipe is a function of its configuration::

    if __name__ == "__main__":
        answer_first("finetune", __file__)  # may stand before imports that take seconds, or be left out

    @recipe("finetune")                     # ../conf/finetune.yaml, seen from the recipe's own file
    def main(config: DictConfig) -> None:
        require_range(config, "algorithm.expectile", "(0, 1)")
        ...

    if __name__ == "__main__":
        main()

Command lines are Hydra's (``task=hopper/medium seed=0,1,2 -m``, ``--cfg job``, ``--help``). Hydra itself
writes nothing: no ``outputs`` folder, no log. Exit codes stand in :mod:`o3f.errors`.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf, RunDir, SweepDir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import o3f.cli.assets  # noqa: F401  (registers the resolver ${asset:NAME})
from o3f.cli.keys import Keys, check_choices, keys_of
from o3f.cli.messages import end_output, exit_code, explain_overrides, report
from o3f.cli.sweeps import Command, SweepFolder, missing_launcher, outcomes, report_sweep, run_job, stoppable
from o3f.errors import ConfigError, O3FError, check_device, check_keys, require, require_range
from o3f.runs.files import scratch_folder

__all__ = ["answer_first", "check_keys", "recipe", "require", "require_range"]

#: What ``torch.set_float32_matmul_precision`` takes.
PRECISIONS = ("highest", "high", "medium")

Function = Callable[[DictConfig], object]


def recipe(config_name: str, config_path: str = "../conf") -> Callable[[Function], Callable[..., None]]:
    """Make a function of a configuration a command: compose, run, turn errors into messages and exit codes.

    The configuration arrives with every interpolation resolved and no value missing, and torch uses
    ``threads`` threads and multiplies matrices with ``precision`` where these keys are given.

    Args:
        config_name: the primary configuration, without ``.yaml``.
        config_path: the folder of configurations, seen from the file of the recipe.

    Returns:
        A decorator. Called without arguments the result reads ``sys.argv`` and exits; called with a composed
        configuration it is a plain function.
    """

    def decorate(function: Function) -> Callable[..., None]:
        folder = (Path(inspect.getfile(function)).resolve().parent / config_path).resolve()

        @functools.wraps(function)
        def main(config: DictConfig | None = None) -> None:
            if config is not None:
                _run(function, config, keys_of(folder, config_name))
            else:
                sys.exit(end_output(_command(function, folder, config_name)))

        return main

    return decorate


def answer_first(config_name: str, file: str, config_path: str = "../conf") -> None:
    """Answer a command line that needs no more than the configuration, and end the process; else return.

    Such are questions (``--help``, ``--cfg job``), misspelt keys, missing values. A recipe that calls this before its
    imports answers in the time that Hydra takes, not in that of torch.

    Args:
        config_name: as for :func:`recipe`.
        file: of the recipe, ``__file__``.
        config_path: as for :func:`recipe`.

    Raises:
        SystemExit: after an answer.
    """
    if any(each in ("-m", "--multirun") or each.startswith("hydra.mode=") for each in sys.argv[1:]):
        return  # Hydra looks at a sweep when it makes its jobs
    checked: list[DictConfig] = []

    def check(function: Function, config: DictConfig, keys: Keys | None) -> None:
        function(_checked(config, keys))

    code = _command(checked.append, (Path(file).resolve().parent / config_path).resolve(), config_name, check)
    if code or not checked:
        sys.exit(end_output(code))


def _run(function: Function, config: DictConfig, keys: Keys | None) -> None:
    import torch  # here, because it takes seconds, and messages should not

    config = _checked(config, keys)
    logging.getLogger("torchrl").setLevel(logging.WARNING)
    if config.get("threads") is not None:
        torch.set_num_threads(config.threads)
    if "precision" in config:
        torch.set_float32_matmul_precision(config.precision)
    if "device" in config and (config.device is not None or "run" not in config):  # null: that of the run
        check_device(config.device)
    expand_home(config)
    function(config)


def _checked(config: DictConfig, keys: Keys | None) -> DictConfig:
    """Return a copy with every interpolation resolved, in which every key is known and no value is missing."""
    config = copy.deepcopy(config)
    try:
        if keys is not None:
            keys.check(config)
        missing = sorted(OmegaConf.missing_keys(config))
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from error
    require(not missing, f"no value for {', '.join(missing)}: give {' '.join(f'{key}=VALUE' for key in missing)}.")
    if config.get("threads") is not None:
        require_range(config, "threads", "[1, 1024]", integer=True)
    if "precision" in config:
        check_keys([config.precision], PRECISIONS, "precision")
    return config


def expand_home(node: Any) -> None:
    """Replace ``~/`` at the beginning of any text by the home folder, in place; only paths begin like that."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        value = node[key]
        if isinstance(value, DictConfig | ListConfig):
            expand_home(value)
        elif isinstance(value, str) and value.startswith("~/"):
            node[key] = str(Path(value).expanduser())


def _command(
    function: Function,
    folder: Path,
    config_name: str,
    run: Callable[[Function, DictConfig, Keys | None], None] = _run,
) -> int:
    """Run the command line; return the exit code."""
    # Hydra's grammar has no ~ in a value, and shells leave it alone after an equals sign.
    sys.argv[1:] = [re.sub(r"(?<=[=,\[])~(?=/)", str(Path.home()), each) for each in sys.argv[1:]]
    sys.argv[1:] = options_first(sys.argv[1:])
    failures: list[Exception] = []
    keys = keys_of(folder, config_name)
    command = Command(tuple(sys.argv[1:]), os.getpid())

    def checked(config: DictConfig) -> None:
        given: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        sources = HydraConfig.get().runtime.config_sources
        check_choices(given, [Path(source.path) for source in sources if source.schema == "file"])
        if keys is not None:
            keys.check_given(given, config_name)
        run(function, config, keys)

    @functools.wraps(function)
    def job(config: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            run_job(checked, config, command)
            return
        try:
            checked(config)
        except Exception as error:
            report(error)
            failures.append(error)

    # Makes Hydra raise its errors instead of printing them, so that they are reported here.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    keep_freed_memory()
    SweepFolder.path = None
    code = 0
    with scratch_folder("o3f-hydra") as scratch:
        _quiet_hydra(str(scratch), config_name)
        try:
            with stoppable():
                hydra.main(version_base="1.3", config_path=str(folder), config_name=config_name)(job)()
        except KeyboardInterrupt as stopped:
            interrupted = "interrupted; a run goes on from its last checkpoint with the same command."
            print(str(stopped) or interrupted, file=sys.stderr)
            return getattr(stopped, "exit_code", 130)
        except Exception as error:
            told = isinstance(error, O3FError)
            why = missing_launcher(sys.argv[1:]) or explain_overrides(sys.argv[1:], folder, config_name)
            code = report(error, None if told else why)
        if SweepFolder.path is not None:
            return report_sweep(outcomes(SweepFolder.path)) or code
    return exit_code(failures[0]) if failures else code


def options_first(arguments: Sequence[str]) -> list[str]:
    """Return a command line with its options before the overrides: argparse takes none in between.

    Examples:
        >>> options_first(["seed=0,1", "--config-dir", "mine", "name=a", "-m"])
        ['--config-dir', 'mine', '-m', 'seed=0,1', 'name=a']
    """
    options, overrides, info = list[str](), list[str](), list[str]()
    waiting = iter(arguments)
    for each in waiting:
        if not each.startswith("-"):
            overrides.append(each)
        elif each in ("-i", "--info"):  # at the end, for what follows it may be its value
            info.append(each)
        else:
            options.append(each)
            if each in _WITH_A_VALUE and (value := next(waiting, None)) is not None:
                options.append(value)
    return [*options, *overrides, *info]


#: Hydra's options whose value is the next word.
_WITH_A_VALUE = (
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    "--experimental-rerun",
)


def _quiet_hydra(scratch: str, name: str) -> None:
    """Make Hydra write into ``scratch`` what it insists on writing (``multirun.yaml``), and log nothing."""
    node = HydraConf(run=RunDir(dir="."), sweep=SweepDir(dir=scratch, subdir="."), output_subdir=None)
    node.job.name = name
    ours = {"output": None, "hydra_logging": "none", "job_logging": "none"}
    node.defaults = [{group: ours.get(group, choice)} for entry in node.defaults for group, choice in entry.items()]
    node.callbacks = {"sweep": {"_target_": "o3f.cli.sweeps.SweepFolder"}}
    ConfigStore.instance().store(group="hydra", name="config", node=node, provider="hydra")


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGE = 2**25  # the most that every glibc takes for the second


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free, in blocks of up to 32 MiB, instead of returning it to the system.

    The activations of an update are as large as those of the last one, but glibc gives large blocks back and gets
    new ones, whose pages the system must clear: with CQL's 31 actions a state that is a tenth of an update.

    Returns:
        Whether it was done; it is not where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _LARGE) and mallopt(_TRIM_THRESHOLD, 2**30))
