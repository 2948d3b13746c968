"""From a run's folder to its configuration and its trained learner."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from o3f.adapters import Agent, is_agent, load_agent
from o3f.algorithms import Learner
from o3f.errors import CheckpointError, ConfigError, check_device, check_keys, first_lines, require
from o3f.runs.checkpoint import FOLDERS, load_component
from o3f.runs.identity import read_whole_settings
from o3f.training.build import learner

#: In the folder of a run that began with an agent of the user's own: that agent, with the networks it is made of.
AGENT_FILE = "agent.safetensors"


def load_run(
    folder: str | Path, which: str = "latest", agent: Agent | None = None, device: str | None = None
) -> tuple[DictConfig, Learner]:
    """Return the configuration of a run folder and its learner.

    Args:
        folder: of the run.
        which: the ``"latest"`` good checkpoint, or the one of the ``"best"`` evaluation of fine-tuning.
        agent: networks for the weights, needed where the run began with networks of other code than ours: no code
            that a run folder names is ever run.
        device: of the networks; None is the run's own, or the CPU where this machine does not have that.

    Raises:
        ConfigError: it is not a run folder, or its configuration is not one that a run wrote, or there is no ``agent``
            and it needs one.
        CheckpointError: it holds no readable checkpoint, or one that does not fit the configuration.
    """
    file = Path(folder, "config.yaml")
    require(file.exists(), f"{folder} is not a run folder: it has no config.yaml.")
    config = OmegaConf.create(read_whole_settings(file))
    if (file := Path(folder, AGENT_FILE)).exists():
        agent = load_agent(str(file))
    require(
        agent is not None or not is_agent(str(config.get("pretrained"))),
        f"the networks of {folder} are code: {config.get('pretrained')}. In Python, give them to"
        " o3f.training.load.load_run(folder, agent=o3f.adapters.load_agent(NAME)); in evaluate, as agent=NAME.",
    )
    check_keys([which], FOLDERS, "checkpoint")
    try:
        config.device = usable_device(device or config.device)
        trained = learner(config, agent)
    except (AttributeError, KeyError, TypeError, OmegaConfBaseException) as error:
        raise ConfigError(f"{Path(folder, 'config.yaml')} is no whole configuration: {first_lines(error)}") from error
    state = load_component(Path(folder, FOLDERS[which]), "learner")
    try:
        trained.load_state_dict(state)
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint of {folder} is of another configuration: {first_lines(error)}"
        ) from error
    return config, trained


def usable_device(name: str) -> str:
    """Return the device if this machine has it, else the CPU, with a line that says so."""
    try:
        check_device(name)
    except ConfigError as error:
        print(f"{error} Goes on with the CPU.")
        return "cpu"
    return name
