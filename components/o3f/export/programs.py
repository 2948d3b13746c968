"""The policy as it is exported: from raw observations to actions in the environment's units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from o3f.export.interface import Interface


class PolicyProgram(nn.Module):
    r"""The policy's deterministic action, in the environment's units.

    .. math:: u = \pi(s), \quad u' = \mathrm{clip}(u, p - r, p + r), \quad a = c + h u'

    with c and h the centre and half width of the actions, r = ``max_change`` and p the action before. Without
    ``max_change`` there is no p; where p is NaN (an episode's first step) nothing is limited. What rounding puts beyond
    the environment's bounds is set to them.

    Args:
        policy: of :func:`~o3f.export.plain_policy`.
        interface: the environment's units.
        max_change: r ``[A]``, in units of [-1, 1]; None for no limit.
    """

    action_centre: Tensor
    action_half: Tensor
    action_low: Tensor
    action_high: Tensor
    max_change: Tensor | None

    def __init__(self, policy: nn.Module, interface: Interface, max_change: Tensor | None = None) -> None:
        super().__init__()
        self.policy: Any = policy
        self.observation_dim = interface.layout.size
        self.register_buffer("action_centre", torch.from_numpy(interface.centre.copy()))
        self.register_buffer("action_half", torch.from_numpy(interface.half.copy()))
        self.register_buffer("action_low", torch.from_numpy(interface.low.copy()))
        self.register_buffer("action_high", torch.from_numpy(interface.high.copy()))
        self.register_buffer("max_change", None if max_change is None else max_change.detach().cpu().clone())

    def forward(self, observation: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return the action ``[B, A]``.

        Args:
            observation: ``[B, O]``.
            previous: the action executed before, ``[B, A]``, NaN where there is none.
        """
        action: Tensor = self.policy(observation)
        return self.in_units(self.within(action, previous))

    def in_units(self, action: Tensor) -> Tensor:
        """Rescale actions ``[B, A]`` in [-1, 1] to the environment's bounds, which they never leave."""
        return (self.action_centre + self.action_half * action).clamp(self.action_low, self.action_high)

    def within(self, action: Tensor, previous: Tensor | None) -> Tensor:
        """Limit actions ``[B, A]`` or ``[B, N, A]`` in [-1, 1] to those near the ``previous`` one ``[B, A]``."""
        if self.max_change is None or previous is None:
            return action
        before = (previous - self.action_centre) / self.action_half
        before = before.unsqueeze(-2) if action.ndim > before.ndim else before
        near = action.clamp(before - self.max_change, before + self.max_change)
        return torch.where(before.isnan(), action, near)

    def inputs(self, batch: int = 2) -> dict[str, Tensor]:
        """Return zeros of the shapes of all inputs that this program needs, by name."""
        size = self.action_half.numel()
        inputs = {"observation": torch.zeros(batch, self.observation_dim)}
        return inputs if self.max_change is None else {**inputs, "previous": torch.zeros(batch, size)}


def save_program(program: PolicyProgram, file: Path) -> None:
    """Trace a program for any number of observations at a time and write it with ``torch.export.save``."""
    inputs = program.inputs()
    observation = inputs.pop("observation")
    batch = Dim("batch", min=1)
    shapes = {name: {0: batch} for name in ("observation", *inputs)}
    with torch.no_grad():
        traced = torch.export.export(program.eval(), (observation,), kwargs=inputs, dynamic_shapes=shapes)
    torch.export.save(traced, file)


def weights(program: PolicyProgram) -> dict[str, Tensor]:
    """Return all numbers of a program under the names that ``policy.json`` lists."""
    state = program.state_dict()
    return {name: value.contiguous() for name, value in state.items() if not name.endswith("_extra_state")}
