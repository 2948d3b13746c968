"""Checks of a run's numbers before any work; names and options are checked where they are used."""

from __future__ import annotations

from omegaconf import DictConfig

from o3f.adapters import is_agent
from o3f.algorithms import learner_type
from o3f.cli.commands import is_given
from o3f.data import FORMATS
from o3f.data.mixing import num_online
from o3f.errors import ConfigError, check_keys, optional, require, require_range
from o3f.training.exploration import LIMITS
from o3f.training.task_checks import SEEDS, check_algorithm, check_task

_COUNTS = ("steps", "evaluate_every", "checkpoint_every", "log_every")


def check_offline(config: DictConfig) -> None:
    """Check what pre-training and fine-tuning share.

    Raises:
        ConfigError: naming the key, the allowed range and what was found.
    """
    check_task(config)
    check_algorithm(config)
    for key in (*_COUNTS, "batch_size"):
        require_range(config, f"offline.{key}", "[1, inf)", integer=True)
    require_range(config, "evaluation.episodes", "[1, inf)", integer=True)
    require_range(config, "evaluation.seed", SEEDS, integer=True)
    for key in ("q_bias_episodes", "video_every"):
        require_range(config, f"evaluation.{key}", "[0, inf)", integer=True)
    require_range(config, "evaluation.patience", "[1, inf)", integer=True)
    check_keys([config.guard.on_nonfinite], ["stop", "roll_back"], "guard.on_nonfinite")
    require_range(config, "guard.patience", "[1, inf)", integer=True)
    require_range(config, "guard.max_rollbacks", "[1, 20]", integer=True)
    require(
        config.guard.on_nonfinite == "roll_back" or not is_given("guard.max_rollbacks"),
        f"guard.max_rollbacks={config.guard.max_rollbacks} does nothing with guard.on_nonfinite=stop: give"
        " guard.on_nonfinite=roll_back, or leave it out.",
    )
    if config.guard.max_q_ratio is not None:
        require_range(config, "guard.max_q_ratio", "(0, inf)")
    check_keys([config.dataset.storage], ["memory", "memmap"], "dataset.storage")
    check_keys([config.dataset.on_nonfinite], ["stop", "drop_episode"], "dataset.on_nonfinite")
    check_keys([config.dataset.unmarked_ends], ["stop", "truncate"], "dataset.unmarked_ends")
    check_keys([config.dataset.reset_steps], ["keep", "drop"], "dataset.reset_steps")
    if config.dataset.get("path") is not None:
        check_keys([config.dataset.format], FORMATS, "dataset.format")
    if config.dataset.max_transitions is not None:
        require_range(config, "dataset.max_transitions", "[1, inf)", integer=True)


def check_online(config: DictConfig) -> None:
    """Check a fine-tuning configuration.

    Raises:
        ConfigError: as :func:`check_offline`, and for keys that contradict each other.
    """
    check_offline(config)
    for key in (*_COUNTS, "updates_per_step", "max_env_failures"):
        require_range(config, f"online.{key}", "[1, inf)", integer=True)
    for key in ("random_steps", "warmup_steps", "target_candidates"):
        require_range(config, f"online.{key}", "[0, inf)", integer=True)
    require_range(config, "online.distil_weight", "[0, inf)")
    if config.online.online_fraction is not None:
        require_range(config, "online.online_fraction", "[0, 1]")
    check_batches(config)
    if "num_candidates" in config.exploration:  # beyond, the candidates of one step fill the memory
        require_range(config, "exploration.num_candidates", "[1, 1000000]", integer=True)
    for key in ("random_steps", "warmup_steps"):
        require(
            config.online[key] < config.online.steps,
            f"online.{key} ({config.online[key]}) must be less than online.steps ({config.online.steps}):"
            " nothing is learned before.",
        )
    check_limits_hold(config)
    require(
        config.schedule.kind != "same" or config.schedule.steps == config.online.steps,
        f"schedule.steps={config.schedule.steps} does nothing with schedule=same: choose schedule=linear, or leave it"
        " out.",
    )
    check_transfer(config)
    check_collector(config)
    require(
        not is_given("agent.value_steps") or is_agent(config.pretrained),
        f"agent.value_steps={config.agent.value_steps} does nothing: pretrained={config.pretrained} is no agent of your"
        " own, of which a value network is missing. Leave it out.",
    )
    require_range(config, "agent.value_steps", "[1, inf)", integer=True)
    check_measured(config)
    decay = config.algorithm.get("actor_decay_steps")
    require(
        config.pretrained != "auto" or config.dataset.id == "none" or decay is None,
        "algorithm.actor_decay_steps would leave the actor a learning rate of zero online: pre-train with it"
        " by itself, then fine-tune with algorithm.actor_decay_steps=null pretrained=RUN_FOLDER.",
    )


