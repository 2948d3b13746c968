"""Adam that leaves out the steps whose gradients, or their squares, are not finite, without asking the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
        # For a compiled step, which would be compiled anew where a number that it has looked at changes:
        self._traced_groups: list[dict[str, Any]] = []  # without the learning rates
        self._rates: list[Tensor] = []  # of the groups, on the device

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The Parameters of all groups."""
        groups = self._traced_groups if torch.compiler.is_compiling() else self.param_groups
        return [parameter for group in groups for parameter in group["params"]]

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor], unusable: Tensor | None = None) -> None:
        """Take one step.

        Args:
            gradients: one for each of :attr:`parameters`.
            unusable: 0-d, on the Parameters' device: 1.0 leaves everything as it is, 0.0 does not.
        """
        remaining = iter(gradients)
        if torch.compiler.is_compiling():
            self._descend_traced(remaining, unusable)
            return
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

    def prepare_traced(self) -> None:
        """Before a compiled step: make what it changes exist as tensors, and give it the present learning rates."""
        if not isinstance(self.left_out, Tensor) or not self._rates:
            for parameter in self.parameters:
                _ = self.state[parameter] or self._begin(parameter)
            device = self.parameters[0].device
            self.left_out, self.in_a_row = (
                torch.as_tensor(count, dtype=torch.float32, device=device) for count in (self.left_out, self.in_a_row)
            )
            self._rates = [torch.zeros((), dtype=torch.float64, device=device) for _ in self.param_groups]
        self._traced_groups = [
            {name: value for name, value in group.items() if name != "lr"} for group in self.param_groups
        ]
        for rate, group in zip(self._rates, self.param_groups, strict=True):
            rate.fill_(group["lr"] * self.rate_scale)

    def _descend_traced(self, gradients: Iterator[Tensor], unusable: Tensor | None) -> None:
        """The same step, written in operations that a compiler fuses with those around it."""
        for group, rate in zip(self._traced_groups, self._rates, strict=True):
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                state, gradient = self.state[parameter], next(gradients)
                if group["weight_decay"]:
                    gradient = gradient + group["weight_decay"] * parameter
                step = state["step"] + 1.0
                size = (rate / (1.0 - beta1 ** step.double())).to(gradient.dtype)
                correction = (1.0 - beta2 ** step.double()).sqrt().to(gradient.dtype)
                mean = state["exp_avg"].lerp(gradient, 1.0 - beta1)
                square = beta2 * state["exp_avg_sq"] + (1.0 - beta2) * gradient * gradient
                moved = parameter - size * mean / (square.sqrt() / correction + group["eps"])
                new = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
                for name, value in new.items():
                    _overwrite(state[name], value, unusable)
                _overwrite(parameter, moved, unusable)
        if unusable is not None and isinstance(self.left_out, Tensor) and isinstance(self.in_a_row, Tensor):
            self.left_out.add_(unusable)  # in place: a compiler may lose what is assigned to an optimiser
            self.in_a_row.add_(1.0).mul_(unusable)

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


def _overwrite(old: Tensor, new: Tensor, unusable: Tensor | None) -> None:
    """Write ``new`` into ``old``, or nothing where ``unusable`` is 1.0."""
    value = new if unusable is None else torch.where(unusable == 0.0, new, old)
    # Compiled, torch 2.13 loses what is written into a float64 number, though not into a view of it.
    (old.view(1) if old.ndim == 0 else old).copy_(value)


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
