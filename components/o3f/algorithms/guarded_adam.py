"""Adam that leaves out the steps whose gradients, or their squares, are not finite, without asking the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam


class GuardedAdam(Adam):
    """torch's fused Adam, taking its gradients as arguments.

    The arithmetic and ``param_groups`` are those of ``torch.optim.Adam(fused=True)``, whose ``state_dict`` can be
    loaded; its own ``step`` works, too. :func:`minimise` leaves out what that method spends on hooks, on grouping
    tensors by device and type, and on ``.grad``: together more than the arithmetic of a small network.

    Args:
        params: Parameters of one device and type, or groups of them.
        lr: learning rate.
        weight_decay: of an L2 penalty.

    Attributes:
        left_out: how many steps were left out, 0-d on the Parameters' device once there was one; reading it waits
            for that device.
        in_a_row: how many of them the last steps were.
        rate_scale: factor of every learning rate.
    """

    left_out: Tensor | float = 0.0
    in_a_row: Tensor | float = 0.0
    rate_scale: float = 1.0

    def __init__(self, params: Iterable[Any], lr: float, *, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=True)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The Parameters of all groups."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor], unusable: Tensor | None = None) -> None:
        """Take one step.

        Args:
            gradients: one for each of :attr:`parameters`.
            unusable: 0-d, on the Parameters' device: 1.0 leaves everything as it is, 0.0 does not.
        """
        remaining = iter(gradients)
        for group in self.param_groups:
            states = [self.state[parameter] or self._begin(parameter) for parameter in group["params"]]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)  # pyright: ignore[reportPrivateImportUsage]
            torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage]
                group["params"],
                [next(remaining).contiguous() for _ in states],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"] * self.rate_scale,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                found_inf=unusable,
            )
            if unusable is not None:
                torch._foreach_sub_(steps, [unusable] * len(steps))  # pyright: ignore[reportPrivateImportUsage]
        if unusable is not None:
            self.left_out = self.left_out + unusable
            self.in_a_row = (self.in_a_row + 1.0) * unusable

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state and the counts."""
        counts = {"left_out": float(self.left_out), "in_a_row": float(self.in_a_row), "rate_scale": self.rate_scale}
        return {**super().state_dict(), "guard": counts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over such a state, or one of torch's Adam."""
        super().load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        for name, count in state_dict.get("guard", {}).items():
            setattr(self, name, count)

    def _begin(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
        self.state[parameter] = state
        return state


def minimise(loss: Tensor, *optimisers: GuardedAdam) -> Tensor:
    """Take one step of optimisers on a loss, or none of them if a gradient or its square is not finite.

    Args:
        loss: 0-d; depends on every Parameter of every optimiser.
        optimisers: with Parameters on one device.

    Returns:
        0-d, on that device: 1.0 if the step was left out, else 0.0.
    """
    parameters = [parameter for optimiser in optimisers for parameter in optimiser.parameters]
    return apply_gradients(torch.autograd.grad(loss, parameters), *optimisers)


def apply_gradients(gradients: tuple[Tensor, ...], *optimisers: GuardedAdam) -> Tensor:
    """Take one step of optimisers with the gradients of all their Parameters, or none; as :func:`minimise`."""
    # The squares count, too: one that overflows makes Adam's second moment infinite, and its weight never moves again.
    # That of a norm is finite only where those of all entries are, and one pass over the gradients is enough for it.
    norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
    unusable = torch.stack(norms).square().isfinite().all().logical_not().to(torch.float32)
    start = 0
    for optimiser in optimisers:
        count = len(optimiser.parameters)
        optimiser.descend(gradients[start : start + count], unusable)
        start += count
    return unusable