def check_measured(config: DictConfig) -> None:
    """Check that what is measured on the dataset, or comes with an agent, is not asked for without either.

    Raises:
        ConfigError: z-scores or values' bounds would never be measured.
    """
    algorithm = config.algorithm
    if config.dataset.id != "none" or config.pretrained not in ("auto", "none"):
        return
    require(
        not algorithm.get("normalise"),
        "algorithm.normalise=true measures z-scores on a dataset, but dataset=none: give algorithm.normalise=false.",
    )
    require(
        algorithm.get("value_clamp") != "fixed" or algorithm.value_bounds is not None,
        "algorithm.value_clamp=fixed takes the dataset's range of values, but dataset=none: give"
        " algorithm.value_bounds, or algorithm.value_clamp=running.",
    )


def check_batches(config: DictConfig) -> None:
    """Check that the batches can be filled.

    Raises:
        ConfigError: there will never be so many rows to draw from, or none is drawn where some are asked for.
    """
    online, fraction = config.online, config.online.online_fraction
    require(online.replay in (None, "balanced"), f"online.replay must be null or balanced, found {online.replay!r}.")
    require(
        online.replay is None or (config.dataset.id != "none" and fraction not in (0, 1)),
        "online.replay=balanced weighs a dataset's rows, and online.online_fraction is the share of online rows at"
        f" first, in (0, 1) (null: 0.5): found dataset.id={config.dataset.id}, online.online_fraction={fraction}.",
    )
    require(
        config.dataset.id != "none" or fraction in (None, 1),
        f"online.online_fraction={fraction} mixes with a dataset's rows, but dataset=none.",
    )
    require(
        not fraction or num_online(config.offline.batch_size, fraction) > 0,
        f"online.online_fraction={fraction} of offline.batch_size={config.offline.batch_size} is not one row, so that"
        " no online row would ever be learned from: give a larger one of either, or 0 if that is meant.",
    )
    require(
        (config.dataset.id != "none" and fraction != 1) or config.offline.batch_size <= online.steps,
        f"offline.batch_size ({config.offline.batch_size}) exceeds the buffer: there will never be more than"
        f" online.steps ({online.steps}) rows to draw from.",
    )


def check_limits_hold(config: DictConfig) -> None:
    """Check that nothing acts outside the limits for hardware, where there are some.

    Raises:
        ConfigError: random first steps, or an objective that asks the actor between two steps.
    """
    limits = [name for name in LIMITS if config.exploration.get(name) is not None]
    require(
        not (limits and config.online.random_steps),
        f"online.random_steps are outside the limits of exploration.{', '.join(limits)}: leave one of them out.",
    )
    require(
        "max_change" not in limits or not (config.online.distil_weight or config.online.target_candidates),
        "exploration.max_change is about one step after the other; online.distil_weight and online.target_candidates"
        " choose actions in states of a batch: leave one of them out.",
    )


def check_transfer(config: DictConfig) -> None:
    """Check that the agent to start from is one that the online algorithm can start from.

    Raises:
        ConfigError: for another pair than SAC from CQL, or a key of ``transfer`` that an agent of the user's own
            cannot follow.
    """
    offline = config.get("offline_algorithm")
    require(
        not offline or offline.name in learner_type(config.algorithm.name).starts_from,
        "offline_algorithm is for algorithm=sac alone, which can start from algorithm@offline_algorithm=cql; found"
        f" algorithm={config.algorithm.name}. Any other algorithm starts from itself: leave offline_algorithm out.",
    )
    if not is_agent(config.pretrained):
        require(
            bool(offline) or not config.transfer.optimisers,
            "transfer.optimisers=true does nothing here: it is for SAC that starts from CQL"
            " (algorithm=sac algorithm@offline_algorithm=cql). Give transfer.optimisers=false.",
        )
        return
    require(
        not config.transfer.optimisers,
        f"transfer.optimisers=true takes over Adam's moments, but pretrained={config.pretrained} brings networks alone:"
        " give transfer.optimisers=false.",
    )
    require(
        config.transfer.targets or learner_type(config.algorithm.name).draws_targets,
        "transfer.targets=false, fresh target critics for an agent of your own, is for algorithm=sac alone; found"
        f" algorithm={config.algorithm.name}: give transfer.targets=true.",
    )


def check_collector(config: DictConfig) -> None:
    """Check where the environments are.

    Raises:
        ConfigError: several of them in one process.
    """
    kind = config.collector.kind
    check_keys([kind], ["single", "multi_sync", "ray"], "collector.kind")
    require_range(config, "num_workers", "[1, inf)", integer=True)
    if kind == "single":
        require(config.num_workers == 1, f"num_workers={config.num_workers} needs collector=multi_sync or ray.")
    read = {"single": set(), "multi_sync": {"timeout"}, "ray": {"timeout", "address", "num_cpus"}}[kind]
    for key in sorted(config.collector.keys() - {"kind"} - read):
        raise ConfigError(
            f"collector.{key} does nothing with collector={kind}: leave it out, or choose another collector."
        )
    if kind == "single":
        return
    require_range(config, "collector.timeout", "(0, inf)")
    if kind == "ray":
        optional("ray", "ray")
        require_range(config, "collector.num_cpus", "(0, inf)")
