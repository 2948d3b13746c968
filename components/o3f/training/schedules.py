"""Coefficients that change while an agent is fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from o3f.errors import check_keys, require, require_range
from o3f.modules.arguments import whole_number
from o3f.objectives.ranges import RANGES

Kind = Literal["same", "abrupt", "linear"]


class Schedule:
    r"""Moves coefficients from their values at the start to others, in place.

    With t online steps of T = ``steps``, start value x_0 and final value x_1,

    .. math::
        x(t) = x_0 + w(t) (x_1 - x_0), \quad
        w(t) = 0 \text{ (same)}, \; 1 \text{ (abrupt)}, \; \min(t / T, 1) \text{ (linear)}

    The start values are those the coefficients have when the schedule is made. It has no state: a resumed run
    calls :meth:`step` with its step and goes on.

    Args:
        kind: ``"same"``, ``"abrupt"`` or ``"linear"``.
        to: final values by coefficient.
        steps: T, over which ``"linear"`` goes there.
        coefficients: the tensors to change, by name: buffers of losses, candidate samplers or scorers.

    Raises:
        ConfigError: for an unknown kind or coefficient (the message has the nearest names), ``steps`` < 1, or
            nothing to change with ``"abrupt"`` and ``"linear"``.

    Examples:
        >>> expectile = torch.tensor(0.7)
        >>> schedule = Schedule("linear", {"expectile": 0.85}, 100, {"expectile": expectile})
        >>> schedule.step(50)
        >>> round(expectile.item(), 3)
        0.775
    """

    def __init__(self, kind: Kind, to: Mapping[str, float], steps: int, coefficients: Mapping[str, Tensor]) -> None:
        check_keys([kind], get_args(Kind), "schedule.kind")
        check_keys(to, coefficients, "schedule.to")
        require_range({"schedule": {"steps": steps}}, "schedule.steps", "[1, inf)", integer=True)
        require(
            bool(to) or kind == "same",
            f"schedule={kind} changes nothing: name a coefficient and its final value, for example "
            f"+schedule.to.{min(coefficients, default='NAME')}=VALUE.",
        )
        for name, value in to.items():
            interval = RANGES.get(name.rpartition(".")[2], "(-inf, inf)")
            require_range({"schedule": {"to": {name: value}}}, ("schedule", "to", name), interval)
        self.kind = kind
        self.steps = steps
        self._moves = [(coefficients[name], coefficients[name].clone(), value) for name, value in to.items()]

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Set the coefficients to their values after ``step`` online steps."""
        if self.kind == "same":
            return
        share = 1.0 if self.kind == "abrupt" else min(whole_number("step", step, least=0) / self.steps, 1.0)
        for coefficient, start, end in self._moves:
            coefficient.copy_(torch.lerp(start, torch.full_like(start, end), share))
