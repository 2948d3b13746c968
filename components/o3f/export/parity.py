"""Whether a program, read back from its file, acts as the run does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from o3f.errors import ExportError
from o3f.export.optimistic import OptimisticProgram
from o3f.export.programs import PolicyProgram
from o3f.modules import OptimisticActor

TOLERANCE = 1e-5
"""Largest difference of an action that passes, in units of half the environment's action range."""

Program = Callable[..., Tensor]


def check_parity(
    name: str, loaded: Program, program: PolicyProgram, actor: Any, observations: Tensor
) -> dict[str, Any]:
    """Compare a program with what the run acts with, see :func:`policy_difference`, :func:`optimistic_difference`.

    Args:
        name: the program's, for the message.
        loaded: the program as it was read back.
        program: the module it was made of.
        actor: the run's policy, or for an :class:`~o3f.export.OptimisticProgram` its optimistic actor, on the CPU.
        observations: ``[B, O]``.

    Returns:
        ``max_abs_difference``, in units of half the action range, and ``ties``, see :func:`optimistic_difference`.

    Raises:
        ExportError: the difference is above :data:`TOLERANCE`.
    """
    ties = 0
    with torch.no_grad():
        if isinstance(program, OptimisticProgram):
            worst, ties = optimistic_difference(loaded, program, actor, observations)
        else:
            worst = policy_difference(loaded, program, actor, observations)
    if not worst <= TOLERANCE:  # NaN fails, too
        raise ExportError(
            f"{name} does not act as the run does: actions differ by {worst:.1e} of half their range, at most"
            f" {TOLERANCE:.0e} was expected. Nothing was written. This is a fault of the export: please report it"
            " with the run's config.yaml."
        )
    return {"max_abs_difference": worst, "ties": ties}


def policy_difference(loaded: Program, program: PolicyProgram, policy: Any, observations: Tensor) -> float:
    """Return the largest difference to the policy, for all observations at once and for three of them alone."""
    expected = act_on(policy, observations, ExplorationType.DETERMINISTIC)
    unlimited = {} if program.max_change is None else {"previous": torch.full_like(expected, torch.nan)}
    differences = [_difference(program, loaded(observations, **unlimited), expected)]
    for row in range(min(3, len(observations))):
        one = {name: value[:1] for name, value in unlimited.items()}
        differences.append(_difference(program, loaded(observations[row : row + 1], **one), expected[row : row + 1]))
    if program.max_change is not None:
        before = expected.roll(1, 0)
        near = expected.clamp(before - program.max_change, before + program.max_change)
        previous = program.action_centre + program.action_half * before
        differences.append(_difference(program, loaded(observations, previous=previous), near))
    return float(torch.cat([each.flatten() for each in differences]).max())


def optimistic_difference(
    loaded: Program, program: OptimisticProgram, actor: OptimisticActor, observations: Tensor, seed: int = 0
) -> tuple[float, int]:
    """Return the largest difference to the actor, given the numbers that it draws, and the number of ties.

    Two steps are compared, the first of an episode and the one after. Where the critics rank two candidates equal but
    for rounding, either is right: such ties are counted and left out.
    """
    inputs = program.inputs(len(observations))
    previous = torch.full_like(program.action_half.expand(len(observations), -1), torch.nan)
    differences, ties = [], 0
    for step in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + step)
            expected = act_on(actor, observations, ExplorationType.RANDOM, is_init=step == 0)
            torch.manual_seed(seed + step)  # the actor's order: first the policy's sample, then the candidates
            drawn: dict[str, Tensor] = {
                name: torch.randn_like(inputs[name]) for name in ("policy_noise", "noise") if name in inputs
            }
        if "previous" in inputs:
            drawn["previous"] = previous
        found = loaded(observations, **drawn)
        difference = _difference(program, found, expected).amax(-1)
        equal = (difference > TOLERANCE) & _ranked_equal(actor, observations, expected, _agent_units(program, found))
        differences.append(difference[~equal])
        ties += int(equal.sum())
        previous = program.action_centre + program.action_half * expected
    return float(torch.cat(differences).max()), ties


def act_on(policy: TensorDictModuleBase, observations: Tensor, exploration: Any, is_init: bool = True) -> Tensor:
    """Return a policy's actions ``[B, A]`` in [-1, 1], under an exploration type and in evaluation mode."""
    first = torch.full((len(observations), 1), is_init)
    step = TensorDict({"observation": observations, "is_init": first}, [len(observations)])
    with torch.no_grad(), set_exploration_type(exploration):
        action: Tensor = policy.eval()(step)["action"]
    return action


def _agent_units(program: PolicyProgram, action: Tensor) -> Tensor:
    return (action - program.action_centre) / program.action_half


def _difference(program: PolicyProgram, found: Tensor, expected: Tensor) -> Tensor:
    return (_agent_units(program, found) - expected).abs()


def _ranked_equal(actor: OptimisticActor, observations: Tensor, *actions: Tensor) -> Tensor:
    """Whether the run's own critics rank two actions equal, ``[B]``, but for the rounding of float32."""
    states = TensorDict({"observation": observations}, [len(observations)])
    with torch.no_grad():
        first, second = actor.score(states, torch.stack(actions, -2)).unbind(-1)
    return (first - second).abs() <= 1e-5 * (1.0 + first.abs())
