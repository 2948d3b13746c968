"""How fine-tuning begins: from scratch, from a pre-trained run, or from an agent of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torchrl.data import ReplayBuffer

from o3f.adapters import Agent, agent_digest, is_agent, is_own, load_agent, save_agent
from o3f.algorithms import Learner
from o3f.algorithms.guarded_adam import minimise
from o3f.cli.commands import is_given
from o3f.data import online_rows, restore_online
from o3f.envs.seeds import seed_streams
from o3f.errors import require
from o3f.modules import fit_normalisers
from o3f.runs.checkpoint import load_component
from o3f.runs.stateful import StateOf
from o3f.training.load import AGENT_FILE
from o3f.training.offline import load_pretrained, pretrain_shared

#: The names of critics, their targets and V in a learner's state.
CRITIC_NETWORKS = ("qvalue_network_params.", "target_qvalue_network_params.", "value_network_params.")


def own_agent(config: DictConfig) -> Agent | None:
    """Return the agent that ``pretrained`` names by a file or a function; None where it is anything else."""
    return load_agent(config.pretrained) if is_agent(config.pretrained) else None


def record_agent(folder: Path, agent: Agent | None) -> dict[str, Any]:
    """Put an agent into the folder of the run that starts from it, and return what the run depends on: its digest.

    So the run can be evaluated without the file or the code it came from; code that is not ours stays outside.
    """
    if agent is None:
        return {}
    digest = agent_digest(agent)
    if is_own(agent) and not (folder / AGENT_FILE).exists():
        save_agent(folder / AGENT_FILE, agent)
    return {"agent": digest}


def online_rows_of(buffer: ReplayBuffer) -> StateOf:
    """The rows that were collected, as what a checkpoint holds of a buffer; the dataset's are loaded anew."""
    return StateOf(lambda: online_rows(buffer), lambda saved: restore_online(buffer, saved))


def start_learner(
    learner: Learner, agent: Agent | None, buffer: ReplayBuffer, config: DictConfig, data: Mapping[str, Any]
) -> None:
    """Give a new learner what it starts with; pre-trains first where that is asked for and not done yet.

    Args:
        learner: as built; with ``agent`` it has its networks already.
        agent: the user's own.
        buffer: with the dataset's rows, if there is one.
        config: ``conf/finetune.yaml``.
        data: facts about the dataset.

    Raises:
        ConfigError: there is nothing to start from, or an agent lacks what only it could bring.
    """
    if agent is not None:
        _complete(learner, agent, buffer, config, data)
        if learner.draws_targets and not config.transfer.targets:
            seed_streams(config.seed)
            learner.draw_targets()
    elif config.pretrained == "none" or (config.pretrained == "auto" and config.dataset.id == "none"):
        if len(buffer):
            learner.prepare(buffer[:])
    else:
        auto = config.pretrained == "auto"
        folder = pretrain_shared(config, data) if auto else config.pretrained
        load_pretrained(learner, folder, config, data)


def _complete(
    learner: Learner, agent: Agent, buffer: ReplayBuffer, config: DictConfig, data: Mapping[str, Any]
) -> None:
    """Train the critics or the value network that an agent lacks, on the dataset; its policy stays as it is."""
    require(agent.critic is not None or agent.value is None, f"{agent.origin} has a value network but no critics.")
    if agent.critic is not None and (agent.value is not None or not learner.needs_value):
        if is_given("agent.value_steps"):
            print(f"agent.value_steps is not used: {agent.origin} lacks no value network.")
        return
    lacks = "critics" if agent.critic is None else "value network"
    require(
        learner.needs_value,
        f"{agent.origin} has no critics, and those of algorithm={config.algorithm.name} are critics of its own policy."
        " Give critics, too, or use algorithm=iql, whose critics are learned from the dataset alone.",
    )
    require(
        config.dataset.id != "none",
        f"{agent.origin} has no {lacks}, which would be trained on the dataset, but dataset=none.",
    )
    if agent.critic is None:
        folder = pretrain_shared(config, data)
        trained = load_component(folder / "checkpoints", "learner")["loss"]
        critics = {name: tensor for name, tensor in trained.items() if name.startswith(CRITIC_NETWORKS)}
        learner.loss.load_state_dict({**learner.loss.state_dict(), **critics})
        return
    fit_normalisers(learner.loss.value_network, buffer[:])  # the one network that the agent did not bring
    seed_streams(config.seed)
    for _ in range(config.agent.value_steps):
        loss, _ = learner.loss.value_loss(buffer.sample().to(config.device))
        minimise(loss, learner.optimisers["value"])
