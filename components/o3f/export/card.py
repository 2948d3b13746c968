"""The page that goes with an exported policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from o3f.export.networks import GaussianNetwork, SquashedNetwork

_LOAD = """```python
import torch

policy = torch.export.load("policy.pt2").module()
observation = torch.zeros(1, {observation})  # [B, {observation}], float32: one flat observation a row
{previous}action = policy({call})  # [B, {action}], in the environment's units
```"""

_WEIGHTS = (
    "`model.safetensors` has the same numbers as data alone; `policy.json` lists names and shapes. Layer `i` of the"
    " policy is `policy.layers.i` (or `policy.actor.network.i` and `policy.decoder.network.i`), `policy.std` its spread"
    " when it samples, layer `i` of all critics `critics.weights.i` [critics, in, out].{example}"
)

_PLAIN = """ A plain
perceptron takes the policy's:

```python
from safetensors.torch import load_file
from torch import nn

network = nn.Sequential({layers})
prefix = "policy.layers."
weights = load_file("model.safetensors")
network.load_state_dict({{k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}})
```

The action in [-1, 1] is then `tanh` of {outputs}; `action_centre + action_half * action` is the environment's."""

_TRUST = (
    "Compare the files with the SHA-256 in `policy.json`. PyTorch runs code that someone may have hidden in a `.pt2`"
    " file when it is loaded: load only those of people you trust. `model.safetensors` and `policy.json` are data and"
    " run nothing."
)

_WITHIN = (
    "The programs keep `max_change`; `max_displacement` concerns candidates and is in `optimistic.pt2` alone; a `veto`"
    " is a Python function and is in neither."
)


def card_text(manifest: Mapping[str, Any], network: nn.Module) -> str:
    """Return the page in Markdown.

    Args:
        manifest: the contents of ``policy.json``.
        network: the policy's network, of :func:`~o3f.export.plain_policy`.
    """
    programs = manifest["programs"]
    sections = [
        f"# {manifest['task']}, {manifest['algorithm']}",
        _what(manifest),
        "## Scores",
        _scores(manifest),
        "## Data",
        _data(manifest),
        "## Use",
        f"Needs PyTorch {manifest['versions']['torch']} (others are not tested) and nothing else.",
        _load(manifest),
        _inputs(manifest),
        *([_optimistic(manifest)] if "optimistic.pt2" in programs else []),
        _WEIGHTS.format(example=_example(network)),
        _TRUST,
        "## Limits",
        _limits(manifest),
    ]
    return "\n\n".join(sections) + "\n"


def _what(manifest: Mapping[str, Any]) -> str:
    checkpoint, env = manifest["checkpoint"], manifest["environment"]
    steps = "environment steps online" if manifest["phase"] == "online" else "gradient steps offline"
    return (
        f"A policy for `{env['id']}`, trained with {manifest['algorithm']} (seed {manifest['seed']}). It is the"
        f" {checkpoint['which']} checkpoint, taken after {checkpoint['step']} {steps}; the critics had"
        f" {checkpoint['critic_updates']} updates. The action is the policy's deterministic one."
    )


def _scores(manifest: Mapping[str, Any]) -> str:
    scores = manifest["scores"]
    if scores is None:
        return "This checkpoint was not evaluated."
    names = [name for name in ("return", "score", "success", "length") if name in scores]
    rows = " | ".join(f"{scores[name]:.2f}" for name in names)
    meaning = "; the score is 0 and 100 at the task's reference returns" if "score" in scores else ""
    limited = manifest["limits"] and " They were played without the limits for hardware."
    episodes = f"{scores['episodes']} episode{'s' if scores['episodes'] > 1 else ''}"
    return (
        f"Means over {episodes} of the simulator, by the run itself,"
        f" at this checkpoint{meaning}.{limited or ''}\n\n"
        f"| {' | '.join(names)} |\n|{'---|' * len(names)}\n| {rows} |"
    )


def _data(manifest: Mapping[str, Any]) -> str:
    dataset = manifest["dataset"]
    if dataset is None:
        return "No dataset: trained in the environment alone."
    said = dataset["description"] or "Its description is not at hand."
    return f"`{dataset['id']}`, SHA-256 of its rows `{dataset['hash']}`. {said}"


def _load(manifest: Mapping[str, Any]) -> str:
    action, observation = manifest["action"]["size"], manifest["observation"]["size"]
    limited = "previous" in manifest["programs"]["policy.pt2"]["inputs"]
    previous = f"previous = torch.full((1, {action}), torch.nan)  # first step; then the action executed before\n"
    return _LOAD.format(
        observation=observation,
        action=action,
        previous=previous if limited else "",
        call="observation, previous=previous" if limited else "observation",
    )


def _inputs(manifest: Mapping[str, Any]) -> str:
    parts = manifest["observation"]["parts"]
    order = ", ".join(f"`{part['key'] or 'observation'}` {part['shape']}" for part in parts)
    held = manifest["action"]["environment_steps_per_action"]
    rate = f" One action is held for {held} steps of the environment." if held > 1 else ""
    return f"An observation is, flat and in this order: {order}; nothing is normalised outside.{rate}"


def _optimistic(manifest: Mapping[str, Any]) -> str:
    program = manifest["programs"]["optimistic.pt2"]
    shapes = ", ".join(f"`{name}` [{', '.join(map(str, value['shape']))}]" for name, value in program["inputs"].items())
    return (
        "`optimistic.pt2` is for a robot that goes on learning: of candidates around the policy's action it returns the"
        f" one that the critics rank highest. Call `{program['call']}` with {shapes}; all but the observation and the"
        " action before are standard normal numbers, drawn anew for every decision (`torch.randn`)."
    )


def _example(network: nn.Module) -> str:
    if not isinstance(network, GaussianNetwork | SquashedNetwork):
        return ""
    layers = [_constructor(layer) for layer in network.layers]
    if None in layers:
        return ""
    outputs = "its outputs" if isinstance(network, GaussianNetwork) else "the first half of its outputs"
    return _PLAIN.format(layers=", ".join(str(layer) for layer in layers), outputs=outputs)


def _constructor(layer: nn.Module) -> str | None:
    """The expression that builds a layer, None for one that a short example should not show."""
    if isinstance(layer, nn.Linear):
        return f"nn.Linear({layer.in_features}, {layer.out_features})"
    return "nn.ReLU()" if isinstance(layer, nn.ReLU) else None


def _bound(action: Mapping[str, Any], side: int) -> str:
    bounds = [f"{c + side * h:.4g}" for c, h in zip(action["centre"], action["half"], strict=True)]
    return bounds[0] if len(set(bounds)) == 1 else f"[{', '.join(bounds)}]"


def _limits(manifest: Mapping[str, Any]) -> str:
    action, latency, limits = manifest["action"], manifest["latency"], manifest["limits"]
    times = latency["policy.pt2"]
    items = [
        "Tested in the simulator named above alone: not on hardware, not with delays, sensor noise or another rate.",
        "Nothing is known of observations unlike those of the data and the run.",
        f"Actions stay between {_bound(action, -1)} and {_bound(action, 1)}; nothing else is guaranteed of them.",
        f"A decision took {times['median_us']:.0f} µs (median; p99 {times['p99_us']:.0f} µs) with one thread, in the"
        f" calmest of five series, on {manifest['versions']['processor']}; another machine needs its own measurement.",
    ]
    if limits:
        items.append(f"The run explored within {json.dumps(limits)} (in [-1, 1]). {_WITHIN}")
    return "\n".join(f"- {item}" for item in items)
