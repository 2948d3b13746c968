"""Record what small d3rlpy agents give: python tests/golden/make_d3rlpy.py (needs d3rlpy 2.8 and safetensors).

Writes ``d3rlpy_{algorithm}.safetensors`` beside this file: the state dicts as d3rlpy names them (``agent.*``), with
what its observation scaler does, and ``check.*``: observations and actions, and what d3rlpy itself says of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import d3rlpy
import torch
from d3rlpy.algos import AWACConfig, CQLConfig, IQLConfig, SACConfig, TD3PlusBCConfig
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.models.torch.policies import build_gaussian_distribution, build_squashed_gaussian_distribution
from d3rlpy.preprocessing import MinMaxObservationScaler, StandardObservationScaler
from safetensors.torch import save_file

MEAN, STD = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.5, 0.7, 3.0])
STANDARD = StandardObservationScaler(mean=MEAN.numpy(), std=STD.numpy())
MINMAX = MinMaxObservationScaler(minimum=(MEAN - STD).numpy(), maximum=(MEAN + 2 * STD).numpy())
CONFIGS = {
    "iql": (IQLConfig, STANDARD),
    "awac": (AWACConfig, None),
    "cql": (CQLConfig, MINMAX),
    "sac": (SACConfig, None),
    "td3_plus_bc": (TD3PlusBCConfig, STANDARD),
}


def make(name: str) -> Any:
    """One agent with drawn weights, the standard deviations and the temperature not as they start."""
    config, scaler = CONFIGS[name]
    encoders: Any = {
        f"{part}_encoder_factory": VectorEncoderFactory(hidden_units=[4, 5]) for part in ("actor", "critic")
    }
    if name == "iql":
        encoders["value_encoder_factory"] = VectorEncoderFactory(hidden_units=[3])
    algorithm = config(observation_scaler=scaler, **encoders).create(device="cpu:0")
    algorithm.create_impl((3,), 2)
    modules = algorithm.impl._modules
    if isinstance(getattr(modules.policy, "_logstd", None), torch.nn.Parameter):
        modules.policy._logstd.data.copy_(torch.tensor([[0.3, -1.2]]))
    if hasattr(modules, "log_temp"):
        modules.log_temp._parameter.data.fill_(-0.7)
    return algorithm


@torch.no_grad()
def record(name: str) -> None:
    """Write one file."""
    algorithm = make(name)
    modules, scaler = algorithm.impl._modules, algorithm.config.observation_scaler
    kept = {part: module for part, module in vars(modules).items() if isinstance(module, torch.nn.Module)}
    tensors = {
        f"agent.{part}.{key}": value for part, module in kept.items() for key, value in module.state_dict().items()
    }
    if name in ("iql", "td3_plus_bc"):
        tensors |= {"agent.observation_mean": MEAN, "agent.observation_std": STD + scaler.eps}
    if name == "cql":  # (x - low) / (high - low) * 2 - 1
        tensors |= {"agent.observation_mean": MEAN + STD / 2, "agent.observation_std": 1.5 * STD}
    observation, action = torch.randn(6, 3) * 2, torch.rand(6, 2) * 1.8 - 0.9
    seen = observation if scaler is None else scaler.transform(observation)
    given = modules.policy(seen)
    tensors |= {"check.observation": observation, "check.action": action}
    tensors["check.mean"] = torch.as_tensor(algorithm.predict(observation.numpy()))
    tensors["check.q"] = torch.cat([q(seen, action).q_value for q in modules.q_funcs], 1)
    if name != "td3_plus_bc":
        squashed = name in ("cql", "sac")
        dist = (build_squashed_gaussian_distribution if squashed else build_gaussian_distribution)(given)
        tensors |= {"check.std": dist.std.expand(6, 2), "check.log_prob": dist.log_prob(action)[:, 0]}
    if name == "iql":
        tensors["check.value"] = modules.value_func(seen)
    tensors = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    save_file(
        tensors, Path(__file__).with_name(f"d3rlpy_{name}.safetensors"), {"made_with": f"d3rlpy {d3rlpy.__version__}"}
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    for each in CONFIGS:
        record(each)
