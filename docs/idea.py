"""Draws docs/idea.png: what optimistic selection does in one state, with the package's own modules."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from tensordict import TensorDict
from tensordict.nn import TensorDictModule

from o3f import OptimisticActor


def values(action: torch.Tensor) -> torch.Tensor:
    """Five critics that agree on the slope and differ a little in where they see the peak."""
    peaks = torch.tensor([[0.55, 0.35], [0.60, 0.50], [0.50, 0.45], [0.65, 0.40], [0.58, 0.55]])
    return -(action.unsqueeze(-2) - peaks).pow(2).sum(-1)


def main() -> None:
    """Draw the candidates over the mean of the critics."""
    torch.manual_seed(3)
    base = torch.tensor([0.0, 0.0])
    policy = TensorDictModule(lambda observation: base, in_keys=["observation"], out_keys=["action"])
    critic = TensorDictModule(
        lambda observation, action: values(action),
        in_keys=["observation", "action"],
        out_keys=["state_action_value"],
    )
    actor = OptimisticActor(policy, critic, num_candidates=100, sigma=0.2, return_candidates=True)
    out = actor(TensorDict({"observation": torch.zeros(1)}))

    grid = torch.linspace(-0.8, 1.0, 200)
    plane = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1)
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    contours = left.contourf(grid, grid, values(plane).mean(-1), levels=24, cmap="Greys_r", alpha=0.55)
    figure.colorbar(contours, ax=left, label="mean of the critics", ticks=[])
    left.scatter(*out["candidates"].T, s=12, c=out["scores"], cmap="viridis", label="100 candidates")
    left.scatter(*base, marker="s", s=60, c="tab:blue", ec="w", label="policy's action")
    left.scatter(*out["action"], marker="*", s=180, c="tab:red", ec="w", label="executed")
    left.set(xlabel="action, dimension 1", ylabel="action, dimension 2", xlim=(-0.8, 1.0), ylim=(-0.8, 1.0))
    left.legend(loc="lower right", fontsize=8)
    right.axis("off")
    right.text(
        0,
        0.5,
        "offline: any actor-constrained algorithm\n"
        "              trains policy and critics\n\n"
        "online:  1. the policy proposes an action ■\n"
        "            2. 100 candidates around it ●\n"
        "            3. execute the one that the critics\n"
        "                rank highest ★, and store it\n"
        "            4. go on with the offline update",
        va="center",
        fontsize=11,
    )
    figure.savefig(Path(__file__).with_name("idea.png"))


if __name__ == "__main__":
    main()
