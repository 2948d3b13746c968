"""What each logged metric means: the one list, for TensorBoard, the documentation and the test that nothing is missing.

``python -m o3f.tags`` prints it as a Markdown table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tag:
    """A logged metric.

    Attributes:
        text: what it is, in a sentence without a full stop.
        unit: of the metric; "1" for plain numbers and shares.
        runs: which runs have it.
    """

    text: str
    unit: str
    runs: str = "all"


_LOSS = "reward²"  # squared errors of values
_ONLINE = "finetune"
_CHOICE = "evaluation.optimistic=true"
_BALANCED = "online.replay=balanced"
_BIAS = "evaluation.q_bias_episodes > 0"
_SOFT = f"{_BIAS}; sac, cql"
_ENTROPY = "sac, cql"
_WEIGHTED = "iql, bc, awac with exp"

#: By name, in the order of the documentation.
TAGS = {
    "eval/score": Tag("normalised return of the plain policy, 0 random and 100 expert; tasks with a range", "1"),
    "eval/return": Tag("mean undiscounted raw return of the plain policy, on the same episodes each time", "reward"),
    "eval/length": Tag("mean length of those episodes", "agent steps"),
    "eval/success": Tag("share of those episodes that reached the goal; where the environment tells", "1"),
    "eval/gain": Tag(
        "mean of eval/score (eval/return, where there is none) since fine-tuning began, minus that before", "1", _ONLINE
    ),
    "eval_optimistic/score": Tag("eval/score of the critics' choice around the policy's action", "1", _CHOICE),
    "eval_optimistic/return": Tag("eval/return of that choice, on the same episodes", "reward", _CHOICE),
    "eval_optimistic/length": Tag("mean length of its episodes", "agent steps", _CHOICE),
    "eval_optimistic/success": Tag("eval/success of that choice", "1", _CHOICE),
    "rollout/return": Tag("undiscounted raw return of an episode played while collecting", "reward", _ONLINE),
    "rollout/length": Tag("its length", "agent steps", _ONLINE),
    "rollout/failures": Tag("failures of the environment so far; there if there were any", "count", _ONLINE),
    "train/loss/critic": Tag("loss of the critics in the last batch, summed over them", _LOSS),
    "train/loss/value": Tag("expectile loss of V in the last batch", _LOSS, "iql, lapo, bc"),
    "train/loss/actor": Tag("loss of the policy in the last batch", "1"),
    "train/loss/vae": Tag("loss of the conditional VAE in the last batch", "1", "lapo"),
    "train/loss/temperature": Tag("loss of the entropy coefficient", "1", _ENTROPY),
    "train/loss/lagrange": Tag("loss of CQL's multiplier", "1", "cql with lagrange"),
    "train/critic/mean": Tag("mean of the critics over the batch's actions", "reward"),
    "train/critic/std": Tag("how much the critics disagree: population standard deviation, mean over batch", "reward"),
    "train/critic/largest": Tag("largest absolute value that a critic gives in the last batch", "reward"),
    "train/value/mean": Tag("mean of V over the batch", "reward", "iql, lapo, bc"),
    "train/value/clamped_share": Tag("share of V's targets at their bounds", "1", "lapo"),
    "train/advantage/mean": Tag("mean advantage of the batch's actions", "reward", "iql, lapo, awac, bc"),
    "train/advantage/clipped_share": Tag("share of the actor's weights at their limit of 100", "1", _WEIGHTED),
    "train/advantage/high": Tag("advantage that 99 % of the batch's actions do not exceed", "reward", _WEIGHTED),
    "train/advantage/positive_share": Tag("share of the batch's actions that are better than V says", "1", "lapo"),
    "train/vae/reconstruction": Tag("reconstruction error of the batch's actions", "1", "lapo"),
    "train/vae/divergence": Tag("KL divergence of the latent from its prior", "nats", "lapo"),
    "train/temperature": Tag("entropy coefficient alpha", "reward per nat", _ENTROPY),
    "train/entropy": Tag("entropy of the policy, from one sample a state", "nats", _ENTROPY),
    "train/cql/gap": Tag("log-sum-exp of the critics over actions, minus their value at the data's", "reward", "cql"),
    "train/cql/below_return": Tag(
        "share of the critics' values at the data's actions that are below the data's return", "1", "cql with calibrate"
    ),
    "train/cql/multiplier": Tag("weight of the conservative term", "1", "cql with lagrange"),
    "train/replay/online_share": Tag("share of online rows to expect in a batch", "1", _BALANCED),
    "train/replay/effective_share": Tag(
        "effective number of dataset rows drawn from, over their number: 1 where all weigh the same", "1", _BALANCED
    ),
    "train/left_out": Tag("updates left out so far because a gradient was not finite; there if any", "count"),
    "bias/difference": Tag("mean of the critics minus the discounted return, over episodes", "reward", _BIAS),
    "bias/relative": Tag("that difference over the absolute return", "1", _BIAS),
    "bias/ratio": Tag("the critics' mean over the discounted return", "1", _BIAS),
    "bias/soft_difference": Tag("bias/difference with the entropy terms in the return", "reward", _SOFT),
    "bias/soft_relative": Tag("bias/relative with them", "1", _SOFT),
    "bias/soft_ratio": Tag("bias/ratio with them", "1", _SOFT),
    "time/updates_per_second": Tag("rate of pre-training, evaluations left out", "1/s", "pretrain"),
    "time/steps_per_second": Tag("rate of fine-tuning with its updates, evaluations left out", "1/s", _ONLINE),
}


def table() -> str:
    """Return the list as a Markdown table."""
    lines = ["| tag | what | unit | runs |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| `{name}` | {tag.text} | {tag.unit} | {tag.runs} |" for name, tag in TAGS.items()])
